//! What a login may not publish does not go out, is never taken for published, and keeps nothing else back; also where the
//! server ceases to permit it while the host runs.

use crate::harness::nats::OwnServer;
use crate::harness::nats_cluster::until;
use async_nats::{Client, ConnectOptions};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use sluicebox::clock::Timestamp;
use sluicebox::log::LogError;
use sluicebox::log::edges::{Sink as _, SinkError};
use sluicebox::log::nats::edges::NatsSink;
use sluicebox::log::nats::{Login, Options};
use sluicebox::message::{Message, NewMessage, Offset};
use sluicebox::topic::{Pattern, Topic};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A host may publish there, and hears answers or does not.
fn settings(publish: &[&str], hears: bool) -> String {
    let subscribe = if hears { ["_INBOX.>", "sb.t.>"] } else { ["none", "sb.t.>"] };
    format!(
        "jetstream: enabled\nauthorization {{ users = [ {{ user: any, password: secret }}, \
         {{ user: host, password: secret, permissions: {{ publish: {publish:?}, subscribe: {subscribe:?} }} }} ] }}"
    )
}

const NEEDED: [&str; 2] = ["sb.t.>", "$JS.API.STREAM.NAMES"];

fn host(server: &OwnServer) -> Options {
    let login = Login::User { user: "host".into(), password: "secret".into() };
    Options { login, ..Options::new(server.url(), "t") }
}

async fn any(server: &OwnServer) -> Client {
    ConnectOptions::with_user_and_password("any".into(), "secret".into()).connect(server.url()).await.unwrap()
}

fn message(topic: &str, number: u64) -> Arc<Message> {
    let new = NewMessage::new(Topic::parse(topic).unwrap(), number.to_string());
    Arc::new(Message::from_new(new, Offset(number), Timestamp(0)))
}

/// The numbers that come on a subject until nothing more does.
async fn numbers(client: &Client, seen: &mut async_nats::Subscriber) -> BTreeSet<u64> {
    client.publish("out.end", "".into()).await.unwrap();
    let mut found = BTreeSet::new();
    loop {
        let message = seen.next().await.unwrap();
        if message.subject.as_str() == "out.end" {
            return found;
        }
        found.insert(std::str::from_utf8(&message.payload).unwrap().parse().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_published_is_never_taken_for_published_and_holds_nothing_else_back() {
    let server = OwnServer::configured(&settings(&[&NEEDED[..], &["out.open"]].concat(), true));
    let client = any(&server).await;
    let mut seen = client.subscribe("out.>").await.unwrap();
    client.flush().await.unwrap();
    let sink = NatsSink::open(&host(&server)).await.unwrap();
    // As many at once as the host has under way, more than the client remembers of what was refused.
    let all = (0..512).map(|number| {
        let topic = if number % 2 == 0 { "out.open" } else { "out.closed" };
        sink.publish(message(topic, number))
    });
    let published = join_all(all).await;
    let promised: BTreeSet<u64> =
        published.iter().zip(0..).filter(|(result, _)| result.is_ok()).map(|(_, number)| number).collect();
    assert!(promised.iter().all(|number| number % 2 == 0), "what was refused counts as published");
    let seen = numbers(&client, &mut seen).await;
    assert!(promised.is_subset(&seen), "{:?}", promised.difference(&seen));
    // Once it is known what is refused, the others go on at once.
    for number in (0..200).map(|number| 1000 + 2 * number) {
        assert_eq!(sink.publish(message("out.open", number)).await, Ok(()));
        match sink.publish(message("out.closed", number + 1)).await {
            Err(SinkError::Refused(reason)) => {
                assert!(reason.contains("does not permit this login to publish to `out.closed`"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_that_is_taken_away_and_given_back_while_it_runs_loses_nothing() {
    let open = settings(&[&NEEDED[..], &["out.a"]].concat(), true);
    let server = OwnServer::configured(&open);
    let client = any(&server).await;
    let mut seen = client.subscribe("out.>").await.unwrap();
    client.flush().await.unwrap();
    let sink = NatsSink::open(&host(&server)).await.unwrap();
    let (mut number, mut promised) = (0, BTreeSet::new());
    let mut publish = async |some: u64| {
        let numbers: Vec<u64> = (number..number + some).collect();
        number += some;
        let published = join_all(numbers.iter().map(|number| sink.publish(message("out.a", *number)))).await;
        let all = published.iter().all(Result::is_ok);
        let done = numbers.into_iter().zip(published).filter(|(_, result)| result.is_ok()).map(|(number, _)| number);
        promised.extend(done);
        all
    };
    let deaf = settings(&[&NEEDED[..], &["out.a"]].concat(), false);
    for closed in [settings(&NEEDED, true), deaf] {
        server.reconfigure(&closed);
        until("it is not published", async || !publish(20).await).await;
        server.reconfigure(&open);
        until("it is published again", async || publish(20).await).await;
    }
    let seen = numbers(&client, &mut seen).await;
    assert!(promised.is_subset(&seen), "lost: {:?}", promised.difference(&seen));
}

#[tokio::test]
async fn a_right_that_is_missing_is_said_at_start_and_nobody_gets_what_it_is_asked_with() {
    let server = OwnServer::configured(&settings(&[&NEEDED[..], &["out.*.made"]].concat(), true));
    let client = any(&server).await;
    let mut seen = client.subscribe("*.*.made").await.unwrap();
    let stream = async_nats::jetstream::stream::Config {
        name: "OUT".into(),
        subjects: vec!["out.>".into()],
        ..Default::default()
    };
    let mut stream = async_nats::jetstream::new(client.clone()).create_stream(stream).await.unwrap();
    let with = |egress: &[&str]| {
        let egress = egress.iter().map(|pattern| Pattern::parse(pattern).unwrap()).collect();
        Options { egress, ..host(&server) }
    };
    NatsSink::open(&with(&["out.*.made", "out.a.made"])).await.map(drop).unwrap();
    match NatsSink::open(&with(&["out.*.made", "out.>"])).await.map(drop) {
        Err(LogError::Refused { reason }) => {
            assert!(
                reason.contains("publish to `out.>` of `egress`") && reason.contains("`out.*.made`, `out.>`"),
                "{reason}"
            );
        }
        other => panic!("{other:?}"),
    }
    client.publish("out.end.made", "".into()).await.unwrap();
    assert_eq!(seen.next().await.unwrap().subject.as_str(), "out.end.made");
    assert_eq!(stream.info().await.unwrap().state.messages, 1);
}
