//! The hosts on a log, as they tell each other: who is there, what each can run, and which shards each holds.
//!
//! A heartbeat is live and at most once: nothing of it is durable, and one that is lost is made good by the next. It never
//! decides who may commit (the term does), only who tries. How long ago a host was heard is measured by the clock of the one
//! that heard it, so clocks need not agree.

mod codec;
mod shard_set;

pub use self::codec::{decode, encode};
pub use self::shard_set::ShardSet;

use crate::frame::FrameError;
use sluicebox_core::clock::{self, Timestamp};
use sluicebox_core::handler::{HandlerName, ShardId};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Most hosts that are remembered; beyond it the one that was silent for the longest time goes.
pub const MEMBERS_MAX: usize = 256;
/// A host that was silent for so long is forgotten. Much more than any lease.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// A host's process: drawn at random when it starts, so a host that comes back is another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(pub u64);

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A handler on one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runs {
    pub handler: HandlerName,
    /// How many shards it has, as this host knows it. A handler with 0 shards the host only knows by name.
    pub shards: u16,
    /// The shards that the host holds: works on, is claiming, or has not finished with.
    pub held: ShardSet,
}

/// What a host says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    pub host: HostId,
    /// For people; several hosts may have one name.
    pub name: String,
    /// Where its HTTP face is.
    pub address: String,
    /// Of the program.
    pub version: String,
    /// What it understands: a format that came with a higher number it cannot read.
    pub features: u32,
    /// When the process started, by its own clock. For people.
    pub started: Timestamp,
    /// What it can run.
    pub runs: Vec<Runs>,
    /// It listens before it takes any shard: what others have they keep until it does not say so any more.
    pub joining: bool,
    /// It gives its shards up and takes none.
    pub leaving: bool,
    /// Rises with each of a host's heartbeats.
    pub sequence: u64,
}

impl Heartbeat {
    /// What it says of one handler.
    pub fn of(&self, handler: &HandlerName) -> Option<&Runs> {
        self.runs.iter().find(|runs| runs.handler == *handler)
    }

    /// Whether it says that it holds this shard.
    pub fn holds(&self, shard: &ShardId) -> bool {
        self.of(&shard.handler).is_some_and(|runs| runs.held.contains(shard.index))
    }
}

/// A host that was heard.
#[derive(Clone, Debug)]
pub struct Member {
    /// The newest.
    pub beat: Arc<Heartbeat>,
    /// When, by this host's clock.
    pub heard: Instant,
}

/// All hosts that were heard lately, this one included. Clones share it.
#[derive(Clone, Debug)]
pub struct Members(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    by_host: Mutex<HashMap<HostId, Member>>,
    /// Rises with each heartbeat that said something.
    heard: watch::Sender<u64>,
}

impl Default for Members {
    fn default() -> Self {
        Self(Arc::new(Inner { by_host: Mutex::default(), heard: watch::Sender::default() }))
    }
}

impl Members {
    /// Takes a heartbeat; one that is older than what is known says nothing.
    pub fn hear(&self, beat: Heartbeat) {
        self.hear_at(beat, clock::instant());
    }

    fn hear_at(&self, beat: Heartbeat, now: Instant) {
        {
            let mut by_host = self.by_host();
            by_host.retain(|_, member| now.saturating_duration_since(member.heard) < FORGOTTEN_AFTER);
            if by_host.get(&beat.host).is_some_and(|known| known.beat.sequence >= beat.sequence) {
                return;
            }
            if by_host.len() >= MEMBERS_MAX && !by_host.contains_key(&beat.host) {
                let silent = by_host.values().min_by_key(|member| member.heard).map(|member| member.beat.host);
                silent.map(|silent| by_host.remove(&silent));
            }
            by_host.insert(beat.host, Member { beat: Arc::new(beat), heard: now });
        }
        self.0.heard.send_modify(|count| *count += 1);
    }

    /// As [`Members::hear`], from bytes that came over a network.
    pub fn hear_encoded(&self, bytes: bytes::Bytes) -> Result<(), FrameError> {
        decode(bytes).map(|beat| self.hear(beat))
    }

    /// Everyone that was heard and is not forgotten, by id.
    pub fn list(&self) -> Vec<Member> {
        self.list_at(clock::instant())
    }

    fn list_at(&self, now: Instant) -> Vec<Member> {
        let is_known = |member: &&Member| now.saturating_duration_since(member.heard) < FORGOTTEN_AFTER;
        let mut members: Vec<Member> = self.by_host().values().filter(is_known).cloned().collect();
        members.sort_by_key(|member| member.beat.host);
        members
    }

    /// Changes with each heartbeat.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.heard.subscribe()
    }

    fn by_host(&self) -> MutexGuard<'_, HashMap<HostId, Member>> {
        self.0.by_host.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn beat(host: u64, sequence: u64) -> Heartbeat {
        Heartbeat {
            host: HostId(host),
            name: format!("host {host}"),
            address: "127.0.0.1:8080".into(),
            version: "0.1.0".into(),
            features: 1,
            started: Timestamp(7),
            runs: vec![],
            joining: false,
            leaving: false,
            sequence,
        }
    }

    fn hosts(members: &Members, now: Instant) -> Vec<u64> {
        members.list_at(now).iter().map(|member| member.beat.host.0).collect()
    }

    #[test]
    fn hosts_that_are_silent_are_forgotten_and_their_number_has_a_bound() {
        let (members, now) = (Members::default(), clock::instant());
        let at = |seconds| now + Duration::from_secs(seconds);
        for host in 0..MEMBERS_MAX as u64 + 10 {
            members.hear_at(beat(host, 1), at(host));
        }
        let listed = hosts(&members, at(300));
        assert_eq!((listed.len(), listed[0]), (MEMBERS_MAX, 10), "those that were silent for the longest time went");
        assert_eq!(hosts(&members, at(265) + FORGOTTEN_AFTER - Duration::from_secs(1)), [265]);
        assert!(hosts(&members, at(265) + FORGOTTEN_AFTER).is_empty());
    }

    #[test]
    fn a_heartbeat_that_was_overtaken_says_nothing() {
        let (members, now) = (Members::default(), clock::instant());
        let changes = members.changes();
        let later = now + Duration::from_secs(1);
        members.hear_at(beat(1, 5), now);
        members.hear_at(beat(1, 4), later);
        members.hear_at(beat(1, 5), later);
        let listed = members.list_at(later);
        assert_eq!((listed[0].beat.sequence, listed[0].heard, *changes.borrow()), (5, now, 1));
    }
}
