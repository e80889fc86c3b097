//! Deployed modules: whole or not there, the same for every host, bounded, and gone with their handler.

use crate::harness::again;
use crate::harness::logs::{message, shard};
use bytes::Bytes;
use sluicebox::handler::{Digest, HandlerName, MODULE_BYTES_MAX};
use sluicebox::log::embedded::{EmbeddedLog, Options};
use sluicebox::log::{Log, LogError, MODULES_MAX};
use sluicebox::message::Offset;
use std::path::Path;
use tokio::runtime::Runtime;

fn name(text: &str) -> HandlerName {
    HandlerName::parse(text).unwrap()
}

/// Larger than any kind writes at once, and never the same twice.
fn module(version: u8) -> Bytes {
    (0..2_000_001_u32).map(|at| at.to_le_bytes()[at as usize % 3] ^ version).collect()
}

fn small(version: usize) -> Bytes {
    format!("module {version}").into()
}

async fn digests(log: &dyn Log, handler: &str) -> Vec<Digest> {
    let modules = log.modules().await.unwrap();
    modules.get(&name(handler)).into_iter().flatten().map(|module| module.digest).collect()
}

on_every_kind! {
    async fn a_module_comes_back_byte_by_byte_and_is_its_handlers_alone(log) {
        let (first, second) = (module(1), module(2));
        assert_eq!(log.modules().await.unwrap().len(), 0);
        let digest = log.put_module(name("h"), first.clone(), vec![]).await.unwrap();
        assert_eq!(digest, Digest::of(&first));
        log.put_module(name("h"), second.clone(), vec![]).await.unwrap();
        assert_eq!(log.module(name("h"), digest).await.unwrap(), Some(first.clone()));
        assert_eq!(log.module(name("h"), Digest::of(&second)).await.unwrap(), Some(second.clone()));
        assert_eq!(log.module(name("h"), Digest::of(b"other")).await.unwrap(), None);
        assert_eq!(log.module(name("other"), digest).await.unwrap(), None);

        let kept = log.modules().await.unwrap();
        let kept: Vec<(Digest, u64)> = kept[&name("h")].iter().map(|module| (module.digest, module.bytes)).collect();
        assert_eq!(kept, [(digest, first.len() as u64), (Digest::of(&second), second.len() as u64)]);
        // Messages are not touched by it.
        let offset = log.append(vec![message("a", "")]).await.unwrap()[0];
        assert_eq!(log.end().await.unwrap(), offset);
    }

    async fn a_module_that_is_put_again_is_there_once_and_the_newest(log) {
        for version in [1, 2, 1, 1] {
            log.put_module(name("h"), small(version), vec![]).await.unwrap();
        }
        assert_eq!(digests(&*log, "h").await, [2, 1].map(|version| Digest::of(&small(version))));
        assert_eq!(log.module(name("h"), Digest::of(&small(1))).await.unwrap(), Some(small(1)));
    }

    async fn the_oldest_modules_go_but_never_one_that_is_needed(log) {
        let needed = Digest::of(&small(3));
        log.put_module(name("other"), small(0), vec![]).await.unwrap();
        for version in 0..MODULES_MAX + 5 {
            log.put_module(name("h"), small(version), vec![needed]).await.unwrap();
        }
        let kept: Vec<Digest> =
            std::iter::once(3).chain(6..MODULES_MAX + 5).map(|version| Digest::of(&small(version))).collect();
        assert_eq!(digests(&*log, "h").await, kept);
        assert_eq!(log.module(name("h"), needed).await.unwrap(), Some(small(3)));
        assert_eq!(log.module(name("h"), Digest::of(&small(5))).await.unwrap(), None);
        assert_eq!(digests(&*log, "other").await, [Digest::of(&small(0))]);
    }

    async fn what_no_sandbox_would_load_is_refused(log) {
        for bad in [Bytes::new(), vec![0; MODULE_BYTES_MAX + 1].into()] {
            let refused = log.put_module(name("h"), bad, vec![]).await;
            assert!(matches!(refused, Err(LogError::Refused { .. })), "{refused:?}");
        }
        assert_eq!(log.modules().await.unwrap().len(), 0);
    }

    async fn modules_of_a_forgotten_handler_are_gone_and_its_name_is_free(log) {
        for handler in ["h", "other"] {
            log.put_module(name(handler), module(1), vec![]).await.unwrap();
        }
        // One that has nothing but modules, and one that ran.
        for has_shards in [false, true] {
            if has_shards {
                log.claim(shard("h", 0), Offset::START).await.unwrap();
            }
            log.forget(name("h")).await.unwrap();
            assert_eq!(digests(&*log, "h").await, []);
            assert_eq!(log.module(name("h"), Digest::of(&module(1))).await.unwrap(), None);
            assert_eq!(digests(&*log, "other").await, [Digest::of(&module(1))]);
            log.put_module(name("h"), module(2), vec![]).await.unwrap();
            assert_eq!(digests(&*log, "h").await, [Digest::of(&module(2))]);
        }
    }

    async fn hosts_that_put_one_module_at_once_have_it_once(log) {
        let puts = (0..4).map(|_| log.put_module(name("h"), module(1), vec![]));
        for put in futures_util::future::join_all(puts).await {
            assert_eq!(put.unwrap(), Digest::of(&module(1)));
        }
        assert_eq!(digests(&*log, "h").await, [Digest::of(&module(1))]);
        assert_eq!(log.module(name("h"), Digest::of(&module(1))).await.unwrap(), Some(module(1)));
    }
}

fn pieces(directory: &Path) -> u32 {
    let database = rusqlite::Connection::open(directory.join("sluicebox.db")).unwrap();
    database.query_row("SELECT count(*) FROM module_pieces", [], |row| row.get(0)).unwrap()
}

// The crash points only exist with debug assertions.
#[cfg(debug_assertions)]
#[test]
fn a_crash_in_the_middle_of_a_module_leaves_nothing_of_it() {
    let name_of_test = "conformance::modules::a_crash_in_the_middle_of_a_module_leaves_nothing_of_it";
    if let Some(directory) = again::directory_of_child() {
        return Runtime::new().unwrap().block_on(async {
            let log = EmbeddedLog::open(&directory, Options::default()).unwrap();
            log.put_module(name("h"), module(1), vec![]).await.unwrap();
            again::say("put");
        });
    }
    let mut left = vec![];
    // Some pieces, all of them, and the last transaction, which makes it whole.
    for (point, is_whole) in [("after-commit:2", false), ("before-commit:5", false), ("after-commit:5", true)] {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let mut child = again::child(name_of_test, directory).env("SLUICEBOX_CRASH_POINT", point).spawn().unwrap();
        assert_eq!(again::listen(&mut child).count(), 0, "it came to the end");
        assert!(!child.wait().unwrap().success());
        left.push(pieces(directory));
        Runtime::new().unwrap().block_on(async {
            let log = EmbeddedLog::open(directory, Options::default()).unwrap();
            let whole = log.module(name("h"), Digest::of(&module(1))).await.unwrap();
            assert_eq!(whole, is_whole.then(|| module(1)), "{point}");
            assert_eq!(log.modules().await.unwrap().len(), usize::from(is_whole));
            log.put_module(name("h"), module(1), vec![]).await.unwrap();
            assert_eq!(log.module(name("h"), Digest::of(&module(1))).await.unwrap(), Some(module(1)));
        });
        if !is_whole {
            assert_eq!(pieces(directory), 4, "{point}: only those that were put again");
        }
    }
    assert_eq!(left, [2, 4, 4], "they went when the log was opened");
}

#[tokio::test]
async fn a_damaged_module_is_not_handed_out_and_is_mended_when_it_is_put_again() {
    let directory = tempfile::tempdir().unwrap();
    let open = || EmbeddedLog::open(directory.path(), Options::default()).unwrap();
    let digest = open().put_module(name("h"), module(1), vec![]).await.unwrap();
    let database = rusqlite::Connection::open(directory.path().join("sluicebox.db")).unwrap();
    database.execute("UPDATE module_pieces SET bytes = x'00' WHERE piece = 1", []).unwrap();
    drop(database);
    let log = open();
    let damaged = log.module(name("h"), digest).await.unwrap_err().to_string();
    assert!(damaged.contains("is damaged in the log: deploy it again"), "{damaged}");
    log.put_module(name("h"), module(1), vec![]).await.unwrap();
    assert_eq!(log.module(name("h"), digest).await.unwrap(), Some(module(1)));
}

#[tokio::test]
async fn a_full_log_takes_no_module_and_keeps_no_part_of_one() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { bytes_max: Some(4 * 1024 * 1024), ..Options::default() };
    let log = EmbeddedLog::open(directory.path(), options).unwrap();
    let large: Bytes = vec![7; 16 * 1024 * 1024].into();
    let full = log.put_module(name("h"), large, vec![]).await;
    assert!(matches!(full, Err(LogError::Full { .. })), "{full:?}");
    assert_eq!(log.modules().await.unwrap().len(), 0);
    drop(log);
    assert_eq!(pieces(directory.path()), 0);
    let log = EmbeddedLog::open(directory.path(), Options::default()).unwrap();
    log.put_module(name("h"), small(1), vec![]).await.unwrap();
}
