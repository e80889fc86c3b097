//! Heartbeats: heard by everyone on the log, and nothing of them in it.

use crate::harness::PATIENCE;
use crate::harness::logs::{message, shard};
use crate::harness::nats::{OwnServer, fresh_namespace, open_nats, options};
use sluicebox::clock::{self, Timestamp};
use sluicebox::handler::HandlerName;
use sluicebox::log::nats::{NatsLog, Options};
use sluicebox::log::{Heartbeat, HostId, Log, LogError, Member, Runs, ShardSet};
use std::sync::Arc;

fn beat(host: u64, sequence: u64) -> Heartbeat {
    let runs = |name: &str, shards, held: &[u16]| {
        let held: ShardSet = held.iter().copied().collect();
        Runs { handler: HandlerName::parse(name).unwrap(), shards, held }
    };
    Heartbeat {
        host: HostId(host),
        name: "first of three".into(),
        address: "127.0.0.1:8080".into(),
        version: "0.1.0".into(),
        features: 3,
        started: Timestamp(1_700_000_000_000),
        runs: vec![runs("order", 8, &[0, 3, 7]), runs("notify", 300, &[299]), runs("_delay", 1, &[])],
        joining: true,
        leaving: true,
        sequence,
    }
}

/// Waits until this host was heard with this number or a later one.
async fn heard(log: &dyn Log, host: u64, sequence: u64) -> Member {
    let mut changes = log.members().changes();
    let wait = async {
        loop {
            changes.mark_unchanged();
            let is_it = |member: &Member| member.beat.host == HostId(host) && member.beat.sequence >= sequence;
            if let Some(member) = log.members().list().into_iter().find(is_it) {
                return member;
            }
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the host is not heard")
}

on_every_kind! {
    async fn a_host_is_heard_as_it_says_and_dated_by_who_hears_it(log) {
        let before = clock::instant();
        log.beat(beat(1, 1)).await.unwrap();
        let member = heard(&*log, 1, 1).await;
        assert_eq!(*member.beat, beat(1, 1));
        assert!(before <= member.heard && member.heard <= clock::instant());
        assert!(member.beat.holds(&shard("order", 3)) && !member.beat.holds(&shard("order", 1)));
        assert!(!member.beat.holds(&shard("audit", 3)));
    }

    async fn a_heartbeat_that_comes_late_does_not_take_the_place_of_a_newer_one(log) {
        for sequence in [2, 1] {
            log.beat(beat(1, sequence)).await.unwrap();
        }
        log.beat(beat(2, 1)).await.unwrap();
        heard(&*log, 2, 1).await;
        let sequences: Vec<u64> = log.members().list().iter().map(|member| member.beat.sequence).collect();
        assert_eq!(sequences, [2, 1]);
    }

    async fn heartbeats_are_no_part_of_the_log(log) {
        let end = log.append(vec![message("a", "1")]).await.unwrap()[0];
        let mut tail = log.tail().await.unwrap();
        for sequence in 1..=100 {
            log.beat(beat(1, sequence)).await.unwrap();
        }
        heard(&*log, 1, 100).await;
        assert_eq!(log.end().await.unwrap(), end);
        let next = log.append(vec![message("a", "2")]).await.unwrap();
        assert_eq!(tail.next().await.unwrap().unwrap().messages[0].offset, next[0]);
    }
}

/// Beats until the other host hears it: one that is sent while a connection is made anew is lost.
async fn beat_until_heard(from: &NatsLog, by: &dyn Log, host: u64) {
    let beats = async {
        let mut pace = tokio::time::interval(std::time::Duration::from_millis(20));
        for sequence in 1.. {
            pace.tick().await;
            // Refused while there is no connection.
            let _ = from.beat(beat(host, sequence)).await;
        }
    };
    tokio::select! {
        () = beats => {}
        _ = heard(by, host, 1) => {}
    }
}

#[tokio::test]
async fn hosts_on_one_server_hear_each_other_and_no_other_namespace_and_nothing_is_stored() {
    let [one, other] = [fresh_namespace(), fresh_namespace()];
    let [a, b, c] = [&one, &one, &other].map(|namespace| open_nats(options(namespace)).unwrap());
    let entries = a.entries_kept().await.unwrap();
    a.beat(beat(1, 1)).await.unwrap();
    heard(&*b, 1, 1).await;
    b.beat(beat(2, 1)).await.unwrap();
    heard(&*a, 2, 1).await;
    heard(&*b, 2, 1).await;
    c.beat(beat(3, 1)).await.unwrap();
    heard(&*c, 3, 1).await;
    let hosts = |log: &Arc<NatsLog>| log.members().list().iter().map(|member| member.beat.host.0).collect::<Vec<_>>();
    assert_eq!([hosts(&a), hosts(&b), hosts(&c)], [vec![1, 2], vec![1, 2], vec![3]]);
    assert_eq!(a.entries_kept().await.unwrap(), entries);
}

#[tokio::test]
async fn hosts_hear_each_other_again_after_the_server_was_away() {
    let mut server = OwnServer::start();
    let [a, b] = [(); 2].map(|()| open_nats(Options::new(server.url(), "t")).unwrap());
    beat_until_heard(&a, &*b, 1).await;
    server.kill();
    let refused = async {
        let mut pace = tokio::time::interval(std::time::Duration::from_millis(20));
        loop {
            pace.tick().await;
            if let Err(error) = a.beat(beat(1, u64::MAX)).await {
                return error;
            }
        }
    };
    let refused = tokio::time::timeout(PATIENCE, refused).await.unwrap();
    assert!(matches!(refused, LogError::Unavailable { .. }), "{refused}");
    server.start_again();
    beat_until_heard(&a, &*b, 3).await;
    beat_until_heard(&b, &*a, 4).await;
}
