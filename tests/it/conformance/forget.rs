//! Forgetting a handler: everything of it goes, nothing of its neighbours does, and its name is free.

use crate::harness::again;
use crate::harness::logs::{commit, key, message, shard};
use sluicebox::clock::Timestamp;
use sluicebox::commit::{
    CommitError, Committed, Control, DeadFilter, DeadLetter, Deaths, Delayed, Head, HeadScope, KeyWrites, Mark, Record,
    ShardCommit, Term,
};
use sluicebox::effects::StateWrite;
use sluicebox::handler::ShardId;
use sluicebox::log::Log;
use sluicebox::log::embedded::{EmbeddedLog, Options};
use sluicebox::message::{IdHash, Message, Offset};
use sluicebox::routing::{IdFrom, KeyFrom, Routing, Since, Span};
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::Runtime;

fn routing(id: &ShardId) -> Routing {
    Routing {
        handler: id.handler.clone(),
        key: KeyFrom::All,
        id: IdFrom::Message,
        shards: 2,
        recorded: Offset::START,
        identity: Since::default(),
        spans: vec![Span { after: Offset::START, subscribe: vec![] }],
    }
}

/// Claims the shard and leaves a trace of it everywhere.
async fn traces(log: &dyn Log, id: &ShardId) -> ShardCommit {
    let claim = log.claim(id.clone(), Offset::START).await.unwrap();
    let head = Head {
        offset: Offset(1),
        key: None,
        attempt: 1,
        due: Timestamp(5),
        error: "".into(),
        digest: None,
        scope: HeadScope::Message,
    };
    let letter = DeadLetter {
        shard: id.clone(),
        message: Arc::new(Message::from_new(message("a", ""), Offset(1), Timestamp(1))),
        key: None,
        attempts: 1,
        kind: "trap".into(),
        error: "".into(),
        digest: None,
        time: Timestamp(1),
        identity: None,
        deaths: Deaths::first(Offset(1), Timestamp(1)),
    };
    let write = StateWrite { entry: "e".into(), value: Some("v".into()) };
    ShardCommit {
        read: Offset(1),
        open_put: vec![head],
        marks: vec![Mark { id: IdHash(1), time: Timestamp(1) }],
        state: vec![KeyWrites { key: key("k"), writes: vec![write] }],
        delayed_put: vec![Delayed { number: 1, due: Timestamp(9), message: message("a", "") }],
        dead: vec![letter],
        control: Some(Control { paused: true, ..Control::default() }),
        ..commit(id, claim.term, claim.record.commit_number + 1)
    }
}

on_every_kind! {
    async fn everything_of_a_forgotten_handler_is_gone_and_nothing_of_another(log) {
        let ids = [shard("h", 0), shard("h", 1), shard("other", 0)];
        let mut commits = vec![];
        for id in &ids {
            commits.push(traces(&*log, id).await);
        }
        assert_eq!(crate::conformance::commit_at_once(&*log, commits).await, [Ok(Committed::default()), Ok(Committed::default()), Ok(Committed::default())]);
        log.put_routings(0, vec![routing(&ids[0]), routing(&ids[2])]).await.unwrap();
        let before = log.status().await.unwrap();
        let version = log.routings().await.unwrap().version;

        log.forget(ids[0].handler.clone()).await.unwrap();
        let routings = log.routings().await.unwrap();
        assert!(routings.version > version, "whoever read the routings before must not put them back");
        assert_eq!(routings.routings, [routing(&ids[2])]);
        assert_eq!(log.status().await.unwrap(), before[2..]);
        assert_eq!(log.dead_count(DeadFilter::default()).await.unwrap().letters, 1);
        assert!(log.load(ids[0].clone(), vec![key("k")]).await.unwrap()[0].is_empty());
        assert_eq!(log.load(ids[2].clone(), vec![key("k")]).await.unwrap()[0].get("e").unwrap(), "v");

        // Again, or for a name that nobody had, is no error and changes nothing.
        for name in [&ids[0], &shard("nobody", 0)] {
            log.forget(name.handler.clone()).await.unwrap();
        }
        assert_eq!(log.status().await.unwrap(), before[2..]);
        assert_eq!(log.routings().await.unwrap().version, routings.version);
    }

    async fn a_forgotten_handler_is_fenced_and_its_name_is_that_of_a_new_one(log) {
        let id = shard("h", 0);
        let first = traces(&*log, &id).await;
        let term = first.term;
        assert_eq!(log.commit(first).await, Ok(Committed::default()));
        log.forget(id.handler.clone()).await.unwrap();
        let late = log.commit(commit(&id, term, 2)).await;
        assert_eq!(late, Err(CommitError::Fenced { shard: id.clone() }));

        let offsets = log.append(vec![message("a", ""), message("a", "")]).await.unwrap();
        let claim = log.claim(id.clone(), offsets[0]).await.unwrap();
        let fresh = Record { read: offsets[0], controlled: offsets[1], ..Record::default() };
        assert_eq!(claim.record, fresh);
        assert!(log.load(id.clone(), vec![key("k")]).await.unwrap()[0].is_empty());
        let second = traces(&*log, &id).await;
        let read = offsets[0];
        assert_eq!(log.commit(ShardCommit { read, dead_max: 1, ..second }).await, Ok(Committed::default()));
        // What comes for others later does not touch the new one.
        log.forget(shard("nobody", 0).handler).await.unwrap();
        assert_eq!(log.dead_count(DeadFilter::default()).await.unwrap().letters, 1);
        assert_eq!(log.status().await.unwrap()[0].open, 1);
    }

    async fn no_term_of_a_forgotten_handler_is_given_to_the_next_one_of_its_name(log) {
        let id = shard("h", 0);
        for _ in 0..2 {
            log.claim(id.clone(), Offset::START).await.unwrap();
        }
        let before = log.claim(id.clone(), Offset::START).await.unwrap().term;
        log.forget(id.handler.clone()).await.unwrap();
        // A new term for each claim comes to the old one, unless it began beyond it.
        for _ in 0..2 {
            log.claim(id.clone(), Offset::START).await.unwrap();
        }
        check_terms_go_on(&*log, &id, before).await;
    }
}

/// That a holder of the forgotten handler's shard commits nothing to the one of today.
async fn check_terms_go_on(log: &dyn Log, id: &ShardId, before: Term) {
    let claim = log.claim(id.clone(), Offset::START).await.unwrap();
    assert!(claim.term > before, "{:?} after {before:?}", claim.term);
    // The number is the next one here too.
    assert_eq!(log.commit(commit(id, before, 1)).await, Err(CommitError::Fenced { shard: id.clone() }));
    assert_eq!(log.commit(commit(id, claim.term, 1)).await, Ok(Committed::default()));
}

#[tokio::test]
async fn terms_of_a_forgotten_handler_are_not_given_again_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let open = || EmbeddedLog::open(directory.path(), Options::default()).unwrap();
    let id = shard("h", 0);
    let log = open();
    for _ in 0..3 {
        log.claim(id.clone(), Offset::START).await.unwrap();
    }
    log.forget(id.handler.clone()).await.unwrap();
    // Another one that is forgotten and had fewer takes nothing back.
    log.claim(shard("other", 0), Offset::START).await.unwrap();
    log.forget(shard("other", 0).handler).await.unwrap();
    drop(log);
    check_terms_go_on(&open(), &id, Term(3)).await;
}

/// State entries of the handler that is forgotten: it takes several steps.
const ENTRIES: usize = 2500;

fn forget_much(directory: &Path) {
    Runtime::new().unwrap().block_on(async {
        let log = EmbeddedLog::open(directory, Options::default()).unwrap();
        let id = shard("h", 0);
        let mut commit = traces(&log, &id).await;
        let write = || StateWrite { entry: "e".into(), value: Some("v".into()) };
        let keys = (0..ENTRIES).map(|number| key(&number.to_string()));
        commit.state = keys.map(|key| KeyWrites { key, writes: vec![write()] }).collect();
        assert_eq!(log.commit(commit).await, Ok(Committed::default()));
        log.forget(id.handler).await.unwrap();
        again::say("forgotten");
    });
}

fn rows(directory: &Path, table: &str) -> u32 {
    let database = rusqlite::Connection::open(directory.join("sluicebox.db")).unwrap();
    database.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

// The crash points only exist with debug assertions.
#[cfg(debug_assertions)]
#[test]
fn what_a_crash_leaves_of_a_forgotten_handler_is_hidden_and_deleted_by_the_next_call() {
    let name = "conformance::forget::what_a_crash_leaves_of_a_forgotten_handler_is_hidden_and_deleted_by_the_next_call";
    if let Some(directory) = again::directory_of_child() {
        return forget_much(&directory);
    }
    // The first two transactions are the claim and the commit, the third hides the handler.
    let mut left = vec![];
    for point in 3..=5 {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let point = format!("after-commit:{point}");
        let mut child = again::child(name, directory).env("SLUICEBOX_CRASH_POINT", point).spawn().unwrap();
        assert_eq!(again::listen(&mut child).count(), 0, "it came to the end");
        assert!(!child.wait().unwrap().success());
        left.push(rows(directory, "state"));

        Runtime::new().unwrap().block_on(async {
            let log = EmbeddedLog::open(directory, Options::default()).unwrap();
            assert_eq!(log.status().await.unwrap(), []);
            assert_eq!(log.dead_count(DeadFilter::default()).await.unwrap().letters, 0);
            let id = shard("h", 0);
            let again = traces(&log, &id).await;
            assert_eq!(again.number, 1);
            assert!(log.load(id.clone(), vec![key("7")]).await.unwrap()[0].is_empty());
            assert_eq!(log.commit(again).await, Ok(Committed::default()));
            log.forget(shard("nobody", 0).handler).await.unwrap();
            assert_eq!(log.load(id.clone(), vec![key("k")]).await.unwrap()[0].get("e").unwrap(), "v");
        });
        for table in ["handlers", "shards", "open", "marks", "state", "delayed", "dead"] {
            assert_eq!(rows(directory, table), 1, "{table}: what is left is that of the new one");
        }
    }
    assert!(left[0] == ENTRIES as u32 && left.is_sorted_by(|a, b| a > b) && left[2] > 0, "{left:?}");
}
