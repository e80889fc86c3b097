//! The log on Redis held to what real servers answer, and plain clients of it that know nothing of the product.

mod answers;
mod edges;
mod modules;
mod sentinel;
mod tls;

use crate::harness::logs::message;
use crate::harness::redis::{Options, OwnServer, open_own};
use crate::harness::{PATIENCE, everything};
use sluicebox::log::redis::RedisLog;
use sluicebox::log::{Log, LogError};
use sluicebox::message::Offset;
use std::sync::Arc;

fn open(server: &OwnServer) -> Arc<RedisLog> {
    open_own(Options::new(server.url(), "t")).unwrap()
}

async fn append(log: &RedisLog, body: &str) -> Result<Offset, LogError> {
    log.append(vec![message("a", body.to_owned())]).await.map(|offsets| offsets[0])
}

/// Tries until it is taken.
async fn append_when_it_goes(log: &RedisLog, body: &str) {
    let appended = async {
        while append(log, body).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, appended).await.expect("it does not go on");
}

/// Tries until it is refused with these words.
async fn until_refused(log: &RedisLog, words: &str) -> LogError {
    let refused = async {
        loop {
            match append(log, "refused").await {
                Err(error) if error.to_string().contains(words) => return error,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.unwrap_or_else(|_| panic!("nobody says {words:?}"))
}

async fn bodies(log: &RedisLog) -> Vec<String> {
    everything(log).await.iter().map(|message| String::from_utf8(message.body.to_vec()).unwrap()).collect()
}

/// Waits until the log ended, and says why.
async fn ended(log: &RedisLog) -> String {
    let end = async {
        // One that ended already has no tail.
        if let Ok(mut tail) = log.tail().await {
            while tail.next().await.is_some() {}
        }
    };
    tokio::time::timeout(PATIENCE, end).await.expect("it goes on");
    log.end().await.unwrap_err().to_string()
}

/// The error with which it is not opened.
#[track_caller]
fn unopened(options: Options) -> LogError {
    open_own(options).map(drop).expect_err("it is opened")
}

#[tokio::test]
async fn a_log_that_is_removed_while_nobody_writes_ends_it_all_the_same() {
    for (words, said) in [
        (&["FLUSHALL"][..], "the log is not there any more"),
        (&["DEL", "sb:{t}:log"], "its stream is not there any more"),
        (&["HSET", "sb:{t}:meta", "id", "another"], "another log is in its place"),
    ] {
        let server = OwnServer::start();
        let log = open(&server);
        append(&log, "1").await.unwrap();
        server.ask(words);
        let reason = ended(&log).await;
        assert!(reason.contains(said) && reason.contains("start it again"), "{words:?}: {reason}");
    }
}
