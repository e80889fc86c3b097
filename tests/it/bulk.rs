//! `sluicebox publish --ndjson` through the real program: interrupted, it says how far it is and how to go on.

use crate::harness::process::{PROGRAM, Place, Process};
use std::io::Write as _;
use std::process::{Child, Command, Output, Stdio};

/// Lines from standard input, which stays open.
fn publish(host: &Process, arguments: &[&str]) -> Child {
    let mut command = Command::new(PROGRAM);
    command.args(["publish", "a", "--ndjson", "-", "--url", &host.url]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

async fn send(host: &Process, child: &mut Child, lines: &str, total: u64) {
    child.stdin.as_mut().unwrap().write_all(lines.as_bytes()).unwrap();
    let what = format!("{total} lines are in the log although no more come");
    host.until(&what, async |host| host.metric("http_messages_appended_total").await == total).await;
}

fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn an_interrupt_says_how_many_lines_are_acknowledged_and_how_to_go_on() {
    let place = Place::new("", &[]);
    let host = place.start();
    let mut child = publish(&host, &[]);
    send(&host, &mut child, "1\n2\n", 2).await;
    // A third is on its way, and the answers of the first two are there when it is sent.
    send(&host, &mut child, "3\n", 3).await;
    interrupt(&child);
    // Held open: at its end the publish would be done, and might be so before it hears of the interrupt.
    let held = child.stdin.take();
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    drop(held);
    let said = text(&stderr);
    let goes_on = ["acknowledged up to line 3: go on with --from-line 4", "go on with --from-line 3"];
    assert!(goes_on.iter().any(|goes_on| said.contains(goes_on)), "{said}");
    assert_eq!(status.code(), Some(1));

    let mut child = publish(&host, &["--from-line", "3", "--json"]);
    send(&host, &mut child, "1\n2\n3\n4\n", 5).await;
    drop(child.stdin.take());
    let answer: serde_json::Value = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!((&answer["accepted"], &answer["settled_line"]), (&2.into(), &4.into()));
}

#[tokio::test]
async fn a_host_that_dies_does_not_take_the_count_with_it() {
    let place = Place::new("", &[]);
    let host = place.start();
    let mut child = publish(&host, &["--json"]);
    send(&host, &mut child, "1\n2\n", 2).await;
    send(&host, &mut child, "3\n", 3).await;
    host.kill();
    child.stdin.as_mut().unwrap().write_all(b"4\n").unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    assert_eq!(status.code(), Some(4), "{}", text(&stderr));
    let answer: serde_json::Value = serde_json::from_slice(&stdout).unwrap();
    // The answer to the third may have been lost with the host.
    let settled = answer["settled_line"].as_u64().unwrap();
    assert!((2..=3).contains(&settled), "{answer}");
    assert_eq!(answer["from_line"], settled + 1);
    let error: serde_json::Value = serde_json::from_slice(&stderr).unwrap();
    assert!(error["error"].as_str().unwrap().contains(&format!("go on with --from-line {}", settled + 1)), "{error}");
}
