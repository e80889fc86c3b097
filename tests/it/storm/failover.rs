//! A replica of Redis takes over that does not have all that was acknowledged: the one loss that no host can prevent. Each host
//! that had more ends and names what is lost; what the replica has goes on, each message once, and what is lost may be sent
//! again.

use super::checker::{Entry, check};
use super::hosts::Member;
use super::load::{Told, client, send};
use super::observer::{Observer, TOPICS};
use super::servers::Servers;
use super::{settled, still_settled};
use crate::harness::nats_cluster::until;
use crate::harness::proxy::{Direction, Proxy};
use crate::harness::redis::OwnServer;
use std::sync::Arc;

const KEYS: usize = 5;

/// A number of `INFO replication`.
fn number(server: &OwnServer, name: &str) -> Option<u64> {
    let info = server.ask(&["INFO", "replication"]);
    let (_, found) = info.split_once(name)?;
    found.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_had_more_than_the_replica_that_took_over_end_and_name_it_and_the_rest_goes_on_once() {
    let replica = OwnServer::start();
    let master = OwnServer::start();
    let between = Proxy::to(master.port());
    replica.ask(&["REPLICAOF", "127.0.0.1", &between.port().to_string()]);
    until("the replica is there", async || number(&master, "connected_slaves:") == Some(1)).await;
    let (told, servers) = (Arc::<Told>::default(), Servers::Redis(master));
    let mut hosts =
        vec![Member::start(0, &servers, told.clone()).await, Member::start(1, &servers, told.clone()).await];
    let observer = Observer::start(servers.open()).await;
    let client = client();
    for id in 0..20 {
        told.publish(&client, id, &format!("k{}", id % KEYS), &format!("kept/{id}")).await;
    }
    settled(&observer, &told).await;
    let Servers::Redis(mut master) = servers else { unreachable!("it is the master") };
    let upto = number(&master, "master_repl_offset:").unwrap();
    until("the replica has all", async || number(&master, ",offset=").is_some_and(|offset| offset >= upto)).await;

    // From here on the replica hears nothing, and the master acknowledges all the same.
    between.hold(Direction::ToClient);
    let lost: Vec<(String, String)> = (0..10).map(|id| (format!("k{}", id % KEYS), format!("lost/{id}"))).collect();
    for (at, (key, id)) in lost.iter().enumerate() {
        // Each host writes some, and has all of the other up to there.
        let url = &hosts[at % hosts.len()].process().url;
        until("it is acknowledged", async || send(&client, url, key, id).await).await;
    }
    until("the log has them", async || lost.iter().all(|(_, id)| observer.has(id))).await;
    master.kill();
    between.cut();
    assert!(replica.ask(&["REPLICAOF", "NO", "ONE"]).contains("OK"));
    for host in &mut hosts {
        host.is_led_to(replica.port());
        let said = host.until_failed().await;
        let named = said.lines().find(|line| line.contains("its end is lost")).unwrap_or_else(|| panic!("{said}"));
        println!("{named}");
    }
    drop(observer);

    // Whoever starts anew takes the replica's word for it.
    for host in &mut hosts {
        host.start_again().await;
    }
    let servers = Servers::Redis(replica);
    let observer = Observer::start(servers.open()).await;
    let kept = settled(&observer, &told).await;
    let is_lost = |entry: &&Entry| entry.topic == TOPICS[0] && entry.id.starts_with("lost/");
    assert_eq!(kept.entries.iter().filter(is_lost).count(), 0);
    for (at, (key, id)) in lost.iter().enumerate() {
        told.publish(&client, at, key, id).await;
    }
    let account = settled(&observer, &told).await;
    assert_eq!(check(&account), Ok(()));
    println!("{} kept, {} lost and sent again", 20, lost.len());
    for host in &mut hosts {
        host.stop().await;
        host.check_said();
    }
    still_settled(&observer, &told).await;
}
