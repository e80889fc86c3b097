//! Open messages: those that the record has, and those that only a slower shard had not taken up.

use super::Change;
use super::old::Old;
use crate::clock::Timestamp;
use crate::commit::{Head, HeadScope, Record};
use crate::log::{Log, LogError};
use crate::message::{Key, Offset};
use crate::routing::{Routed, Router, Routing};
use std::collections::HashSet;

/// As many as a shard takes up before it stops reading.
const OPEN_PER_SHARD_MAX: usize = 100_000;
/// Messages fetched at a time.
const FETCH_MAX: usize = 256;

/// The heads of all shards together.
pub(super) struct Open {
    heads: Vec<Head>,
    /// Messages beyond those, which are only counted.
    beyond: usize,
    /// Keys whose lane has a head: what came later of them waits behind it, and needs none.
    lanes: HashSet<Key>,
    slowest: Offset,
}

impl Open {
    pub(super) fn new(old: &Old) -> Self {
        let heads: Vec<Head> = old.records.iter().flat_map(|record| record.open.iter().cloned()).collect();
        let lanes = heads.iter().filter(|head| head.scope != HeadScope::Message).filter_map(|head| head.key.clone());
        Self { lanes: lanes.collect(), heads, beyond: 0, slowest: old.slowest() }
    }

    /// Messages after this are to be seen.
    pub(super) fn needs_after(&self) -> Offset {
        self.slowest
    }

    /// One that its shard had not taken up is open from now on: its lane's new shard has read further than that.
    pub(super) fn see(&mut self, old: &Old, change: &Change, routed: &Routed) {
        if routed.message.offset <= self.slowest || old.took_up(routed) {
            return;
        }
        if routed.key.as_ref().is_some_and(|key| self.lanes.contains(key)) && !change.is_of_key() {
            return;
        }
        if change.is_of_key() || self.heads.len() >= most(change.to.shards) {
            // It is refused, whatever comes.
            self.beyond += 1;
            return;
        }
        self.lanes.extend(routed.key.clone());
        let scope = if routed.key.is_some() { HeadScope::Lane } else { HeadScope::Message };
        self.heads.push(Head {
            offset: routed.message.offset,
            key: routed.key.clone(),
            attempt: 0,
            due: Timestamp(0),
            error: "".into(),
            digest: None,
            scope,
        });
    }

    pub(super) fn count(&self) -> usize {
        self.heads.len() + self.beyond
    }

    /// Puts each head into the record of the shard that its lane has now.
    pub(super) async fn fill(self, log: &dyn Log, change: &Change, records: &mut [Record]) -> Result<(), LogError> {
        let mut put = |head: Head, shard: u16| {
            if let Some(record) = records.get_mut(usize::from(shard)) {
                record.open.push(head);
            }
        };
        let mut alone = vec![];
        for head in self.heads {
            match &head.key {
                Some(key) => {
                    let shard = change.to.shard_of(key);
                    put(head, shard);
                }
                None => alone.push(head),
            }
        }
        // Of a message without a key its id says the shard, and that only the message knows.
        let router = Router::new([&change.to]);
        for heads in alone.chunks(FETCH_MAX) {
            let messages = log.fetch(heads.iter().map(|head| head.offset).collect()).await?;
            for (head, message) in heads.iter().zip(messages) {
                let shard = match message {
                    Some(message) => router.message(&message).to(0).shard(change.to.shards),
                    // Any will do: it becomes a dead letter that says so.
                    None => gone(head.offset, change.to.shards),
                };
                put(head.clone(), shard);
            }
        }
        records.iter_mut().for_each(|record| record.open.sort_by_key(|head| head.offset));
        Ok(())
    }
}

/// Most heads that these shards may have.
pub(super) fn most(shards: u16) -> usize {
    OPEN_PER_SHARD_MAX * usize::from(shards)
}

fn gone(offset: Offset, shards: u16) -> u16 {
    u16::try_from(Routing::lane_hash(None, offset) % u64::from(shards.max(1))).unwrap_or(0)
}
