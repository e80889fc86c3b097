//! The network fails between a host and its server: a request or its answer is lost, one direction is dead, all is slow. What
//! was acknowledged is there once, and what was not is there once at most.

use crate::harness::logs::{commit, message, shard};
use crate::harness::nats::{OwnServer, open_nats};
use crate::harness::nats_cluster::until;
use crate::harness::proxy::{Direction, Proxy};
use crate::harness::{PATIENCE, everything};
use sluicebox::commit::{CommitError, Committed, ShardCommit};
use sluicebox::log::nats::{NatsLog, Options};
use sluicebox::log::{Log, LogError};
use sluicebox::message::Offset;
use std::sync::Arc;
use std::time::Duration;

struct Stage {
    _server: OwnServer,
    proxy: Proxy,
    /// Behind the proxy.
    log: Arc<NatsLog>,
    /// Beside it: sees what is really there.
    beside: Arc<NatsLog>,
}

impl Stage {
    fn set() -> Self {
        let server = OwnServer::start();
        let proxy = Proxy::to(server.port());
        let log = open_nats(Options::new(proxy.url(), "t")).unwrap();
        let beside = open_nats(Options::new(server.url(), "t")).unwrap();
        Self { _server: server, proxy, log, beside }
    }

    async fn bodies(&self) -> Vec<String> {
        everything(&*self.beside).await.iter().map(|m| String::from_utf8(m.body.to_vec()).unwrap()).collect()
    }
}

/// Does not hang.
async fn soon<T>(task: tokio::task::JoinHandle<T>) -> T {
    tokio::time::timeout(PATIENCE, task).await.expect("it hangs").unwrap()
}

#[tokio::test]
async fn a_commit_an_append_and_a_claim_whose_answer_is_lost_are_there_once_and_known_to_be() {
    let stage = Stage::set();
    let id = shard("h", 0);
    let claim = stage.log.claim(id.clone(), Offset::START).await.unwrap();

    stage.proxy.hold(Direction::ToClient);
    let outputs = vec![message("a", "committed")];
    let (log, full) = (stage.log.clone(), ShardCommit { outputs, ..commit(&id, claim.term, 1) });
    let asked = tokio::spawn(async move { log.commit(full).await });
    until("it is there", async || stage.beside.status().await.unwrap()[0].commit_number == 1).await;
    stage.proxy.cut();
    stage.proxy.release();
    assert_eq!(soon(asked).await, Ok(Committed::default()));

    until("it is ready", async || stage.log.end().await.is_ok()).await;
    stage.proxy.hold(Direction::ToClient);
    let log = stage.log.clone();
    let asked = tokio::spawn(async move { log.append(vec![message("a", "appended")]).await });
    until("it is there", async || stage.bodies().await.len() == 2).await;
    stage.proxy.cut();
    stage.proxy.release();
    assert_eq!(soon(asked).await.unwrap().len(), 1);

    until("it is ready", async || stage.log.end().await.is_ok()).await;
    stage.proxy.hold(Direction::ToClient);
    let (log, of) = (stage.log.clone(), id.clone());
    let asked = tokio::spawn(async move { log.claim(of, Offset::START).await });
    until("it is there", async || stage.beside.status().await.unwrap()[0].term > claim.term).await;
    stage.proxy.cut();
    stage.proxy.release();
    let again = soon(asked).await.unwrap();
    assert!(again.term > claim.term);
    assert_eq!(again.record.commit_number, 1);
    assert_eq!(stage.log.commit(commit(&id, again.term, 2)).await, Ok(Committed::default()));
    assert_eq!(stage.bodies().await, ["committed", "appended"]);
}

#[tokio::test]
async fn requests_that_never_arrived_are_of_unknown_fate_and_may_be_sent_again() {
    let stage = Stage::set();
    let id = shard("h", 0);
    let claim = stage.log.claim(id.clone(), Offset::START).await.unwrap();
    stage.proxy.hold(Direction::ToServer);
    let outputs = || vec![message("a", "committed")];
    let (log, full) = (stage.log.clone(), ShardCommit { outputs: outputs(), ..commit(&id, claim.term, 1) });
    let committed = tokio::spawn(async move { log.commit(full).await });
    let log = stage.log.clone();
    let appended = tokio::spawn(async move { log.append(vec![message("a", "appended")]).await });
    // Both were sent, and held.
    tokio::task::yield_now().await;
    until("both wait", async || !committed.is_finished() && !appended.is_finished()).await;
    stage.proxy.cut();
    stage.proxy.release();
    match soon(appended).await {
        // Sent only when the connection was there again.
        Ok(_) | Err(LogError::Unknown { .. } | LogError::Unavailable { .. }) => {}
        Err(other) => panic!("{other}"),
    }
    match soon(committed).await {
        Ok(_) => {}
        Err(CommitError::Unknown { .. } | CommitError::Unavailable { .. }) => {
            // One way back: what the record says is the truth, and a new term fences whatever is still on its way.
            let again = stage.log.claim(id.clone(), Offset::START).await.unwrap();
            if again.record.commit_number == 0 {
                let full = ShardCommit { outputs: outputs(), ..commit(&id, again.term, 1) };
                assert_eq!(stage.log.commit(full).await, Ok(Committed::default()));
            }
        }
        Err(other) => panic!("{other:?}"),
    }
    let bodies = stage.bodies().await;
    assert_eq!(bodies.iter().filter(|body| *body == "committed").count(), 1, "{bodies:?}");
    assert!(bodies.iter().filter(|body| *body == "appended").count() <= 1, "{bodies:?}");
}

#[tokio::test]
async fn a_host_that_hears_nothing_or_is_not_heard_leaves_the_connection_and_goes_on_over_a_new_one() {
    for direction in [Direction::ToClient, Direction::ToServer] {
        let stage = Stage::set();
        let id = shard("h", 0);
        let claim = stage.log.claim(id.clone(), Offset::START).await.unwrap();
        stage.proxy.hold(direction);
        let log = stage.log.clone();
        let (full, of) = (commit(&id, claim.term, 1), id.clone());
        let asked = tokio::spawn(async move { (log.commit(full).await, log.claim(of, Offset::START).await) });
        until("it is not ready", async || stage.log.end().await.is_err()).await;
        // Meanwhile another host takes over; what is still on its way is fenced.
        let other = stage.beside.claim(id.clone(), Offset::START).await.unwrap();
        let number = other.record.commit_number + 1;
        let outputs = vec![message("a", "of the other")];
        let by_other = stage.beside.commit(ShardCommit { outputs, ..commit(&id, other.term, number) }).await;
        assert_eq!(by_other, Ok(Committed::default()));
        stage.proxy.release();
        stage.proxy.cut();
        let (committed, _) = soon(asked).await;
        assert_eq!(committed.is_ok(), number == 2, "{committed:?}");
        until("it is ready", async || stage.log.end().await.is_ok()).await;
        until("it knows all", async || stage.log.status().await.unwrap()[0].commit_number >= number).await;
        stage.log.append(vec![message("a", "after")]).await.unwrap();
        assert_eq!(stage.bodies().await, ["of the other", "after"]);
    }
}

#[tokio::test]
async fn a_slow_network_changes_nothing_but_the_time_it_takes() {
    let stage = Stage::set();
    for direction in [Direction::ToClient, Direction::ToServer] {
        stage.proxy.delay(direction, Duration::from_millis(20));
    }
    let shards = (0..4).map(|index| {
        let (log, id) = (stage.log.clone(), shard("h", index));
        tokio::spawn(async move {
            let claim = log.claim(id.clone(), Offset::START).await.unwrap();
            for number in 1..=10 {
                let outputs = vec![message("a", format!("{index}/{number}"))];
                log.commit(ShardCommit { outputs, ..commit(&id, claim.term, number) }).await.unwrap();
            }
        })
    });
    for shard in shards.collect::<Vec<_>>() {
        soon(shard).await;
    }
    let mut bodies = stage.bodies().await;
    assert_eq!(bodies.len(), 40);
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 40);
}
