//! What comes in on channels: at most once, heard by one host, again after a connection is lost, and what is too much is
//! counted.

use super::{Edge, TAKEN, UNFIT, events_in};
use crate::harness::PATIENCE;
use crate::harness::nats_cluster::until;
use crate::harness::redis::{Options, OwnServer, Wire, open_own};
use sluicebox::log::edges::Source as _;
use sluicebox::log::redis::edges::RedisSource;
use sluicebox::topic::Pattern;
use std::time::Duration;

const LOST: &str = r#"ingress_messages_total{result="lost"}"#;

/// Until so many listen to a channel of this pattern of the server.
async fn until_heard(wire: &mut Wire, channel: &str, listeners: &str) {
    let heard = async {
        while wire.asked(&["PUBLISH", channel, "are you there?"]).unwrap() != listeners {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.expect("nobody listens");
}

#[tokio::test]
async fn what_is_published_on_a_channel_is_a_message_and_channels_that_are_not_meant_are_passed_over() {
    let edge = Edge::without_handlers("ingress_channels = [\"sensors.*\"]");
    let host = edge.place.start();
    let mut wire = edge.wire();
    until_heard(&mut wire, "sensors.hall.left", ":1").await;
    for n in 0..200 {
        wire.asked(&["PUBLISH", "sensors.hall", &n.to_string()]).unwrap();
    }
    wire.send(&[b"PUBLISH", b"sensors.hall", &vec![b'x'; 600_000]]).unwrap();
    wire.answer().unwrap();
    wire.send(&[b"PUBLISH", b"sensors.\xff", b"x"]).unwrap();
    wire.answer().unwrap();
    host.until("all are taken", async |host| host.metric(TAKEN).await == 200).await;
    host.until("those that can be none are told", async |host| host.metric(UNFIT).await == 2).await;
    assert!(host.stop().success());
    let promised: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    assert_eq!(events_in(&edge.log(), "sensors.>").await, promised);
}

#[tokio::test]
async fn one_host_listens_and_another_one_when_it_is_silent() {
    let edges = "ingress_channels = [\"sensors.>\"]\n[host]\nlease = \"1s\"";
    let edge = Edge::without_handlers(edges);
    let beside = Edge::beside(&edge.server, edges, "", None);
    let hosts = [edge.place.start(), beside.start()];
    let mut wire = edge.wire();
    let log = edge.log();
    let mut published = 0;
    let mut asleep = None;
    for _ in 0..2 {
        let before = events_in(&log, "sensors.hall").await.len();
        let came = async {
            let mut pace = tokio::time::interval(Duration::from_millis(50));
            while events_in(&log, "sensors.hall").await.len() <= before {
                pace.tick().await;
                published += 1;
                wire.asked(&["PUBLISH", "sensors.hall", &published.to_string()]).unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, came).await.expect("nobody listens");
        if asleep.is_none() {
            // Whoever listens now.
            let [first, second] = &hosts;
            let mut taken = [0, 0];
            until("one of them says that it took it", async || {
                taken = [first.metric(TAKEN).await, second.metric(TAKEN).await];
                taken != [0, 0]
            })
            .await;
            let listener = if taken[0] > taken[1] { first } else { second };
            listener.sleep();
            wire.asked(&["CLIENT", "KILL", "TYPE", "pubsub"]).unwrap();
            asleep = Some(listener);
        }
    }
    asleep.unwrap().wake();
    let mut found = events_in(&log, "sensors.hall").await;
    let all = found.len();
    found.sort();
    found.dedup();
    assert_eq!(found.len(), all, "no message came through both");
}

#[tokio::test]
async fn a_connection_that_was_cut_is_made_anew_and_the_server_too() {
    let mut edge = Edge::without_handlers("ingress_channels = [\"sensors.>\"]");
    let host = edge.place.start();
    for round in 0..3 {
        // What comes on a channel while the log is away is lost: both connections are to be there.
        host.until("the log goes on", async |host| host.publish("other", None, None, "over HTTP").await).await;
        let mut wire = edge.wire();
        until_heard(&mut wire, "sensors.warm", ":1").await;
        wire.asked(&["PUBLISH", "sensors.hall", &round.to_string()]).unwrap();
        let log = edge.log();
        host.until("it came", async |_| events_in(&log, "sensors.hall").await.len() == round + 1).await;
        // Whose answer is lost with the connection is in doubt, and this is not about that.
        let all = events_in(&log, "sensors.>").await.len() as u64;
        host.until("it is told that they are there", async |host| host.metric(TAKEN).await == all).await;
        match round {
            0 => drop(wire.asked(&["CLIENT", "KILL", "TYPE", "pubsub"]).unwrap()),
            _ => {
                edge.server.kill();
                edge.server.start_again();
            }
        }
    }
    assert_eq!(host.metric(LOST).await, 0);
    assert!(host.stop().success());
}

#[tokio::test]
async fn what_comes_faster_than_it_is_taken_is_lost_within_a_bound_and_counted() {
    const WAITING_MAX: u64 = 10_000;
    let server = OwnServer::start();
    let log = open_own(Options::new(server.url(), "t")).unwrap();
    let source = RedisSource::beside(&log, &[], &[Pattern::parse("sensors.>").unwrap()]);
    let mut arrivals = source.read_after(None).await.unwrap();
    let mut wire = Wire::connect(&server.url()).unwrap();
    for n in 0..WAITING_MAX + 5 {
        assert_eq!(wire.asked(&["PUBLISH", "sensors.hall", &n.to_string()]).unwrap(), ":1");
    }
    let counted = async {
        while source.lost() < 5 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.expect("it is not counted");
    let mut bodies = vec![];
    while (bodies.len() as u64) < WAITING_MAX {
        let arrived = arrivals.next().await.unwrap();
        bodies.extend(arrived.messages.into_iter().map(|message| message.unwrap().body));
    }
    assert_eq!(source.lost(), 5);
    assert!(bodies.iter().enumerate().all(|(n, body)| body == n.to_string().as_bytes()), "in their order");
    // What nobody took is lost with who listened, as far as anybody knows: the last ones that were handed out too.
    wire.asked(&["PUBLISH", "sensors.hall", "x"]).unwrap();
    drop(arrivals);
    assert!(source.lost() > 5);
}
