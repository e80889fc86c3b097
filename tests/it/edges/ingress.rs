//! What comes in: once, whatever is killed, and nothing that a foreign client sends harms the log.

use super::{Edge, collected, events_in, raw, send, stream_on};
use crate::harness::nats::OwnServer;
use crate::harness::{PATIENCE, dead_letters};
use async_nats::HeaderMap;
use async_nats::jetstream::stream::Config;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Instant;

const ORDERS: &str = "ingress = [\"events.*\"]\negress = [\"orders.accepted\"]";
const ORDER: &str = r#"
[handlers.order]
module = "order.wasm"
subscribe = ["events.new_order"]
start = "earliest"
publish = ["orders.*"]
key = ["/args/user"]
id = "/id"
"#;
const TAKEN: &str = r#"ingress_messages_total{result="taken"}"#;
const UNFIT: &str = r#"ingress_messages_total{result="unfit"}"#;

fn order(number: usize) -> Value {
    json!({"type": "new_order", "id": format!("o-{number}"), "args": {"user": format!("u{}", number % 50), "amount_cents": 1}})
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
async fn ten_thousand_plain_messages_are_in_the_log_once_and_go_out_across_kills() {
    const MESSAGES: usize = 10_000;
    let edge = Edge::new(ORDERS, ORDER, "order");
    let client = edge.client().await;
    let out = Config { name: "OUT".into(), subjects: vec!["orders.accepted".into()], ..Config::default() };
    let out = stream_on(&client, out).await;
    // The first host makes the stream that takes what comes while none runs.
    let mut host = edge.place.start();
    let begun = Instant::now();
    let context = async_nats::jetstream::new(client.clone());
    let publisher = tokio::spawn(async move {
        let mut acks = vec![];
        for number in 0..MESSAGES {
            let body = order(number).to_string();
            acks.push(context.publish("events.new_order", body.into()).await.unwrap());
            if acks.len() == 250 {
                for ack in acks.drain(..) {
                    ack.await.unwrap();
                }
            }
        }
    });
    let mut pace = tokio::time::interval(std::time::Duration::from_millis(100));
    for _ in 0..4 {
        let mut out = out.clone();
        let before = out.info().await.unwrap().state.messages;
        // Under load: something went out since the last kill.
        while out.info().await.unwrap().state.messages < (before + 500).min(MESSAGES as u64) {
            pace.tick().await;
        }
        host.kill();
        host = edge.place.start();
    }
    publisher.await.unwrap();
    let done = async {
        let mut out = out.clone();
        while out.info().await.unwrap().state.messages < MESSAGES as u64 {
            pace.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE * 2, done).await.expect("not everything goes out");
    println!("{MESSAGES} plain messages came in, were handled and went out in {:?}, with 4 kills", begun.elapsed());
    assert!(host.stop().success());
    let log = edge.log().await;
    let taken = orders(&events_in(&log, "events.new_order").await, "id");
    assert!(taken.len() == MESSAGES && taken.values().all(|times| *times == 1), "each is in the log once");
    let accepted = orders(&events_in(&log, "orders.accepted").await, "order");
    assert!(accepted.len() == MESSAGES && accepted.values().all(|times| *times == 1), "each is handled once");
    // At least once, of which the stream takes one, by its id.
    let published = orders(&collected(&out).await, "order");
    assert!(
        published.len() == MESSAGES && published.values().all(|times| *times == 1),
        "each went out, and is taken once"
    );
}

#[tokio::test]
async fn what_no_message_can_be_is_a_dead_letter_and_stops_nobody() {
    let edge = Edge::without_handlers("ingress = [\"events.>\"]");
    let host = edge.place.start();
    let client = edge.client().await;
    send(&client, "events.a", &json!(1)).await;
    let context = async_nats::jetstream::new(client.clone());
    context.publish("events.large", vec![b'x'; 600_000].into()).await.unwrap().await.unwrap();
    context.publish("events.\u{fc}", "x".into()).await.unwrap().await.unwrap();
    // What no client of this library would send, nor read.
    for headers in [&b"NATS/1.0\r\nA: \xff\xfe\r\n\r\n"[..], b"NATS/1.0\r\nno colon\r\n\r\n"] {
        raw(&edge.server.url(), "events.raw", headers, b"raw").await;
    }
    // It looks like a word of the server, and is a message all the same.
    raw(&edge.server.url(), "events.word", b"NATS/1.0 409 Consumer Deleted\r\n\r\n", b"raw").await;
    send(&client, "events.b", &json!(2)).await;
    host.until("all good ones are taken", async |host| host.metric(TAKEN).await == 3).await;
    host.until("the others are told", async |host| host.metric(UNFIT).await == 4).await;
    let dead = r#"dead_letters{handler="_ingress"}"#;
    host.until("they are dead letters", async |host| host.metric(dead).await == 4).await;
    let (code, said, _) = edge.place.command(&["dead", "list", "--handler", "_ingress", "--url", &host.url]);
    assert!(code == 0 && said.contains("reject"), "{said}");
    assert!(host.stop().success());
    let log = edge.log().await;
    let errors: Vec<String> = dead_letters(&log).await.into_iter().map(|letter| letter.error.to_string()).collect();
    for told in ["has 600000 bytes", "a character other than", "not UTF-8", "a name without a value"] {
        assert!(errors.iter().any(|error| error.contains(told)), "{told}: {errors:?}");
    }
    assert!(errors.iter().all(|error| error.contains("`nats stream get sluicebox-t-in ")), "{errors:?}");
    assert_eq!(events_in(&log, "events.*").await, ["1", "raw", "2"]);
}

#[tokio::test]
async fn headers_by_which_a_client_would_erase_or_fence_are_refused_by_its_server_or_end_here() {
    let edge = Edge::without_handlers("ingress = [\"events.*\"]");
    let host = edge.place.start();
    let client = edge.client().await;
    send(&client, "events.a", &json!(1)).await;
    let context = async_nats::jetstream::new(client.clone());
    for (name, value) in
        [("Nats-Rollup", "all"), ("Nats-Rollup", "sub"), ("Nats-Expected-Last-Sequence", "99"), ("Nats-TTL", "1s")]
    {
        let mut headers = HeaderMap::new();
        headers.insert(name, value);
        let sent = context.publish_with_headers("events.a", headers, "foreign".into()).await.unwrap();
        assert!(sent.await.is_err(), "{name}: {value}");
    }
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", "m-1");
    headers.insert("Sluicebox-Key", "ada");
    headers.insert("Nats-Expected-Stream", "sluicebox-t-in");
    headers.insert("traceparent", "t");
    for _ in 0..2 {
        context.publish_with_headers("events.b", headers.clone(), "2".into()).await.unwrap().await.unwrap();
    }
    host.until("both are taken", async |host| host.metric(TAKEN).await == 2).await;
    assert!(host.stop().success());
    let log = edge.log().await;
    let all = crate::harness::everything(&log).await;
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!((all[1].key.as_ref().unwrap().as_str(), all[1].id.as_deref()), ("ada", Some("m-1")));
    assert_eq!(all[1].headers.iter().collect::<Vec<_>>(), [("traceparent", "t")]);
}

#[tokio::test]
async fn a_server_that_is_killed_in_the_middle_loses_nothing_that_it_acknowledged() {
    const MESSAGES: usize = 3_000;
    let mut edge = Edge::without_handlers("ingress = [\"events.*\"]\negress = [\"out.>\"]");
    let host = edge.place.start();
    let client = edge.client().await;
    let context = async_nats::jetstream::new(client.clone());
    for number in 0..MESSAGES {
        if number == MESSAGES / 2 {
            edge.server.kill();
            edge.server.start_again();
        }
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", format!("m-{number}"));
        // Until it is acknowledged; of what is sent again the server takes one, by its id.
        loop {
            let sent = context.publish_with_headers("events.a", headers.clone(), number.to_string().into()).await;
            if let Ok(sent) = sent
                && sent.await.is_ok()
            {
                break;
            }
        }
    }
    host.until("all are taken", async |host| host.metric(TAKEN).await >= MESSAGES as u64).await;
    assert!(host.stop().success());
    let log = edge.log().await;
    let promised: Vec<String> = (0..MESSAGES).map(|number| number.to_string()).collect();
    assert_eq!(events_in(&log, "events.a").await, promised);
}

#[tokio::test]
async fn subjects_that_another_stream_has_and_a_stream_that_loses_messages_are_refused_with_the_command() {
    let server = OwnServer::start();
    let edge = Edge::on(server, "ingress = [\"orders.>\"]", "", None);
    let client = edge.client().await;
    let context = async_nats::jetstream::new(client.clone());
    stream_on(&client, Config { name: "MINE".into(), subjects: vec!["orders.new".into()], ..Config::default() }).await;
    let (code, _, said) = edge.place.command(&["run"]);
    assert!(
        code == 1 && said.contains("belong to stream MINE already: take them out of it with `nats stream edit"),
        "{said}"
    );
    context.delete_stream("MINE").await.unwrap();
    let wrong = |subjects: &str, allow_rollup| Config {
        name: "sluicebox-t-in".into(),
        subjects: vec![subjects.into()],
        allow_rollup,
        ..Config::default()
    };
    stream_on(&client, wrong("orders.>", true)).await;
    let (code, _, said) = edge.place.command(&["run"]);
    assert!(code == 1 && said.contains("`nats stream edit sluicebox-t-in --no-allow-rollup`"), "{said}");
    context.update_stream(wrong("other.>", false)).await.unwrap();
    let (code, _, said) = edge.place.command(&["run"]);
    assert!(code == 1 && said.contains("`nats stream edit sluicebox-t-in --subjects orders.>`"), "{said}");
    context.update_stream(wrong("orders.>", false)).await.unwrap();
    assert!(edge.place.start().stop().success());
}

#[tokio::test]
async fn a_client_without_the_permissions_that_are_told_writes_to_ingress_and_not_to_the_log() {
    let told = sluicebox::log::nats::edges::permissions("t");
    let (_, permissions) = told.split_once("permissions = ").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let users = format!(
        "authorization {{ users = [ {{ user: host, password: secret-1 }}, \
         {{ user: other, password: secret-2, permissions = {permissions} }} ] }}"
    );
    std::fs::write(folder.path().join("server.conf"), users).unwrap();
    let file = folder.path().join("server.conf");
    let server = OwnServer::start_with(&["-c", file.to_str().unwrap()]);
    let login = "login = { user = \"host\", password_file = \"password\" }\ningress = [\"events.*\"]";
    let edge = Edge::on(server, login, "", None);
    edge.place.put("password", "secret-1");
    let host = edge.place.start();
    let options = async_nats::ConnectOptions::with_user_and_password("other".into(), "secret-2".into());
    let client = options.connect(edge.server.url()).await.unwrap();
    for subject in ["sb.t.messages", "sb.t.journal.order.0", "$JS.API.STREAM.PURGE.sluicebox-t-in"] {
        client.publish(subject, "foreign".into()).await.unwrap();
    }
    send(&client, "events.a", &json!(1)).await;
    host.until("it is taken", async |host| host.metric(TAKEN).await == 1).await;
    assert_eq!(host.get("/readyz").await, "ready\n");
    assert!(host.stop().success());
}
