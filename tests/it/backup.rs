//! Copies of the data, made by the real program while a host works on it, killed, and started again.

use crate::checker;
use crate::crash::{self, SETTINGS};
use crate::harness::guests::guest;
use crate::harness::logs::message;
use crate::harness::process::{PROGRAM, Place};
use crate::harness::{PATIENCE, counts, everything};
use serde_json::Value;
use sluicebox::clock;
use sluicebox::log::Log;
use sluicebox::log::embedded::{EmbeddedLog, Options};
use sluicebox::message::{Key, Message};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

async fn messages(data: &Path) -> Vec<Arc<Message>> {
    everything(&EmbeddedLog::open_read_only(data).unwrap()).await
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

/// In every handler's state is what its outputs say, key by key: both are of the same moment.
async fn check_agrees(data: &Path) {
    let log = EmbeddedLog::open_read_only(data).unwrap();
    let all = everything(&log).await;
    for routing in log.routings().await.unwrap().routings {
        let output = format!("out.{}", routing.handler);
        let mut said: BTreeMap<Key, u64> = BTreeMap::new();
        for message in all.iter().filter(|message| message.topic.as_str() == output) {
            let body: Value = serde_json::from_slice(&message.body).unwrap();
            said.insert(message.key.clone().unwrap(), body["n"].as_u64().unwrap());
        }
        let keys: Vec<Key> = said.keys().cloned().collect();
        assert_eq!(counts(&log, &routing, &keys).await, said);
    }
    let end = log.end().await.unwrap();
    for shard in log.status().await.unwrap() {
        assert!(shard.read <= end, "{shard:?} is beyond {end}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_made_under_load_is_one_moment_and_a_host_goes_on_from_it_exactly_once() {
    let place = Place::new(SETTINGS, &[&guest("ledger")]);
    let copies: Vec<Place> = (0..3).map(|_| Place::new(SETTINGS, &[&guest("ledger")])).collect();
    let host = place.start();
    let mut ends = vec![];
    let copying = async {
        let mut enough = 100;
        for copy in &copies {
            host.until("there is something to copy", async |_| messages(&place.data()).await.len() > enough).await;
            let mut command = Command::new(PROGRAM);
            let command = command.current_dir(place.path()).args(["backup", "--json"]).arg(copy.data()).output();
            let (code, said) = (command.as_ref().unwrap().status.code(), command.unwrap().stdout);
            assert_eq!(code, Some(0));
            let said: Value = serde_json::from_slice(&said).unwrap();
            ends.push(said["end"].as_u64().unwrap());
            assert!(said["bytes"].as_u64().unwrap() > 4096);
            // The next one is of a later moment.
            enough = messages(&place.data()).await.len() + 100;
        }
    };
    let work = crash::load(&host, 0, 2000, 7);
    tokio::select! {
        // Enough messages that the last copy is made before they are all published.
        () = copying => {}
        _ = work => panic!("the load ended before the copies were made"),
    }
    host.kill();

    let original = messages(&place.data()).await;
    for (copy, end) in copies.iter().zip(&ends) {
        let copied = messages(&copy.data()).await;
        assert_eq!(copied.last().unwrap().offset.0, *end);
        assert!(copied.len() > 100 && original.starts_with(&copied), "what is copied is how the log begins");
        assert_eq!(names(&copy.data().join("modules")), names(&place.data().join("modules")));
        check_agrees(&copy.data()).await;

        let host = copy.start();
        assert!(host.publish("in", Some("k1"), Some("after the copy"), "ok").await);
        host.until("everything is settled", async |_| {
            let status = EmbeddedLog::open_read_only(&copy.data()).unwrap().status().await.unwrap();
            let open: u64 = status.iter().map(|shard| shard.open).sum();
            open == 0 && checker::check(&crash::history(copy).await).is_ok()
        })
        .await;
        host.stop();
        let history = crash::history(copy).await;
        checker::check(&history).unwrap();
        assert!(history.messages.len() > copied.len() && history.messages.starts_with(&copied));
    }
    assert!(ends.is_sorted_by(|a, b| a < b), "{ends:?}");
}

/// A data directory with so many megabytes, of a host that does not run.
fn filled(data: &Path, megabytes: usize) {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let log = EmbeddedLog::open(data, Options::default()).unwrap();
        for _ in 0..megabytes {
            log.append(vec![message("a", vec![7; 100_000]); 10]).await.unwrap();
        }
    });
}

#[test]
fn a_copy_that_is_killed_does_not_look_like_one_and_the_next_clears_it_away() {
    let place = Place::new("", &[]);
    filled(&place.data(), 100);
    let (to, partial) = (place.path().join("copy"), place.path().join("copy.partial"));
    let begun = clock::instant();
    loop {
        let mut child = Command::new(PROGRAM).current_dir(place.path()).args(["backup", "copy"]).spawn().unwrap();
        let is_under_way = || std::fs::metadata(partial.join("sluicebox.db")).is_ok_and(|file| file.len() > 1_000_000);
        while !is_under_way() && child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < PATIENCE);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if !to.exists() {
            break;
        }
        // It was quicker: what is there is whole.
        std::fs::remove_dir_all(&to).unwrap();
        assert!(begun.elapsed() < PATIENCE);
    }
    assert!(partial.exists());
    std::fs::write(partial.join("stray"), "of the killed one").unwrap();
    let (code, said, errors) = place.command(&["backup", "copy"]);
    assert_eq!(code, 0, "{errors}");
    assert!(said.starts_with("copied to copy in ") && said.ends_with("up to message 1000\n"), "{said}");
    assert!(!partial.exists());
    assert_eq!(names(&to), ["lock", "sluicebox.db"]);
    let [from, to] = [place.data(), to].map(|data| tokio::runtime::Runtime::new().unwrap().block_on(messages(&data)));
    assert!(from.len() == 1000 && from == to);
}

#[test]
fn a_copy_never_touches_what_is_there() {
    let place = Place::new("", &[]);
    let (code, _, errors) = place.command(&["backup", "copy"]);
    assert_eq!(code, 1);
    assert!(errors.contains("failed to read the log in") && errors.contains("there is no log"), "{errors}");
    filled(&place.data(), 1);
    std::fs::create_dir(place.path().join("full")).unwrap();
    std::fs::write(place.path().join("full/notes.txt"), "mine").unwrap();
    std::fs::create_dir(place.path().join("empty")).unwrap();
    for (to, expected) in [
        ("full", "`full` exists and is not an empty directory: name one that does not exist"),
        ("full/notes.txt", "exists and is not an empty directory"),
        ("data", "exists and is not an empty directory"),
        ("..", "names no directory that could be made"),
        ("full/notes.txt/copy", "exists and is not an empty directory"),
    ] {
        let (code, said, errors) = place.command(&["backup", to]);
        assert_eq!((code, said.as_str()), (1, ""), "{to}");
        assert!(errors.contains(expected), "{to}: {errors}");
    }
    assert_eq!(names(&place.path().join("full")), ["notes.txt"]);
    assert!(names(place.path()).iter().all(|name| !name.ends_with(".partial")));
    let (code, _, errors) = place.command(&["backup", "empty", "--data", "data"]);
    assert_eq!(code, 0, "{errors}");
    assert_eq!(names(&place.path().join("empty")), ["lock", "sluicebox.db"]);
    let (code, _, errors) = place.command(&["backup", "deep/er/copy"]);
    assert_eq!(code, 0, "{errors}");

    // While one is under way another to the same place waits for nobody: it is refused.
    std::fs::create_dir(place.path().join("busy.partial")).unwrap();
    let lock = std::fs::File::create(place.path().join("busy.partial/lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let (code, _, errors) = place.command(&["backup", "busy"]);
    assert_eq!(code, 1);
    assert!(errors.contains("another copy to this place may be under way"), "{errors}");
    assert!(place.path().join("busy.partial").exists() && !place.path().join("busy").exists());
}
