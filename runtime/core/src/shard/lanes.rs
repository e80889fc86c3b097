//! Lanes: the queue of each key inside a shard, and what is left of it in the log.
//!
//! A lane holds a bounded number of items. Beyond that it remembers only how far the rest reaches in the log and is
//! filled again from there, so a key that waits for ever costs a few hundred bytes whatever arrives for it.

use crate::clock::Timestamp;
use crate::commit::{Head, HeadScope};
use crate::handler::Digest;
use crate::message::{Key, Offset};
use crate::routing::Routed;
use hashbrown::HashTable;
use slab::Slab;
use std::collections::VecDeque;
use std::sync::Arc;

/// An unsettled message of a lane.
#[derive(Clone, Debug)]
pub struct Item {
    pub offset: Offset,
    /// `None`: only in the log, to be fetched before it can run.
    pub routed: Option<Routed>,
    /// Failed tries so far.
    pub attempt: u32,
    pub due: Timestamp,
    pub error: Arc<str>,
    pub digest: Option<Digest>,
    /// It gave up its place: its own head in the record, not the lane's.
    pub alone: bool,
}

impl Item {
    pub fn new(mut routed: Routed) -> Self {
        routed.hash_id();
        Self { routed: Some(routed.clone()), ..Self::in_log(routed.message.offset) }
    }

    /// An item that is only known by its offset.
    pub fn in_log(offset: Offset) -> Self {
        Self { offset, routed: None, attempt: 0, due: Timestamp(0), error: no_error(), digest: None, alone: false }
    }

    /// How the record names it.
    pub fn head(&self, key: Option<Key>, scope: HeadScope) -> Head {
        let Self { offset, attempt, due, error, digest, .. } = self;
        Head { offset: *offset, key, attempt: *attempt, due: *due, error: error.clone(), digest: *digest, scope }
    }

    /// Bytes it holds in memory.
    pub fn held_bytes(&self) -> usize {
        self.routed.as_ref().map_or(0, |routed| routed.message.bytes())
    }

    /// Whether the log alone could bring it back as it is.
    fn is_plain(&self) -> bool {
        self.attempt == 0 && !self.alone
    }
}

/// The shared empty error text: most items never fail.
fn no_error() -> Arc<str> {
    static EMPTY: std::sync::OnceLock<Arc<str>> = std::sync::OnceLock::new();
    EMPTY.get_or_init(|| "".into()).clone()
}

/// What a lane is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// In the ready queue.
    Ready,
    /// Its first item runs in a sandbox.
    Running,
    /// Until its first item is due.
    Waiting,
    /// For the state of its key.
    Loading,
    /// For its first item to be fetched from the log.
    Fetching,
    /// For a message of another lane with the same id.
    Twin,
    /// For an operator to let its key go on.
    Paused,
    /// It holds no item; if there is more in the log it waits for a scan, otherwise it goes with the next commit.
    Empty,
}

/// The part of a lane that is only in the log: its messages after `after` and up to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct More {
    pub after: Offset,
    pub last: Offset,
    /// The lane's own last message before: it names the lane in the record when no item does. `after` may be the place
    /// of another lane's message, which has a head of its own.
    pub own: Offset,
}

/// The queue of one key, or one message that stands alone.
#[derive(Debug)]
pub struct Lane {
    pub hash: u64,
    /// `None`: holds the one message with `single`.
    pub key: Option<Key>,
    single: Offset,
    /// The first is the next to run.
    pub items: VecDeque<Item>,
    pub more: Option<More>,
    pub phase: Phase,
    /// The offset of the lane's head in the record as of the last commit that was staged.
    pub recorded: Option<Offset>,
    /// In the list of lanes that changed since the last commit was staged.
    pub dirty: bool,
}

impl Lane {
    pub fn is_done(&self) -> bool {
        self.items.is_empty() && self.more.is_none()
    }

    /// Whether it should be filled again from the log now: not while its first item waits for a retry.
    pub fn is_hungry(&self, items_max: usize) -> bool {
        self.more.is_some()
            && self.items.len() <= items_max / 4
            && self.items.front().is_none_or(|item| item.attempt == 0 || item.alone)
    }

    /// The head that stands for the lane in the record; `None` when it is done.
    pub fn head(&self) -> Option<Head> {
        let scope = if self.key.is_some() { HeadScope::Lane } else { HeadScope::Message };
        if let Some(item) = self.items.iter().find(|item| !item.alone) {
            return Some(item.head(self.key.clone(), scope));
        }
        let more = self.more?;
        Some(Item::in_log(more.own).head(self.key.clone(), HeadScope::After))
    }

    /// Leaves a message in the log that came while the lane holds no more.
    pub fn leave(&mut self, offset: Offset) {
        match &mut self.more {
            Some(more) => more.last = more.last.max(offset),
            None => {
                let held = self.items.iter().filter(|item| !item.alone).map(|item| item.offset).max();
                // A lane without an own item that leaves one in the log: everything before `offset` is settled or alone,
                // and the previous offset cannot be named, so the item itself is held instead (the caller's bound).
                let Some(after) = held else { return self.items.push_back(Item::in_log(offset)) };
                self.more = Some(More { after, last: offset, own: after });
            }
        }
    }

    /// Drops what the log can bring back, all but the first item. Returns the bytes freed.
    pub fn shed(&mut self) -> usize {
        let before: usize = self.items.iter().map(Item::held_bytes).sum();
        if self.key.is_some()
            && self.items.len() > 1
            && self.items.iter().skip(1).all(Item::is_plain)
            && !self.items[0].alone
        {
            let last = self.items.back().map_or(Offset::START, |item| item.offset);
            self.items.truncate(1);
            let after = self.items[0].offset;
            self.more = Some(More { after, last: self.more.map_or(last, |more| more.last), own: after });
        }
        if let Some(first) = self.items.front_mut() {
            first.routed = None;
        }
        before - self.items.iter().map(Item::held_bytes).sum::<usize>()
    }
}

/// All lanes of a shard, found by key and addressed by a small number while they exist.
#[derive(Debug, Default)]
pub struct Lanes {
    lanes: Slab<Lane>,
    index: HashTable<usize>,
}

impl Lanes {
    pub fn len(&self) -> usize {
        self.lanes.len()
    }

    pub fn get(&self, lane: usize) -> Option<&Lane> {
        self.lanes.get(lane)
    }

    pub fn get_mut(&mut self, lane: usize) -> Option<&mut Lane> {
        self.lanes.get_mut(lane)
    }

    /// The lane of a key.
    pub fn find(&self, hash: u64, key: &Key) -> Option<usize> {
        self.index.find(spread(hash), |&lane| self.lanes[lane].key.as_ref() == Some(key)).copied()
    }

    /// The lane of a key, or the lane of the message at `offset` when there is no key; made if it is not there.
    pub fn of(&mut self, hash: u64, key: Option<&Key>, offset: Offset) -> usize {
        let found = self.index.find(spread(hash), |&lane| {
            let lane = &self.lanes[lane];
            lane.key.as_ref() == key && (key.is_some() || lane.single == offset)
        });
        if let Some(&lane) = found {
            return lane;
        }
        let lane = self.lanes.insert(Lane {
            hash,
            key: key.cloned(),
            single: offset,
            items: VecDeque::with_capacity(1),
            more: None,
            phase: Phase::Empty,
            recorded: None,
            dirty: false,
        });
        self.index.insert_unique(spread(hash), lane, |&lane| spread(self.lanes[lane].hash));
        lane
    }

    pub fn remove(&mut self, lane: usize) {
        if let Some(removed) = self.lanes.try_remove(lane)
            && let Ok(entry) = self.index.find_entry(spread(removed.hash), |&other| other == lane)
        {
            entry.remove();
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (usize, &Lane)> {
        self.lanes.iter()
    }
}

/// The table takes its buckets from the low bits, which all keys of a shard have in common.
fn spread(hash: u64) -> u64 {
    hash.rotate_left(32)
}
