//! What is checked before a host does anything: the server and the streams, each of them provoked.

use super::{refused, says};
use crate::harness::nats::{OwnServer, fresh_namespace, open_nats, options, url};
use async_nats::jetstream;
use serde_json::{Value, json};
use sluicebox::log::nats::{Login, Options};
use std::io::{BufRead as _, BufReader, Write as _};

/// Says these things of itself to one client, and is alive.
fn server_that_says(info: &Value) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let info = format!("INFO {info}\r\n");
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        client.write_all(info.as_bytes()).unwrap();
        for line in BufReader::new(client.try_clone().unwrap()).lines().map_while(Result::ok) {
            if line.starts_with("PING") && client.write_all(b"PONG\r\n").is_err() {
                return;
            }
        }
    });
    url
}

#[test]
fn a_server_that_is_too_old_is_refused_with_both_versions() {
    let url = server_that_says(&json!({
        "server_id": "S", "server_name": "s", "version": "2.10.0", "go": "go1", "host": "127.0.0.1", "port": 4222,
        "headers": true, "max_payload": 1_048_576, "proto": 1, "jetstream": true
    }));
    says(&refused(Options::new(url, "t")), &["has version 2.10.0", "2.11 or newer is needed", "update it"]);
}

#[test]
fn a_server_without_jetstream_is_refused_and_so_is_an_account_without_it() {
    let server = OwnServer::configured("");
    says(&refused(Options::new(server.url(), "t")), &["has no JetStream", "start it with `-js`"]);
    let server = OwnServer::configured(
        "jetstream: enabled\naccounts { A { jetstream: enabled, users: [ { user: a, password: x } ] }
         B { users: [ { user: b, password: x } ] } }",
    );
    let user = |user: &str| Login::User { user: user.into(), password: "x".into() };
    open_nats(Options { login: user("a"), ..Options::new(server.url(), "t") }).unwrap();
    let said = refused(Options { login: user("b"), ..Options::new(server.url(), "t") });
    says(&said, &["JetStream"]);
}

#[test]
fn a_server_whose_messages_are_too_small_is_refused_with_what_is_needed() {
    let server = OwnServer::configured("jetstream: enabled\nmax_payload: 589823");
    says(&refused(Options::new(server.url(), "t")), &["589823 bytes", "589824 are needed", "raise `max_payload`"]);
    let server = OwnServer::configured("jetstream: enabled\nmax_payload: 589824");
    open_nats(Options::new(server.url(), "t")).unwrap();
}

#[test]
fn more_replicas_than_servers_are_refused() {
    let said = refused(Options { replicas: 3, ..options(&fresh_namespace()) });
    says(&said, &["replicas", "start as many servers", "lower it"]);
}

#[tokio::test]
async fn a_stream_that_differs_is_refused_with_the_command_that_mends_it_and_left_as_it_is() {
    let context = jetstream::new(async_nats::connect(url()).await.unwrap());
    let namespace = fresh_namespace();
    drop(open_nats(options(&namespace)).unwrap());
    let streams = [format!("sluicebox-{namespace}"), format!("sluicebox-{namespace}-state")];
    let mut configs = vec![];
    for stream in &streams {
        let info: Value = context.request(format!("STREAM.INFO.{stream}"), &()).await.unwrap();
        configs.push(info["config"].clone());
    }
    let edit = |flags: &str| format!("nats stream edit STREAM {flags}");
    let anew = || "not all of it can be changed in a stream that is there".to_owned();
    let both = [0, 1];
    let cases = [
        (&both[..], json!({ "subjects": ["sb.other.>"] }), "subjects is sb.other.>", edit("--subjects 'sb.")),
        (&both, json!({ "max_age": 3_600_000_000_000_u64 }), "max_age is 3600s", edit("--max-age 0s`")),
        (&both, json!({ "max_msgs": 5 }), "max_msgs is 5", edit("--max-msgs=-1`")),
        (&both, json!({ "max_bytes": 1_000_000 }), "discard is old", edit("--discard new`")),
        (&both, json!({ "max_msg_size": 1000 }), "max_msg_size is 1000", edit("--max-msg-size=-1`")),
        (&both, json!({ "allow_direct": false }), "allow_direct is false", edit("--allow-direct`")),
        (&both, json!({ "allow_rollup_hdrs": true }), "allow_rollup_hdrs is true", edit("--no-allow-rollup`")),
        (&both, json!({ "no_ack": true }), "no_ack is true", edit("--ack`")),
        (&both[..1], json!({ "max_msgs_per_subject": 1 }), "must be -1", edit("--max-msgs-per-subject=-1`")),
        (&both[1..], json!({ "max_msgs_per_subject": 2 }), "must be 1", edit("--max-msgs-per-subject=1`")),
        (&both[1..], json!({ "allow_msg_ttl": false }), "allow_msg_ttl is false", edit("--allow-msg-ttl`")),
        (
            &both[1..],
            json!({ "max_age": 3_600_000_000_000_u64, "allow_rollup_hdrs": true }),
            "max_age is 3600s and must be 0; allow_rollup_hdrs",
            edit("--max-age 0s --no-allow-rollup`"),
        ),
        (&both, json!({ "storage": "memory" }), "storage is memory and must be file", anew()),
        (&both, json!({ "retention": "interest" }), "retention is Interest", anew()),
        (&both, json!({ "deny_purge": true }), "deny_purge is true", anew()),
        (&both, json!({ "sources": [{ "name": "elsewhere" }] }), "mirror or sources is set", anew()),
        (&both, json!({ "subject_transform": { "src": ">", "dest": ">" } }), "subject_transform is set", anew()),
    ];
    for (which, change, differs, mend) in cases {
        for at in which.iter().copied() {
            for (stream, config) in streams.iter().zip(&configs) {
                context.delete_stream(stream).await.unwrap();
                let mut config = config.clone();
                if *stream == streams[at] {
                    config.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
                }
                let made: Value = context.request(format!("STREAM.CREATE.{stream}"), &config).await.unwrap();
                assert!(made.get("error").is_none(), "{change}: {made}");
            }
            let info =
                async || -> Value { context.request(format!("STREAM.INFO.{}", streams[at]), &()).await.unwrap() };
            let before = info().await["config"].clone();
            let said = refused(options(&namespace));
            says(&said, &[&streams[at], differs, &mend.replace("STREAM", &streams[at])]);
            assert_eq!(info().await["config"], before, "it was changed");
        }
    }
}

#[tokio::test]
async fn one_stream_without_the_other_is_a_loss_that_is_said_and_nothing_is_made_anew() {
    let context = jetstream::new(async_nats::connect(url()).await.unwrap());
    for lost in ["", "-state"] {
        let namespace = fresh_namespace();
        drop(open_nats(options(&namespace)).unwrap());
        let [lost, left] =
            [lost, if lost.is_empty() { "-state" } else { "" }].map(|end| format!("sluicebox-{namespace}{end}"));
        context.delete_stream(&lost).await.unwrap();
        let said = refused(options(&namespace));
        says(&said, &[&format!("stream {left} is there and stream {lost} is not"), "nats stream restore"]);
        assert!(context.get_stream(&lost).await.is_err(), "it was made");
        context.delete_stream(&left).await.unwrap();
        open_nats(options(&namespace)).unwrap();
    }
}

#[tokio::test]
async fn a_limit_that_refuses_what_is_new_is_the_operators_to_set() {
    let context = jetstream::new(async_nats::connect(url()).await.unwrap());
    let namespace = fresh_namespace();
    let log = open_nats(options(&namespace)).unwrap();
    let mut stream = context.get_stream(format!("sluicebox-{namespace}")).await.unwrap();
    let config = stream.info().await.unwrap().config.clone();
    let limited =
        jetstream::stream::Config { max_bytes: 10_000_000, discard: jetstream::stream::DiscardPolicy::New, ..config };
    context.update_stream(limited).await.unwrap();
    drop(log);
    open_nats(options(&namespace)).unwrap();
}
