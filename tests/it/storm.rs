//! Three hosts as processes under a load by key, while hosts, servers and the networks between them fail: a history that none of
//! them tells shows each message once and in order.
//!
//! On NATS three servers keep three copies, on Redis one server syncs before it answers. Every host reaches every server through
//! a proxy of its own. A fault lasts until something that was published after it came out of each key, so whoever is away is
//! made up for by others. `SLUICEBOX_FAULTS` sets how many faults there are, `SLUICEBOX_SEED` which.

mod checker;
mod deploy;
mod failover;
mod faults;
mod hosts;
mod lies;
mod load;
mod observer;
mod servers;
mod upgrade;

use crate::harness::PATIENCE;
use crate::harness::nats_cluster::until;
use checker::{Account, check};
use faults::{Fault, ON_NATS, ON_REDIS, plan};
use hosts::{HOSTS, Member};
use load::{Load, Told};
use observer::Observer;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use servers::Servers;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const FAULTS: usize = 20;

struct Storm {
    servers: Servers,
    hosts: Vec<Member>,
    told: Arc<Told>,
    observer: Observer,
    random: StdRng,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_among_three_hosts_and_three_nats_servers_each_message_comes_out_once_and_in_order() {
    storm(Servers::nats().await, &ON_NATS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_among_three_hosts_and_a_redis_that_syncs_each_message_comes_out_once_and_in_order() {
    storm(Servers::redis(), &ON_REDIS).await;
}

async fn storm(servers: Servers, kinds: &[(Fault, usize)]) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = number("SLUICEBOX_SEED").unwrap_or_else(rand::random);
    println!("SLUICEBOX_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let faults = plan(kinds, number("SLUICEBOX_FAULTS").map_or(FAULTS, |faults| faults as usize), &mut random);
    let told = Arc::<Told>::default();
    let mut hosts = vec![];
    for at in 0..HOSTS {
        hosts.push(Member::start(at, &servers, told.clone()).await);
    }
    let observer = Observer::start(servers.open()).await;
    let load = Load::start(told.clone());
    until("something of each key came out", async || observer.has_all()).await;
    let mut storm = Storm { servers, hosts, told, observer, random };
    let mut struck: BTreeMap<Fault, usize> = BTreeMap::new();
    for (at, fault) in faults.into_iter().enumerate() {
        let began = Instant::now();
        println!("fault {}: {fault:?}", at + 1);
        storm.strike(fault).await;
        println!("fault {}: over after {:.1} s", at + 1, began.elapsed().as_secs_f64());
        *struck.entry(fault).or_default() += 1;
    }
    load.end().await;
    let account = settled(&storm.observer, &storm.told).await;
    let mut taken_over = 0;
    for host in &mut storm.hosts {
        taken_over += host.taken_over().await;
        host.stop().await;
        host.check_said();
    }
    still_settled(&storm.observer, &storm.told).await;
    let is_silent = |fault: &Fault| matches!(fault, Fault::HostKilled | Fault::HostAsleep);
    assert!(taken_over > 0 || !struck.keys().any(is_silent), "nobody took over from a host that was silent");
    println!(
        "{} messages, {} doubts, {} faults {struck:?}, {taken_over} shards taken over, longest pause {:.1} s: 0 lost, 0 twice, \
         0 out of order",
        account.published.values().map(Vec::len).sum::<usize>(),
        storm.told.doubts(),
        struck.values().sum::<usize>(),
        storm.observer.longest_pause().as_secs_f64()
    );
    lies::check_each_is_caught(&account);
}

/// Nothing came out late, when all hosts have stopped.
async fn still_settled(observer: &Observer, told: &Told) {
    assert_eq!(check(&observer.account(told).await), Ok(()));
}

/// What there is when everything that was published came out, and nothing more.
async fn settled(observer: &Observer, told: &Told) -> Account {
    let mut found = Err("nobody looked".to_owned());
    let mut account = Account::default();
    let looks = async {
        let mut pace = tokio::time::interval(Duration::from_millis(200));
        while found.is_err() {
            pace.tick().await;
            account = observer.account(told).await;
            found = check(&account);
        }
    };
    drop(tokio::time::timeout(PATIENCE, looks).await);
    assert_eq!(found, Ok(()));
    account
}
