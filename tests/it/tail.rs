//! `sluicebox tail` through the real program: it goes on when the host comes back, and ends when nobody reads it.

use crate::harness::PATIENCE;
use crate::harness::process::{PROGRAM, Place, Process};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};

/// A tail of a host with these further arguments, once it is open; its output is not read yet.
async fn tail(host: &Process, arguments: &[&str]) -> (Child, ChildStdout) {
    let mut command = Command::new(PROGRAM);
    command.args(["tail", "--json", "--url", &host.url]).args(arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    host.until("the tail is open", async |host| host.metric("http_tails").await == 1).await;
    let output = child.stdout.take().unwrap();
    (child, output)
}

/// The bodies that a tail shows.
fn bodies(output: ChildStdout) -> Receiver<String> {
    let (sender, bodies) = sync_channel(100);
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            let message: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
            sender.send(message["body"].as_str().unwrap().to_owned()).unwrap();
        }
    });
    bodies
}

#[tokio::test]
async fn a_tail_goes_on_after_restarts_also_when_it_had_shown_nothing_yet() {
    let place = Place::new("", &[]);
    let mut host = place.start();
    let address = host.url.strip_prefix("http://").unwrap().to_owned();
    let (mut child, output) = tail(&host, &[">", "--key", "ada"]).await;
    let bodies = bodies(output);
    for body in ["1", "2"] {
        host.kill();
        host = place.start_with(&[("SLUICEBOX_LISTEN", &address)]);
        // It may not be back yet: what is published meanwhile is not missed.
        assert!(host.publish("a", Some("bob"), None, "of another key").await);
        assert!(host.publish("a", Some("ada"), None, body).await);
        assert_eq!(bodies.recv_timeout(PATIENCE).as_deref(), Ok(body));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn a_tail_that_nobody_reads_any_more_ends_without_another_message() {
    let place = Place::new("", &[]);
    let host = place.start();
    let (mut child, output) = tail(&host, &[]).await;
    drop(output);
    host.until("the tail is closed", async |host| host.metric("http_tails").await == 0).await;
    assert!(child.wait().unwrap().success());
}
