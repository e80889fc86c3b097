//! The embedded log on a disk that is full, broken or held by someone else.

use super::commit_at_once;
use crate::harness::logs::{commit, message, shard};
use crate::harness::{again, disk, everything};
use futures_util::future::join_all;
use sluicebox::commit::{CommitError, Committed, ShardCommit};
use sluicebox::log::embedded::{EmbeddedLog, Options};
use sluicebox::log::{Log, LogError};
use sluicebox::message::Offset;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Without a reserve of the real disk, whose room is not the matter here.
fn open(directory: &Path) -> Arc<EmbeddedLog> {
    Arc::new(EmbeddedLog::open(directory, Options { disk_reserve_bytes: 0, ..Options::default() }).unwrap())
}

/// Another process that works on the database until this is dropped.
fn hold(directory: &Path) -> rusqlite::Connection {
    let other = rusqlite::Connection::open(directory.join("sluicebox.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    other
}

/// Runs `work` in a process of its own and returns what it said there and the directory it worked on.
fn in_a_child(name: &str, work: impl AsyncFnOnce(&Path)) -> Option<(Vec<String>, tempfile::TempDir)> {
    if let Some(directory) = again::directory_of_child() {
        Runtime::new().unwrap().block_on(work(&directory));
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut child = again::child(name, directory.path()).spawn().unwrap();
    let said = again::listen(&mut child).collect();
    assert!(child.wait().unwrap().success());
    Some((said, directory))
}

fn found(directory: &Path) -> Vec<String> {
    Runtime::new().unwrap().block_on(async {
        let log = open(directory);
        everything(&*log).await.iter().map(|message| message.offset.to_string()).collect()
    })
}

#[test]
fn on_a_full_disk_nothing_is_lost_and_it_goes_on_when_there_is_room() {
    let name = "conformance::disk::on_a_full_disk_nothing_is_lost_and_it_goes_on_when_there_is_room";
    let work = async |directory: &Path| {
        let log = open(directory);
        let id = shard("h", 0);
        let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
        let mut number = 0;
        for _ in 0..3 {
            disk::leave_room(1_000_000);
            let body = || vec![message("a", vec![7; 50_000])];
            let mut appends = 0;
            let error = loop {
                match log.append(body()).await {
                    Ok(offsets) => again::say(offsets[0]),
                    Err(error) => break error,
                }
                appends += 1;
                assert!(appends < 100, "the disk is not full");
            };
            assert!(matches!(error, LogError::Full { .. }), "{error}");
            // Smaller ones still fit, until nothing does.
            let error = loop {
                number += 1;
                assert!(number < 1000, "the disk is not full");
                let outputs = vec![message("a", "")];
                match log.commit(ShardCommit { outputs, ..commit(&id, term, number) }).await {
                    Ok(_) => again::say(log.end().await.unwrap()),
                    Err(error) => break error,
                }
            };
            assert!(matches!(error, CommitError::Unavailable { .. }), "{error}");
            assert!(matches!(log.append(body()).await, Err(LogError::Full { .. })));
            disk::leave_room(u64::MAX);
            assert_eq!(log.commit(commit(&id, term, number)).await, Ok(Committed::default()), "the same commit, again");
            again::say(log.append(body()).await.unwrap()[0]);
        }
    };
    let Some((said, directory)) = in_a_child(name, work) else { return };
    assert!(said.len() > 30, "{said:?}");
    assert_eq!(found(directory.path()), said);
}

#[test]
fn what_does_not_fit_fails_alone() {
    let name = "conformance::disk::what_does_not_fit_fails_alone";
    let work = async |directory: &Path| {
        let log = open(directory);
        let id = shard("h", 0);
        let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
        let mut merged = vec![];
        for (index, bytes, count) in [(1, 10, 1), (2, 400_000, 3), (3, 10, 1)] {
            let id = shard("h", index);
            let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
            let outputs = vec![message("a", vec![7; bytes]); count];
            merged.push(ShardCommit { outputs, ..commit(&id, term, 1) });
        }
        let append = |bytes: usize| {
            let log = log.clone();
            tokio::spawn(async move { log.append(vec![message("a", vec![7; bytes])]).await })
        };
        disk::leave_room(1_000_000);
        // While someone holds the database the writer waits with the first one, and all others gather behind it.
        let other = hold(directory);
        let first = append(1);
        let mut small: Vec<_> = (0..5).map(|_| append(10_000)).collect();
        let large = append(500_000);
        let larger = append(510_000);
        small.extend((0..5).map(|_| append(10_000)));
        let committed = {
            let (log, commit) = (log.clone(), ShardCommit { outputs: vec![message("a", "")], ..commit(&id, term, 1) });
            tokio::spawn(async move { log.commit(commit).await })
        };
        let merged = {
            let log = log.clone();
            tokio::spawn(async move { commit_at_once(&*log, merged).await })
        };
        let waiting = tokio::time::timeout(Duration::from_millis(200), std::future::pending::<()>());
        assert!(waiting.await.is_err() && !first.is_finished());
        drop(other);

        first.await.unwrap().unwrap();
        for small in small {
            small.await.unwrap().unwrap();
        }
        assert_eq!(committed.await.unwrap(), Ok(Committed::default()));
        let merged = merged.await.unwrap();
        let large = [large.await.unwrap(), larger.await.unwrap()];
        let refused = large.iter().filter(|result| matches!(result, Err(LogError::Full { .. }))).count();
        assert_eq!(refused, 1, "either of both fits: {large:?}");
        assert!(matches!(&merged[..], [Ok(_), Err(CommitError::Unavailable { .. }), Ok(_)]), "{merged:?}");
        everything(&*log).await.iter().for_each(|message| again::say(message.offset));
    };
    let Some((said, directory)) = in_a_child(name, work) else { return };
    assert_eq!(said.len(), 15);
    assert_eq!(found(directory.path()), said);
}

#[test]
fn after_a_failed_sync_the_log_stops_for_good_and_loses_nothing_it_acknowledged() {
    let name = "conformance::disk::after_a_failed_sync_the_log_stops_for_good_and_loses_nothing_it_acknowledged";
    let work = async |directory: &Path| {
        let log = open(directory);
        for _ in 0..5 {
            again::say(log.append(vec![message("a", "x")]).await.unwrap()[0]);
        }
        disk::fail_sync(true);
        let error = log.append(vec![message("a", "x")]).await.unwrap_err();
        assert!(matches!(&error, LogError::Unknown { reason } if reason.contains("1034")), "{error}");
        // The kernel says so once and then forgets the pages that were not written: a sync that succeeds now proves
        // nothing.
        disk::fail_sync(false);
        let error = log.append(vec![message("a", "x")]).await.unwrap_err();
        assert!(matches!(&error, LogError::Unavailable { reason } if reason.contains("it stopped")), "{error}");
        assert!(log.tail().await.is_err());
        again::say("stopped");
    };
    let Some((mut said, directory)) = in_a_child(name, work) else { return };
    assert_eq!(said.pop().unwrap(), "stopped");
    let found = found(directory.path());
    assert!(said.len() == 5 && found.starts_with(&said), "{said:?} was acknowledged, {found:?} is there");
}

#[tokio::test]
async fn appends_leave_the_last_of_the_disk_to_the_work_under_way() {
    let directory = tempfile::tempdir().unwrap();
    let beyond = Options { disk_reserve_bytes: u64::MAX, ..Options::default() };
    let log = EmbeddedLog::open(directory.path(), beyond).unwrap();
    let id = shard("h", 0);
    let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
    let error = log.append(vec![message("a", "x")]).await.unwrap_err();
    assert!(matches!(&error, LogError::Full { reason } if reason.contains("kept for the work under way")), "{error}");
    let outputs = vec![message("a", "y")];
    assert_eq!(log.commit(ShardCommit { outputs, ..commit(&id, term, 1) }).await, Ok(Committed::default()));
    assert_eq!(everything(&log).await.len(), 1);
}

#[tokio::test]
async fn writes_wait_for_another_process_that_holds_the_database() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let other = hold(directory.path());
    let mut append = log.append(vec![message("a", "x")]);
    // Several times as long as a commit waits for a reader.
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut append).await.is_err());
    drop(other);
    append.await.unwrap();
}

#[tokio::test]
async fn a_process_that_does_not_let_go_of_the_database_stops_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let short = Options { lock_wait: Duration::from_millis(100), ..Options::default() };
    let log = EmbeddedLog::open(directory.path(), short).unwrap();
    let id = shard("h", 0);
    let term = log.claim(id.clone(), Offset::START).await.unwrap().term;
    let other = hold(directory.path());
    let appends = join_all((0..3).map(|_| log.append(vec![message("a", "x")]))).await;
    assert!(appends.iter().all(|answer| matches!(answer, Err(LogError::Unavailable { .. }))), "{appends:?}");
    let answer = log.commit(commit(&id, term, 1)).await;
    assert!(matches!(answer, Err(CommitError::Unavailable { .. })), "{answer:?}");
    assert_eq!(everything(&log).await.len(), 0, "reads go on");
    drop(other);
    log.append(vec![message("a", "x")]).await.unwrap();
    assert_eq!(log.commit(commit(&id, term, 1)).await, Ok(Committed::default()));
}
