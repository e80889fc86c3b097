//! Modules are put whole into the log they were meant for, or not at all.

use super::open;
use crate::harness::PATIENCE;
use crate::harness::redis::{OwnServer, Wire};
use bytes::Bytes;
use sluicebox::handler::{Digest, HandlerName};
use sluicebox::log::Log;

fn name(text: &str) -> HandlerName {
    HandlerName::parse(text).unwrap()
}

#[tokio::test]
async fn a_module_that_was_put_while_the_log_went_is_not_said_to_be_there() {
    let server = OwnServer::start();
    let log = open(&server);
    let module: Bytes = vec![7; 64 * 1024 * 1024].into();
    let key = format!("sb:{{t}}:module:h/{}", Digest::of(&module));
    let put = tokio::spawn(async move { log.put_module(name("h"), module, vec![]).await });
    let mut wire = Wire::connect(&server.url()).unwrap();
    let emptied = async {
        loop {
            let pieces: u32 = wire.asked(&["HLEN", &key]).unwrap()[1..].parse().unwrap();
            if pieces >= 5 {
                wire.asked(&["FLUSHALL"]).unwrap();
                return assert!(pieces < 100, "it was too late");
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, emptied).await.expect("nothing is put");
    assert!(put.await.unwrap().is_err());
    assert_eq!(wire.asked(&["EXISTS", &key, "sb:{t}:modules"]).unwrap(), ":0");
}

#[tokio::test]
async fn a_module_of_which_a_piece_is_gone_is_damaged_and_is_mended_when_it_is_put_again() {
    let server = OwnServer::start();
    let log = open(&server);
    let module: Bytes = (0..2_000_000_u32).map(|at| (at / 1000) as u8).collect();
    let digest = log.put_module(name("h"), module.clone(), vec![]).await.unwrap();
    server.ask(&["HDEL", &format!("sb:{{t}}:module:h/{digest}"), "1"]);
    let damaged = log.module(name("h"), digest).await.unwrap_err().to_string();
    assert!(damaged.contains("is damaged in the log: deploy it again"), "{damaged}");
    log.put_module(name("h"), module.clone(), vec![]).await.unwrap();
    assert_eq!(log.module(name("h"), digest).await.unwrap(), Some(module));
}

#[tokio::test]
async fn pieces_of_a_host_that_died_go_after_an_hour_with_the_next_module_or_the_next_start() {
    let server = OwnServer::start();
    let log = open(&server);
    let mut wire = Wire::connect(&server.url()).unwrap();
    let mut left = |module: &str, begun: &str| {
        wire.asked(&["HSET", &format!("sb:{{t}}:module:h/{module}"), "0", "piece"]).unwrap();
        wire.asked(&["ZADD", "sb:{t}:begun", begun, &format!("h/{module}")]).unwrap();
    };
    // By the server's clock, in ms: long ago, and in the far future.
    for (module, begun) in [("old", "1"), ("new", "9999999999999")] {
        left(module, begun);
    }
    let kept = log.put_module(name("h"), Bytes::from_static(b"module"), vec![]).await.unwrap();
    let there = |module: &str| server.ask(&["EXISTS", &format!("sb:{{t}}:module:h/{module}")]) == ":1\r\n";
    assert_eq!([there("old"), there("new"), there(&kept.to_string())], [false, true, true]);
    left("older", "1");
    // One that is whole already, and was to be put again.
    server.ask(&["ZADD", "sb:{t}:begun", "1", &format!("h/{kept}")]);
    open(&server);
    assert_eq!([there("older"), there("new"), there(&kept.to_string())], [false, true, true]);
}
