//! Hosts of other versions beside ours, as far as others hear of them: heartbeats that are written here by hand, one with no
//! more than the first fields, one with fields that nobody knows. What they hold is theirs until they give it up or are silent,
//! what may be written is what all of them understand, and each message is handled once.

use super::hosts::{HOSTS, Member};
use super::load::{Load, Told};
use super::observer::Observer;
use super::servers::{NAMESPACE, Servers};
use super::{settled, still_settled};
use crate::harness::nats_cluster::until;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Nobody is silent for so long unless it ended, however busy the machine is.
const LEASE: Duration = Duration::from_secs(10);
/// Of the two handlers of the chain.
const SHARDS: [(&str, u64); 2] = [("first", 6), ("second", 5)];

/// What another host says of itself.
#[derive(Clone, Copy)]
struct Other {
    host: u64,
    features: u64,
    /// All shards, or none.
    holds: bool,
    leaves: bool,
    /// It says things that only a later version understands.
    is_later: bool,
}

/// Seven bits a byte, the lowest first; the highest bit says that there are more.
fn number(mut number: u64) -> Vec<u8> {
    let mut bytes = vec![];
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
    bytes
}

fn with_length(bytes: &[u8]) -> Vec<u8> {
    [number(bytes.len() as u64), bytes.to_vec()].concat()
}

fn field(tag: u64, value: &[u8]) -> Vec<u8> {
    [number(tag), with_length(value)].concat()
}

impl Other {
    fn beat(&self, sequence: u64) -> Vec<u8> {
        let mut beat = vec![0xF6, 1];
        beat.extend(field(1, &number(self.host)));
        beat.extend(field(5, &number(self.features)));
        for (name, shards) in SHARDS.iter().filter(|_| !self.leaves) {
            let held: &[u8] = if self.holds { &[(1 << shards) - 1] } else { &[] };
            let mut runs = [with_length(name.as_bytes()), number(*shards), with_length(held)].concat();
            if self.is_later {
                runs.extend(with_length(b"and more of it"));
            }
            beat.extend(field(7, &runs));
        }
        if self.leaves {
            beat.extend(field(8, &[]));
        }
        if self.is_later {
            beat.extend(field(1000, b"of the future"));
        }
        beat.extend(field(9, &number(sequence)));
        beat
    }
}

/// A host that is heard for as long as this lives.
struct Heard {
    says: watch::Sender<Other>,
    _task: AbortOnDropHandle<()>,
}

impl Heard {
    async fn start(url: String, other: Other) -> Self {
        let says = watch::Sender::new(other);
        let client = async_nats::connect(url).await.unwrap();
        let mut said = says.subscribe();
        let task = tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(100));
            for sequence in 1.. {
                tokio::select! {
                    _ = pace.tick() => {}
                    changed = said.changed() => if changed.is_err() { return },
                }
                let other = *said.borrow_and_update();
                let beat = other.beat(sequence);
                client.publish(format!("sb.{NAMESPACE}.members"), beat.into()).await.unwrap();
                if other.leaves {
                    return client.flush().await.unwrap();
                }
            }
        });
        Self { says, _task: AbortOnDropHandle::new(task) }
    }
}

async fn held(host: &Member) -> u64 {
    host.process().metric("shards_held").await
}

/// Waits until all hosts together hold so many shards, and think that so much is understood by all.
async fn until_hold(hosts: &[Member], shards: impl Fn(u64) -> bool, features: u64) {
    until("the shards are where they should be", async || {
        let mut sum = 0;
        for host in hosts {
            sum += held(host).await;
            if host.process().metric("features").await != features {
                return false;
            }
        }
        shards(sum)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_of_an_older_and_of_a_later_version_keep_what_they_hold_and_nothing_is_handled_twice() {
    let all: u64 = SHARDS.iter().map(|(_, shards)| shards).sum();
    let servers = Servers::one_nats();
    let url = format!("nats://127.0.0.1:{}", servers.ports()[0]);
    let old = Other { host: 7, features: 0, holds: true, leaves: false, is_later: false };
    let older = Heard::start(url.clone(), old).await;
    let told = Arc::<Told>::default();
    let mut hosts = vec![];
    for at in 0..HOSTS - 1 {
        hosts.push(Member::start_leased(at, &servers, told.clone(), LEASE).await);
    }
    let observer = Observer::start(servers.open()).await;
    let load = Load::start(told.clone());
    until("some are published", async || told.published().values().map(Vec::len).sum::<usize>() > 100).await;
    until_hold(&hosts, |held| held == 0, 0).await;
    assert_eq!(observer.came_out(), 0, "the older host has all the shards");

    // It is updated: it gives its shards up in order, and comes back as a later version than ours.
    older.says.send_replace(Other { leaves: true, ..old });
    until_hold(&hosts, |held| held == all, 1).await;
    let published = told.published();
    until("each key goes on", async || observer.each_goes_on_after(&published)).await;
    let new = Other { host: 8, features: 2, holds: false, leaves: false, is_later: true };
    let later = Heard::start(url, new).await;
    until_hold(&hosts, |held| held < all, 1).await;

    // It ends without a word, and what was meant for it is taken over.
    drop((older, later));
    until_hold(&hosts, |held| held == all, 1).await;
    let published = told.published();
    until("each key goes on", async || observer.each_goes_on_after(&published)).await;
    load.end().await;
    let account = settled(&observer, &told).await;
    println!("{} messages, each once and in order", account.published.values().map(Vec::len).sum::<usize>());
    for host in &mut hosts {
        assert_eq!(host.process().metric(r#"shard_commits_total{result="fenced"}"#).await, 0);
        host.stop().await;
        host.check_said();
    }
    still_settled(&observer, &told).await;
}
