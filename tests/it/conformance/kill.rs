//! The embedded log after the death of its process: what was acknowledged is there, and every commit is whole or absent.

use super::commit_at_once;
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
        marks: vec![Mark { id: IdHash::of(None, &text), time: Timestamp(number) }],
        state: vec![KeyWrites {
            key: key(&format!("shard {}", id.index)),
            writes: vec![StateWrite { entry: "number".into(), value: Some(text.clone().into()) }],
        }],
        outputs: (0..number % 5).map(|at| message("out", format!("{}:{number}:{at}", id.index))).collect(),
        ..commit(id, term, number)
    }
}

/// Commits to every shard at once, for ever, and says each number that was acknowledged to all.
fn commit_for_ever(directory: &Path, shards: u16) {
    Runtime::new().unwrap().block_on(async {
        let log = EmbeddedLog::open(directory, Options::default()).unwrap();
        let mut claims = vec![];
        for index in 0..shards {
            let claim = log.claim(shard("h", index), Offset::START).await.unwrap();
            claims.push((shard("h", index), claim.term, claim.record.commit_number));
        }
        let reached = claims.iter().map(|(_, _, number)| *number).max().unwrap();
        for number in reached.. {
            // At first only those whose last commit was not written while another one's was.
            let behind = claims.iter_mut().filter(|(_, _, last)| *last < number);
            let commits = behind.map(|(id, term, last)| {
                *last = number;
                numbered(id, *term, number)
            });
            let commits = commits.collect();
            assert!(commit_at_once(&log, commits).await.iter().all(Result::is_ok));
            if number > reached {
                again::say(number);
            }
        }
    });
}

/// Each shard has everything up to a number, whole, and the number is the last acknowledged one or one that was under
/// way. Returns the numbers.
fn check(directory: &Path, shards: u16, acknowledged: u64) -> Vec<u64> {
    Runtime::new().unwrap().block_on(async {
        let log = EmbeddedLog::open(directory, Options::default()).unwrap();
        let outputs = everything(&log).await;
        let mut reached = vec![];
        for index in 0..shards {
            let id = shard("h", index);
            let record = log.claim(id.clone(), Offset::START).await.unwrap().record;
            let last = record.commit_number;
            assert!(last == acknowledged || last == acknowledged + 1, "{last} after {acknowledged} was acknowledged");
            reached.push(last);
            assert_eq!(record.read, Offset(last));
            assert_eq!(
                record.open.iter().map(|head| head.offset.0).collect::<Vec<_>>(),
                (last..=last).filter(|n| *n > 0).collect::<Vec<_>>()
            );
            let marks: Vec<_> =
                (1..=last).map(|n| Mark { id: IdHash::of(None, &n.to_string()), time: Timestamp(n) }).collect();
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
        reached
    })
}

/// The numbers of the last commits, without taking the log over.
fn look(directory: &Path) -> Vec<u64> {
    Runtime::new().unwrap().block_on(async {
        let view = EmbeddedLog::open_read_only(directory).unwrap();
        view.status().await.unwrap().iter().map(|status| status.commit_number).collect()
    })
}

#[test]
fn acknowledged_commits_survive_kill_9_and_the_others_are_whole_or_absent() {
    let name = "conformance::kill::acknowledged_commits_survive_kill_9_and_the_others_are_whole_or_absent";
    if let Some(directory) = again::directory_of_child() {
        return commit_for_ever(&directory, SHARDS);
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
        let found = check(directory.path(), SHARDS, acknowledged);
        assert_eq!(seen, found, "who only looks after the crash sees the same");
        last = found.into_iter().max().unwrap();
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
        // One shard, so that each commit is a transaction of its own.
        return commit_for_ever(&directory, 1);
    }
    // The claim is a transaction too, so the fourth commit is number 5.
    let turn = 5;
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(crash(name, directory.path(), &format!("before-commit:{turn}")), 3);
    assert_eq!(check(directory.path(), 1, 3), [3]);
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(crash(name, directory.path(), &format!("after-commit:{turn}")), 3);
    assert_eq!(check(directory.path(), 1, 3), [4]);
}
