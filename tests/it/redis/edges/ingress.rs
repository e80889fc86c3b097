//! What comes in by `XADD`: once, whatever is killed, and nothing that a foreign client adds harms the log.

use super::{Edge, IN, TAKEN, UNFIT, add, events_in};
use crate::harness::redis::{Options, OwnServer, Wire, fresh_namespace, open_own};
use crate::harness::{PATIENCE, dead_letters};
use serde_json::{Value, json};
use sluicebox::log::edges::{Position, Source as _};
use sluicebox::log::redis::edges::RedisSource;
use sluicebox::topic::Pattern;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const ORDER: &str = r#"
[handlers.order]
module = "order.wasm"
subscribe = ["events.new_order"]
start = "earliest"
publish = ["orders.*"]
key = ["/args/user"]
id = "/id"
"#;

fn order(number: usize) -> String {
    let args = json!({"user": format!("u{}", number % 50), "amount_cents": 1});
    json!({"type": "new_order", "id": format!("o-{number}"), "args": args}).to_string()
}

/// How often each order is there, by the name of its number in these texts.
fn orders(texts: &[String], field: &str) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for text in texts {
        let text: Value = serde_json::from_str(text).unwrap();
        *found.entry(text[field].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    found
}

#[tokio::test]
async fn ten_thousand_plain_entries_are_in_the_log_once_across_kills_of_the_host() {
    const MESSAGES: usize = 10_000;
    const LIVES: usize = 5;
    let edge = Edge::new("ingress = [\"events.*\"]", ORDER, "order");
    let mut host = edge.place.start();
    let begun = Instant::now();
    let url = edge.server.url();
    // A part for each life, so that none finds that all were taken before it.
    let (next, parts) = std::sync::mpsc::sync_channel::<()>(LIVES);
    let publisher = std::thread::spawn(move || {
        let mut wire = Wire::connect(&url).unwrap();
        for number in 0..MESSAGES {
            if number % (MESSAGES / LIVES) == 0 {
                parts.recv().unwrap();
            }
            add(&mut wire, "events.new_order", &order(number));
        }
    });
    let log = edge.log();
    next.send(()).unwrap();
    for _ in 1..LIVES {
        // Under load: something was taken up since the last kill.
        host.until("it takes up", async |host| host.metric(TAKEN).await >= 500).await;
        host.kill();
        next.send(()).unwrap();
        host = edge.place.start();
    }
    publisher.join().unwrap();
    let mut pace = tokio::time::interval(Duration::from_secs(1));
    let done = async {
        while events_in(&log, "orders.accepted").await.len() < MESSAGES {
            pace.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE * 2, done).await.expect("not everything is handled");
    println!("{MESSAGES} plain entries came in and were handled in {:?}, with 4 kills", begun.elapsed());
    assert!(host.stop().success());
    let taken = events_in(&log, "events.new_order").await;
    assert_eq!(
        taken,
        (0..MESSAGES).map(order).collect::<Vec<_>>(),
        "each is in the log once, in the order of the stream"
    );
    let accepted = orders(&events_in(&log, "orders.accepted").await, "order");
    assert!(accepted.len() == MESSAGES && accepted.values().all(|times| *times == 1), "each is handled once");
}

#[tokio::test]
async fn what_no_message_can_be_is_a_dead_letter_and_stops_nobody() {
    let edge = Edge::without_handlers("ingress = [\"events.>\"]");
    let host = edge.place.start();
    let mut wire = edge.wire();
    add(&mut wire, "events.a", "1");
    let large = vec![b'x'; 530_000];
    let huge = vec![b'x'; 3_000_000];
    let bad: [&[&[u8]]; 7] = [
        &[b"topic", b"events.a", b"body", &large],
        &[b"topic", b"events.a", b"body", &huge],
        &[b"topic", "events.\u{fc}".as_bytes(), b"body", b"x"],
        &[b"topic", b"elsewhere", b"body", b"x"],
        &[b"topic", b"events.a", b"body", b"x", b"key", b"\xff\xfe"],
        &[b"topic", b"events.a", b"bdy", b"x"],
        &[b"body", b"x"],
    ];
    for fields in bad {
        wire.send(&[&[b"XADD", IN.as_bytes(), b"*"], fields].concat()).unwrap();
        assert!(!wire.answer().unwrap().starts_with('-'));
    }
    add(&mut wire, "events.b", "2");
    host.until("the good ones are taken", async |host| host.metric(TAKEN).await == 2).await;
    host.until("the others are told", async |host| host.metric(UNFIT).await == 7).await;
    let dead = r#"dead_letters{handler="_ingress"}"#;
    host.until("they are dead letters", async |host| host.metric(dead).await == 7).await;
    assert!(host.stop().success());
    let log = edge.log();
    let errors: Vec<String> = dead_letters(&*log).await.into_iter().map(|letter| letter.error.to_string()).collect();
    for told in [
        "530000 bytes",
        "3000017 bytes",
        "a character other than",
        "`elsewhere` is none of `ingress`",
        "`key` is not UTF-8",
        "a field `bdy`",
        "no field `topic`",
    ] {
        assert!(errors.iter().any(|error| error.contains(told)), "{told}: {errors:?}");
    }
    assert!(errors.iter().all(|error| error.contains("`redis-cli XRANGE 'sb:{t}:in' ")), "{errors:?}");
    assert_eq!(events_in(&log, "events.*").await, ["1", "2"]);
}

#[tokio::test]
async fn a_server_that_is_killed_in_the_middle_loses_nothing_that_it_acknowledged() {
    const MESSAGES: usize = 2_000;
    let mut edge = Edge::without_handlers("ingress = [\"events.*\"]");
    let host = edge.place.start();
    let mut wire = Some(edge.wire());
    for number in 1..=MESSAGES {
        if number == MESSAGES / 2 {
            edge.server.kill();
            edge.server.start_again();
        }
        // With an id of its own an entry that is added again, because its answer was lost, is refused.
        let (id, body) = (format!("{number}-0"), number.to_string());
        loop {
            let open = wire.get_or_insert_with(|| edge.wire());
            match open.asked(&["XADD", IN, &id, "topic", "events.a", "body", &body]) {
                Ok(answer) if !answer.starts_with('-') || answer.contains("equal or smaller") => break,
                Ok(answer) => panic!("{answer}"),
                Err(_) => wire = None,
            }
        }
    }
    let promised: Vec<String> = (1..=MESSAGES).map(|number| number.to_string()).collect();
    host.until("all are taken", async |host| host.metric(TAKEN).await >= MESSAGES as u64).await;
    assert!(host.stop().success());
    assert_eq!(events_in(&edge.log(), "events.a").await, promised);
}

#[tokio::test]
async fn a_stream_that_was_made_anew_is_taken_up_from_its_beginning() {
    let edge = Edge::without_handlers("ingress = [\"events.*\"]");
    let host = edge.place.start();
    let mut wire = edge.wire();
    add(&mut wire, "events.a", "1");
    host.until("it is taken", async |host| host.metric(TAKEN).await == 1).await;
    wire.asked(&["DEL", IN]).unwrap();
    // Ids before that of the last one that was taken.
    for number in 2..=3 {
        let (id, body) = (format!("{number}-0"), number.to_string());
        wire.asked(&["XADD", IN, &id, "topic", "events.a", "body", &body]).unwrap();
    }
    host.until("all are taken", async |host| host.metric(TAKEN).await == 3).await;
    assert!(host.stop().success());
    assert_eq!(events_in(&edge.log(), "events.a").await, ["1", "2", "3"]);
}

#[tokio::test]
async fn a_key_of_another_type_is_told_and_when_it_is_gone_it_goes_on() {
    let edge = Edge::without_handlers("ingress = [\"events.*\"]");
    let mut wire = edge.wire();
    wire.asked(&["SET", IN, "text"]).unwrap();
    let host = edge.place.start();
    host.until("it is told", async |host| host.get("/v1/status").await.contains("is no stream")).await;
    assert!(host.publish("b", None, None, "over HTTP").await, "the log goes on");
    wire.asked(&["DEL", IN]).unwrap();
    add(&mut wire, "events.a", "1");
    host.until("it is taken", async |host| host.metric(TAKEN).await == 1).await;
    host.until("nothing is told", async |host| !host.get("/v1/status").await.contains("is no stream")).await;
    assert!(host.stop().success());
}

#[tokio::test]
async fn what_was_taken_up_leaves_the_stream_and_nothing_else_does() {
    const ENTRIES: usize = 2_000;
    let server = OwnServer::start();
    let log = open_own(Options::new(server.url(), "t")).unwrap();
    let topics = [Pattern::parse("events.*").unwrap()];
    let mut wire = Wire::connect(&server.url()).unwrap();
    for number in 1..=ENTRIES {
        let id = format!("{number}-0");
        wire.asked(&["XADD", IN, &id, "topic", "events.a", "body", "x"]).unwrap();
    }
    let length = |wire: &mut Wire| wire.asked(&["XLEN", IN]).unwrap()[1..].parse::<usize>().unwrap();
    let source = RedisSource::beside(&log, &topics, &[]).keeping(Duration::ZERO);
    source.taken(Position("1000-0 1000".into())).await.unwrap();
    let left = length(&mut wire);
    assert!((ENTRIES - 1000..ENTRIES - 800).contains(&left), "{left}");
    // Not yet, as long as it is kept: these ids are times now.
    wire.asked(&["DEL", IN]).unwrap();
    for _ in 0..300 {
        add(&mut wire, "events.a", "x");
    }
    let last = wire.asked(&["XADD", IN, "*", "topic", "events.a", "body", "x"]).unwrap();
    RedisSource::beside(&log, &topics, &[]).taken(Position(format!("{last} 301"))).await.unwrap();
    assert_eq!(length(&mut wire), 301);
    let mut arrivals = source.read_after(None).await.unwrap();
    let arrived = arrivals.next().await.unwrap();
    assert_eq!((arrived.messages.len(), arrived.waiting), (301, 0));
    assert!(arrived.upto.0.starts_with(&last), "{:?}", arrived.upto);
}

#[tokio::test]
async fn another_log_of_the_server_has_a_stream_of_its_own() {
    let edge = Edge::without_handlers("ingress = [\"events.*\"]");
    let host = edge.place.start();
    let mut wire = edge.wire();
    let other = format!("sb:{{{}}}:in", fresh_namespace());
    wire.asked(&["XADD", &other, "*", "topic", "events.a", "body", "theirs"]).unwrap();
    add(&mut wire, "events.a", "ours");
    host.until("it is taken", async |host| host.metric(TAKEN).await == 1).await;
    assert!(host.stop().success());
    assert_eq!(events_in(&edge.log(), ">").await, ["ours"]);
}

#[tokio::test]
async fn a_client_without_more_rights_than_are_told_adds_entries_and_harms_nothing() {
    let edge = Edge::without_handlers("ingress = [\"events.*\"]");
    let told = sluicebox::log::redis::edges::rights("t");
    let rights = told.rsplit('`').nth(1).unwrap();
    let user = [&["ACL", "SETUSER", "other", "on", ">pass"], &rights.split(' ').collect::<Vec<_>>()[..]].concat();
    assert_eq!(edge.server.ask(&user), "+OK\r\n");
    let host = edge.place.start();
    let mut wire = edge.wire();
    wire.asked(&["AUTH", "other", "pass"]).unwrap();
    for words in
        [&["XADD", "sb:{t}:log", "*", "a", "b"][..], &["DEL", IN], &["HSET", "sb:{t}:meta", "id", "x"], &["FLUSHALL"]]
    {
        assert!(wire.asked(words).unwrap().starts_with("-NOPERM"), "{words:?}");
    }
    add(&mut wire, "events.a", "1");
    host.until("it is taken", async |host| host.metric(TAKEN).await == 1).await;
    assert!(host.stop().success());
}
