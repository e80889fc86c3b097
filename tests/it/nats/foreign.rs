//! Somebody else publishes to the log's own subjects, with every right to: nothing of ours is harmed, and no host ends for bytes
//! that no host wrote.

use super::says;
use crate::harness::everything;
use crate::harness::logs::{commit, key, message, shard};
use crate::harness::nats::{OwnServer, fresh_namespace, open_nats, options, url};
use crate::harness::nats_cluster::until;
use async_nats::HeaderMap;
use sluicebox::commit::{Committed, KeyWrites, ShardCommit};
use sluicebox::effects::StateWrite;
use sluicebox::log::Log;
use sluicebox::message::Offset;
use std::io::{Read as _, Write as _};

fn subjects(namespace: &str) -> [String; 4] {
    ["messages", "control", "part", "journal.h.0"].map(|subject| format!("sb.{namespace}.{subject}"))
}

fn header(name: &str, value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(name, value);
    headers
}

#[tokio::test]
async fn nobody_rolls_up_what_is_in_the_log() {
    let namespace = fresh_namespace();
    let log = open_nats(options(&namespace)).unwrap();
    let id = shard("h", 0);
    let claim = log.claim(id.clone(), Offset::START).await.unwrap();
    let state =
        vec![KeyWrites { key: key("k"), writes: vec![StateWrite { entry: "e".into(), value: Some("v".into()) }] }];
    assert_eq!(log.commit(ShardCommit { state, ..commit(&id, claim.term, 1) }).await, Ok(Committed::default()));
    log.append(vec![message("a", "1"), message("a", "2")]).await.unwrap();
    log.settle().await.unwrap();
    let before = everything(&*log).await;
    let client = async_nats::connect(url()).await.unwrap();
    let of_state = ["value.h.x6b.x65", "snapshot.newest", "snapshot.always"].map(|end| format!("sb.{namespace}.{end}"));
    for subject in subjects(&namespace).into_iter().chain(of_state) {
        for rollup in ["all", "sub"] {
            let answer =
                client.request_with_headers(subject.clone(), header("Nats-Rollup", rollup), "gone".into()).await;
            let answer = String::from_utf8(answer.unwrap().payload.to_vec()).unwrap();
            says(&answer, &["error", "rollup"]);
        }
    }
    for log in [log, open_nats(options(&namespace)).unwrap()] {
        assert_eq!(everything(&*log).await, before);
        assert_eq!(log.load(id.clone(), vec![key("k")]).await.unwrap()[0].get("e").unwrap(), "v");
    }
}

#[tokio::test]
async fn entries_that_no_host_wrote_are_passed_over_by_every_host() {
    let namespace = fresh_namespace();
    let (first, second) = (open_nats(options(&namespace)).unwrap(), open_nats(options(&namespace)).unwrap());
    let id = shard("h", 0);
    let claim = first.claim(id.clone(), Offset::START).await.unwrap();
    assert_eq!(first.commit(commit(&id, claim.term, 1)).await, Ok(Committed::default()));
    let client = async_nats::connect(url()).await.unwrap();
    let good = first.append(vec![message("a", "1")]).await.unwrap();
    // Short, text, JSON, almost an entry: a nonce and how frames and entries begin.
    let mut garbage: Vec<Vec<u8>> =
        ["", "x", "hello, world", r#"{"type":"new_order","id":"1"}"#].map(|text| text.into()).into();
    for begin in [[0xF5, 1, 1], [0xF5, 1, 2], [0xF6, 1, 3], [0xF6, 1, 99]] {
        garbage.push([&[0; 8][..], &begin, &[0xff; 40]].concat());
    }
    for subject in subjects(&namespace) {
        for payload in &garbage {
            let answer = client.request(subject.clone(), payload.clone().into()).await.unwrap();
            assert!(!String::from_utf8_lossy(&answer.payload).contains("error"), "it has no right to");
        }
    }
    // Its shard's journal moved, so whoever had it claims it again.
    assert!(first.commit(commit(&id, claim.term, 2)).await.is_err());
    let claim = first.claim(id.clone(), Offset::START).await.unwrap();
    assert_eq!(claim.record.commit_number, 1);
    assert_eq!(first.commit(commit(&id, claim.term, 2)).await, Ok(Committed::default()));
    let next = second.append(vec![message("a", "2")]).await.unwrap();
    for log in [first, second, open_nats(options(&namespace)).unwrap()] {
        until("it has all", async || log.end().await.unwrap() == next[0]).await;
        let all: Vec<Offset> = everything(&*log).await.iter().map(|message| message.offset).collect();
        assert_eq!(all, [good[0], next[0]]);
        assert_eq!(log.fetch(vec![good[0], next[0]]).await.unwrap().iter().flatten().count(), 2);
        assert_eq!(log.status().await.unwrap()[0].commit_number, 2);
    }
}

#[tokio::test]
async fn an_entry_of_a_later_version_is_never_passed_over() {
    let namespace = fresh_namespace();
    let log = open_nats(options(&namespace)).unwrap();
    let client = async_nats::connect(url()).await.unwrap();
    let payload = [&[0; 8][..], &[0xF5, 2, 1, 0]].concat();
    client.request(format!("sb.{namespace}.messages"), payload.into()).await.unwrap();
    let mut said = String::new();
    until("it ends", async || {
        said = log.end().await.err().map(|error| error.to_string()).unwrap_or_default();
        !said.is_empty()
    })
    .await;
    says(&said, &["use a newer sluicebox"]);
    says(&super::unopened(options(&namespace)), &["use a newer sluicebox"]);
}

#[tokio::test]
async fn headers_of_others_change_nothing() {
    let namespace = fresh_namespace();
    let log = open_nats(options(&namespace)).unwrap();
    let client = async_nats::connect(url()).await.unwrap();
    let subject = format!("sb.{namespace}.messages");
    for (name, value) in [
        ("Nats-Msg-Id", "1"),
        ("Nats-Msg-Id", "1"),
        ("Nats-TTL", "1"),
        ("Nats-Expected-Last-Sequence", "1"),
        ("Nats-Expected-Last-Subject-Sequence", "no number"),
        ("Nats-Expected-Stream", "another"),
        ("Nats-Batch-Id", "b"),
        ("Nats-Schedule", "@every 1s"),
        ("Nats-Incr", "1"),
    ] {
        let asked = client.request_with_headers(subject.clone(), header(name, value), "not ours".into());
        drop(tokio::time::timeout(std::time::Duration::from_secs(1), asked).await);
    }
    let offsets = log.append(vec![message("a", "1"), message("a", "1")]).await.unwrap();
    for log in [log, open_nats(options(&namespace)).unwrap()] {
        let all: Vec<Offset> = everything(&*log).await.iter().map(|message| message.offset).collect();
        assert_eq!(all, offsets);
    }
}

/// The server closes such a connection. A client library would not even send it.
#[tokio::test]
async fn a_payload_over_the_limit_ends_the_connection_of_its_publisher_alone() {
    let server = OwnServer::start();
    let log = open_nats(sluicebox::log::nats::Options::new(server.url(), "t")).unwrap();
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    let bytes = 2 * 1024 * 1024;
    stream.write_all(format!("CONNECT {{\"verbose\":false}}\r\nPUB sb.t.messages {bytes}\r\n").as_bytes()).unwrap();
    let _ = stream.write_all(&vec![b'x'; bytes]);
    let mut said = vec![];
    let _ = stream.read_to_end(&mut said);
    says(&String::from_utf8_lossy(&said), &["Maximum Payload Violation"]);
    let offsets = log.append(vec![message("a", "1")]).await.unwrap();
    assert_eq!(everything(&*log).await[0].offset, offsets[0]);
}

/// What was there is lost with the value; that is said, and not taken for an empty one.
#[tokio::test]
async fn a_value_that_somebody_overwrote_is_an_error_and_not_nothing() {
    let namespace = fresh_namespace();
    let log = open_nats(options(&namespace)).unwrap();
    let id = shard("h", 0);
    let claim = log.claim(id.clone(), Offset::START).await.unwrap();
    let state =
        vec![KeyWrites { key: key("k"), writes: vec![StateWrite { entry: "e".into(), value: Some("v".into()) }] }];
    assert_eq!(log.commit(ShardCommit { state, ..commit(&id, claim.term, 1) }).await, Ok(Committed::default()));
    log.settle().await.unwrap();
    let client = async_nats::connect(url()).await.unwrap();
    client.request(format!("sb.{namespace}.value.h.x6b.x65"), "not ours".into()).await.unwrap();
    let said = log.load(id.clone(), vec![key("k")]).await.unwrap_err().to_string();
    says(&said, &["cannot be read"]);
    // Others go on.
    assert!(log.load(id, vec![key("another")]).await.unwrap()[0].get("e").is_none());
}
