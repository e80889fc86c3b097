//! The embedded log after the death of its process: what was acknowledged is there, and every commit is whole or absent.

use crate::harness::logs::{commit, key, message, shard};
use crate::harness::{again, everything};
use rand::{RngExt as _, SeedableRng as _};
use sluicebox::clock::Timestamp;
use sluicebox::commit::{Head, HeadScope, KeyWrites, Mark, ShardCommit, Term};
use sluicebox::effects::StateWrite;
use sluicebox::handler::ShardId;
use sluicebox::log::Log;
use sluicebox::log::embedded::{EmbeddedLog, Options};
use sluicebox::message::{IdHash, Offset};
use std::path::Path;
use tokio::runtime::Runtime;

const SHARDS: u16 = 3;

/// The commit of this number leaves a trace of it in every table.
fn numbered(id: &ShardId, term: Term, number: u64) -> ShardCommit {
    let text = number.to_string();
    let head = |number| Head {
        offset: Offset(number),
        key: None,
        attempt: 0,
        due: Timestamp(number),
        error: "".into(),
        digest: None,
        scope: HeadScope::Message,
    };
    ShardCommit {
        read: Offset(number),
        open_put: vec![head(number)],
        open_drop: vec![Offset(number - 1)],
        marks: vec![Mark { id: IdHash::of(&text), time: Timestamp(number) }],
        state: vec![KeyWrites {
            key: key(&format!("shard {}", id.index)),
            writes: vec![StateWrite { entry: "number".into(), value: Some(text.clone().into()) }],
        }],
        outputs: (0..number % 5).map(|at| message("out", format!("{}:{number}:{at}", id.index))).collect(),
        ..commit(id, term, number)
    }
}

/// Commits to every shard at once, for ever, and says each number that was acknowledged.
fn commit_for_ever(directory: &Path) {
    Runtime::new().unwrap().block_on(async {
        let log = EmbeddedLog::open(directory, Options::default()).unwrap();
        let mut claims = vec![];
        for index in 0..SHARDS {
            claims.push((shard("h", index), log.claim(shard("h", index), Offset::START).await.unwrap()));
        }
        let mut number = claims[0].1.record.commit_number;
        loop {
            number += 1;
            let commits = claims.iter().map(|(id, claim)| numbered(id, claim.term, number)).collect();
            assert!(log.commit(commits).await.iter().all(Result::is_ok));
            again::say(number);
        }
    });
}

/// Everything up to a number is there and whole, and the number is the last acknowledged one or one that was under way.
fn check(directory: &Path, acknowledged: u64) -> u64 {
    Runtime::new().unwrap().block_on(async {
        let log = EmbeddedLog::open(directory, Options::default()).unwrap();
        let outputs = everything(&log).await;
        let mut reached = None;
        for index in 0..SHARDS {
            let id = shard("h", index);
            let record = log.claim(id.clone(), Offset::START).await.unwrap().record;
            let last = record.commit_number;
            assert!(last == acknowledged || last == acknowledged + 1, "{last} after {acknowledged} was acknowledged");
            // All shards were in one transaction each time.
            assert_eq!(*reached.get_or_insert(last), last);
            assert_eq!(record.read, Offset(last));
            assert_eq!(
                record.open.iter().map(|head| head.offset.0).collect::<Vec<_>>(),
                (last..=last).filter(|n| *n > 0).collect::<Vec<_>>()
            );
            let marks: Vec<_> =
                (1..=last).map(|n| Mark { id: IdHash::of(&n.to_string()), time: Timestamp(n) }).collect();
            assert_eq!(record.marks, marks);
            let state = log.load(id.clone(), vec![key(&format!("shard {index}"))]).await.unwrap();
            assert_eq!(
                state[0].get("number").map(|value| value.to_vec()),
                (last > 0).then(|| last.to_string().into_bytes())
            );
            let expected: Vec<String> =
                (1..=last).flat_map(|n| (0..n % 5).map(move |at| format!("{index}:{n}:{at}"))).collect();
            let prefix = format!("{index}:");
            let found = outputs.iter().map(|m| String::from_utf8(m.body.to_vec()).unwrap());
            assert_eq!(found.filter(|body| body.starts_with(&prefix)).collect::<Vec<_>>(), expected);
        }
        reached.unwrap()
    })
}

/// The number of the last commit, without taking the log over.
fn look(directory: &Path) -> u64 {
    Runtime::new().unwrap().block_on(async {
        let view = EmbeddedLog::open_read_only(directory).unwrap();
        view.status().await.unwrap()[0].commit_number
    })
}

#[test]
fn acknowledged_commits_survive_kill_9_and_the_others_are_whole_or_absent() {
    let name = "conformance::kill::acknowledged_commits_survive_kill_9_and_the_others_are_whole_or_absent";
    if let Some(directory) = again::directory_of_child() {
        return commit_for_ever(&directory);
    }
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir().unwrap();
    let mut last = 0;
    for _ in 0..20 {
        let mut child = again::child(name, directory.path()).spawn().unwrap();
        let mut said = again::listen(&mut child);
        let enough = last + random.random_range(1..60);
        let mut acknowledged = last;
        while acknowledged < enough {
            acknowledged = said.next().expect("the child ended by itself").parse().unwrap();
        }
        let refused = EmbeddedLog::open(directory.path(), Options::default()).err().unwrap().to_string();
        assert!(refused.contains(&format!("in use by process {}:", child.id())), "{refused}");
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it died.
        acknowledged = said.last().map_or(acknowledged, |said| said.parse().unwrap());
        let seen = look(directory.path());
        last = check(directory.path(), acknowledged);
        assert_eq!(seen, last, "who only looks after the crash sees the same");
    }
    assert!(last >= 20);
}

/// Runs `commit_for_ever` until it dies at a crash point; returns the last number it heard of.
fn crash(name: &str, directory: &Path, point: &str) -> u64 {
    let mut child = again::child(name, directory).env("SLUICEBOX_CRASH_POINT", point).spawn().unwrap();
    let acknowledged = again::listen(&mut child).last().map_or(0, |said| said.parse().unwrap());
    assert!(!child.wait().unwrap().success());
    acknowledged
}

// The crash points only exist with debug assertions.
#[cfg(debug_assertions)]
#[test]
fn a_crash_before_the_commit_leaves_nothing_and_one_after_it_everything() {
    let name = "conformance::kill::a_crash_before_the_commit_leaves_nothing_and_one_after_it_everything";
    if let Some(directory) = again::directory_of_child() {
        return commit_for_ever(&directory);
    }
    // Each claim is a transaction of its own, so the fourth commit is number 7.
    let turn = u64::from(SHARDS) + 4;
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(crash(name, directory.path(), &format!("before-commit:{turn}")), 3);
    assert_eq!(check(directory.path(), 3), 3);
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(crash(name, directory.path(), &format!("after-commit:{turn}")), 3);
    assert_eq!(check(directory.path(), 3), 4);
}
