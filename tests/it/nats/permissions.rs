//! A login that is not permitted all that a host needs is refused at start, with what it needs, and that is enough: also with
//! plain clients on both sides.

use super::says;
use crate::harness::PATIENCE;
use crate::harness::everything;
use crate::harness::logs::{commit, message, shard};
use crate::harness::nats::{OwnServer, open_nats};
use crate::harness::process::Place;
use async_nats::ConnectOptions;
use async_nats::jetstream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use sluicebox::clock::Timestamp;
use sluicebox::log::nats::edges::{NatsSink, NatsSource};
use sluicebox::log::nats::{Login, NatsLog, Options};
use sluicebox::log::{Log, LogError, Trim};
use sluicebox::message::Offset;
use sluicebox::topic::Pattern;
use std::fmt::Write as _;

/// A server with users that may publish and subscribe only there; users are numbered, and `any` may do everything.
fn server(users: &[(Vec<String>, Vec<String>)]) -> OwnServer {
    let mut settings = "jetstream: enabled\nauthorization { users = [\n{ user: any, password: secret }\n".to_owned();
    for (number, (publish, subscribe)) in users.iter().enumerate() {
        writeln!(
            settings,
            "{{ user: u{number}, password: secret, permissions: {{ publish: {publish:?}, subscribe: {subscribe:?} }} }}"
        )
        .unwrap();
    }
    OwnServer::configured(&(settings + "] }"))
}

fn user(server: &OwnServer, number: usize) -> Options {
    let login = Login::User { user: format!("u{number}"), password: "secret".into() };
    let patterns = |texts: &[&str]| texts.iter().map(|text| Pattern::parse(text).unwrap()).collect();
    let (ingress, egress) = (patterns(&["in.*"]), patterns(&["out.a.>", "out.b"]));
    Options { login, ingress, egress, ..Options::new(server.url(), "t") }
}

/// What a host opens as it starts.
async fn start(options: Options) -> Result<(), LogError> {
    let _log = NatsLog::open(options.clone()).await?;
    NatsSink::open(&options).await?;
    NatsSource::open(&options).await.map(drop)
}

async fn refused(options: Options) -> String {
    match start(options).await {
        Err(LogError::Refused { reason }) => reason,
        other => panic!("it is not refused: {other:?}"),
    }
}

/// The subjects between these words.
fn listed(said: &str, from: &str, to: &str) -> Vec<String> {
    let (_, rest) = said.split_once(from).unwrap();
    let (listed, _) = rest.split_once(to).unwrap();
    listed.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Where a host publishes and subscribes, as it says itself.
async fn advised() -> (Vec<String>, Vec<String>) {
    let nobody = server(&[(vec!["nothing".into()], vec![">".to_owned()])]);
    let said = refused(user(&nobody, 0)).await;
    says(&said, &["Permissions Violation", "permit this login to publish to"]);
    let publish = listed(&said, "to publish to ", " and to subscribe to ");
    let subscribe = listed(&said, " and to subscribe to ", ", and nobody else");
    assert!(publish.len() > 20 && publish[0] == "sb.t.>" && publish.contains(&"out.b".to_owned()), "{said}");
    (publish, subscribe)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_right_that_is_missing_is_told_at_start_with_what_is_needed_and_that_is_enough() {
    let (publish, subscribe) = advised().await;
    let without = |all: &[String], subject: &String| all.iter().filter(|other| *other != subject).cloned().collect();
    // The right to make streams is only missed where they are not there.
    let (making, others): (Vec<&String>, Vec<&String>) =
        publish.iter().partition(|subject| subject.contains("STREAM.CREATE"));
    let mut users = vec![(publish.clone(), subscribe.clone())];
    let less: Vec<&String> = making.into_iter().chain(others).collect();
    users.extend(less.iter().map(|subject| (without(&publish, subject), subscribe.clone())));
    users.extend(subscribe.iter().map(|subject| (publish.clone(), without(&subscribe, subject))));
    let server = server(&users);
    for number in 1..users.len() {
        let said = refused(user(&server, number)).await;
        says(&said, &["ermi", "permit this login to publish to", "to subscribe to"]);
        if let Some(subject) = less.get(number - 1).filter(|subject| !subject.ends_with('>')) {
            let quote = if subject.starts_with("out") { '`' } else { '"' };
            says(&said, &[&format!("{quote}{subject}{quote}")]);
        }
    }
    start(user(&server, 0)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_advised_is_enough_for_all_that_a_log_does() {
    let (publish, subscribe) = advised().await;
    let server = server(&[(publish, subscribe)]);
    let log = open_nats(user(&server, 0)).unwrap();
    let id = shard("h", 0);
    let claim = log.claim(id.clone(), Offset::START).await.unwrap();
    log.commit(commit(&id, claim.term, 1)).await.unwrap();
    for _ in 0..300 {
        log.append(vec![message("a", "x")]).await.unwrap();
    }
    log.settle().await.unwrap();
    let trim = Trim { older_than: Some(Timestamp(u64::MAX)), bytes_max: None, holders: vec![], messages_max: 1000 };
    log.trim(trim).await.unwrap();
    assert_eq!(everything(&*log).await, []);
    log.forget(id.handler).await.unwrap();
    drop(log);
    open_nats(user(&server, 0)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_advised_is_enough_for_plain_clients_on_both_sides_also_when_readers_are_made_again() {
    let (publish, subscribe) = advised().await;
    let server = server(&[(publish, subscribe)]);
    let place = Place::new("", &[]);
    place.put("password", "secret");
    let settings = format!(
        "namespace = \"t\"\n[log]\nkind = \"nats\"\nurl = \"{}\"\nlogin = {{ user = \"u0\", password_file = \"password\" }}\n\
         ingress = [\"in.*\"]\negress = [\"out.a.>\", \"out.b\"]\n[http]\nlisten = \"127.0.0.1:0\"\n",
        server.url()
    );
    place.put("sluicebox.toml", settings);
    let host = place.start();
    let any = ConnectOptions::with_user_and_password("any".into(), "secret".into());
    let client = any.connect(server.url()).await.unwrap();
    let context = jetstream::new(client.clone());
    let out = jetstream::stream::Config { name: "OUT".into(), subjects: vec!["out.b".into()], ..Default::default() };
    let mut out = context.create_stream(out).await.unwrap();
    let mut plain = client.subscribe("out.a.>").await.unwrap();
    client.flush().await.unwrap();
    for round in 1..=2 {
        context.publish("in.a", "x".into()).await.unwrap().await.unwrap();
        let taken = r#"ingress_messages_total{result="taken"}"#;
        host.until("it is taken", async |host| host.metric(taken).await == round).await;
        for topic in ["out.a.b", "out.b"] {
            assert!(host.publish(topic, None, None, "x").await);
        }
        tokio::time::timeout(PATIENCE, plain.next()).await.unwrap().unwrap();
        host.until("it is in the stream", async |_| out.info().await.unwrap().state.messages == round).await;
        for stream in ["sluicebox-t", "sluicebox-t-in"] {
            let stream = context.get_stream(stream).await.unwrap();
            let names: Vec<String> = stream.consumer_names().try_collect().await.unwrap();
            for name in names {
                stream.delete_consumer(&name).await.unwrap();
            }
        }
    }
    assert!(host.stop().success());
}
