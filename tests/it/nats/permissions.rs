//! A login that is not permitted all that a host needs is refused at start, with what it needs, and that is enough.

use super::{refused, says};
use crate::harness::everything;
use crate::harness::logs::{commit, message, shard};
use crate::harness::nats::{OwnServer, open_nats};
use sluicebox::clock::Timestamp;
use sluicebox::log::nats::{Login, Options};
use sluicebox::log::{Log, Trim};
use sluicebox::message::Offset;
use std::fmt::Write as _;

/// A server with users that may publish and subscribe only there; users are numbered.
fn server(users: &[(Vec<String>, Vec<String>)]) -> OwnServer {
    let mut settings = "jetstream: enabled\nauthorization { users = [\n".to_owned();
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
    Options { login, ..Options::new(server.url(), "t") }
}

/// The subjects between these words.
fn listed(said: &str, from: &str, to: &str) -> Vec<String> {
    let (_, rest) = said.split_once(from).unwrap();
    let (listed, _) = rest.split_once(to).unwrap();
    listed.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[tokio::test]
async fn what_is_not_permitted_is_refused_at_start_and_what_is_advised_is_enough() {
    let all = vec![">".to_owned()];
    let nobody = server(&[(vec!["nothing".into()], all.clone())]);
    let said = refused(user(&nobody, 0));
    says(&said, &["Permissions Violation", "permit this login to publish to"]);
    let publish = listed(&said, "to publish to ", " and to subscribe to ");
    let subscribe = listed(&said, " and to subscribe to ", ", and nobody else");
    assert!(publish.len() > 8 && publish[0] == "sb.t.>", "{said}");

    let without = |subject: &String| publish.iter().filter(|other| *other != subject).cloned().collect::<Vec<_>>();
    let mut users = vec![(publish.clone(), subscribe.clone()), (publish.clone(), vec!["none".into()])];
    users.extend(publish.iter().map(|subject| (without(subject), subscribe.clone())));
    let server = server(&users);
    // The right to make streams is only missed where they are not there, and one of two forms to ask for a reader is enough.
    let enough = open_nats(user(&server, 0)).unwrap();
    for number in 1..users.len() {
        let makes_streams = number > 1 && publish[number - 2].contains("STREAM.CREATE");
        let reader = number > 1 && publish[number - 2].contains("CONSUMER.CREATE");
        if !makes_streams && !reader {
            says(&refused(user(&server, number)), &["Permissions Violation", "permit this login to publish to"]);
        }
    }

    let id = shard("h", 0);
    let claim = enough.claim(id.clone(), Offset::START).await.unwrap();
    enough.commit(commit(&id, claim.term, 1)).await.unwrap();
    for _ in 0..300 {
        enough.append(vec![message("a", "x")]).await.unwrap();
    }
    enough.settle().await.unwrap();
    let trim = Trim { older_than: Some(Timestamp(u64::MAX)), bytes_max: None, holders: vec![], messages_max: 1000 };
    enough.trim(trim).await.unwrap();
    assert_eq!(everything(&*enough).await, []);
    enough.forget(id.handler).await.unwrap();
    drop(enough);
    open_nats(user(&server, 0)).unwrap();
}
