//! What a shard wants read from the log and what is on its way: states, messages it no longer holds, the rest of lanes.

use crate::message::{Key, Offset};
use hashbrown::{HashMap, HashSet};
use std::collections::VecDeque;

/// Most lanes that wait for their state or message to be read.
const WANTED_MAX: usize = 1024;
/// Most messages fetched at a time: with bodies of 512 KiB that is 128 MiB.
const FETCHES_MAX: usize = 256;

#[derive(Debug, Default)]
pub struct Wanted {
    pub states: States,
    pub messages: Messages,
    pub scans: Scans,
}

impl Wanted {
    /// So much is awaited that nothing more should be taken up.
    pub fn is_full(&self) -> bool {
        let Messages { queue, under_way, .. } = &self.messages;
        self.states.keys.len() + under_way.len() + queue.len() >= WANTED_MAX
    }
}

/// Keys whose state is wanted, each once.
#[derive(Debug, Default)]
pub struct States {
    /// Queued or on their way.
    keys: HashSet<Key>,
    queue: VecDeque<Key>,
    under_way: usize,
}

impl States {
    pub fn want(&mut self, key: &Key) {
        if self.keys.insert(key.clone()) {
            self.queue.push_back(key.clone());
        }
    }

    /// The next keys to load, with at most `loads_max` on their way.
    pub fn take(&mut self, loads_max: usize) -> Vec<Key> {
        let room = loads_max.saturating_sub(self.under_way);
        let keys: Vec<Key> = self.queue.drain(..room.min(self.queue.len())).collect();
        self.under_way += keys.len();
        keys
    }

    pub fn came(&mut self, key: &Key) {
        self.under_way = self.under_way.saturating_sub(1);
        self.keys.remove(key);
    }
}

/// Who waits for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitsFor {
    /// A lane's first item.
    Lane(usize),
    /// One that gave up its place.
    Skipped,
}

/// Messages that are wanted back.
#[derive(Debug, Default)]
pub struct Messages {
    queue: VecDeque<(Offset, WaitsFor)>,
    under_way: HashMap<Offset, WaitsFor>,
    /// Skipped messages among them, each once.
    skipped: HashSet<Offset>,
}

impl Messages {
    pub fn want(&mut self, offset: Offset, lane: usize) {
        self.queue.push_back((offset, WaitsFor::Lane(lane)));
    }

    pub fn want_skipped(&mut self, offset: Offset) {
        if self.skipped.insert(offset) {
            self.queue.push_back((offset, WaitsFor::Skipped));
        }
    }

    pub fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// The next message to fetch.
    pub fn take(&mut self) -> Option<Offset> {
        while self.under_way.len() < FETCHES_MAX {
            let (offset, waits) = self.queue.pop_front()?;
            if self.under_way.insert(offset, waits).is_none() {
                return Some(offset);
            }
        }
        None
    }

    /// Who waited for the message that came.
    pub fn came(&mut self, offset: Offset) -> Option<WaitsFor> {
        let waits = self.under_way.remove(&offset)?;
        if waits == WaitsFor::Skipped {
            self.skipped.remove(&offset);
        }
        Some(waits)
    }
}

/// Lanes that hold few items and have more in the log. One scan at a time serves them all.
#[derive(Debug, Default)]
pub struct Scans {
    hungry: Vec<usize>,
    /// The lanes that the scan under way is for; empty when none is.
    under_way: Vec<usize>,
}

impl Scans {
    pub fn want(&mut self, lane: usize) {
        self.hungry.push(lane);
    }

    /// The lanes that wait, each once, unless a scan is under way.
    pub fn take_hungry(&mut self) -> Vec<usize> {
        if !self.under_way.is_empty() {
            return Vec::new();
        }
        let mut hungry = std::mem::take(&mut self.hungry);
        hungry.sort_unstable();
        hungry.dedup();
        hungry
    }

    /// A scan for these lanes begins.
    pub fn begin(&mut self, lanes: Vec<usize>) {
        self.under_way = lanes;
    }

    /// The scan was answered: the lanes it was for.
    pub fn end(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.under_way)
    }
}
