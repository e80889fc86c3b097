//! What a shard wants read from the log and what is on its way: states, messages it no longer holds, the rest of lanes.

use crate::message::{Key, Offset};
use hashbrown::{HashMap, HashSet};
use std::collections::VecDeque;

/// Most lanes that wait for their state to be read.
const WANTED_MAX: usize = 1024;
/// Most messages fetched at a time; their bytes are bounded besides.
const FETCHES_MAX: usize = 256;

#[derive(Debug, Default)]
pub struct Wanted {
    pub states: States,
    pub messages: Messages,
    pub scans: Scans,
}

impl Wanted {
    /// Nothing is on its way, and nothing waits to be read.
    pub fn is_idle(&self) -> bool {
        let Messages { queue, under_way, .. } = &self.messages;
        self.states.is_idle() && queue.is_empty() && under_way.is_empty() && self.scans.is_idle()
    }

    /// So much is awaited that nothing more should be taken up. Messages that wait to be fetched are not counted: they
    /// are retries, of as many keys as may be open, and what is new does not wait for them.
    pub fn is_full(&self) -> bool {
        self.states.keys.len() >= WANTED_MAX
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

    /// None is wanted.
    pub fn is_idle(&self) -> bool {
        self.keys.is_empty()
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

/// A message that is wanted back.
#[derive(Clone, Copy, Debug)]
struct WantedMessage {
    offset: Offset,
    by: WaitsFor,
    /// Of the message, 0 when nobody knows; once it is on its way those that room is kept for.
    bytes: usize,
}

/// Messages that are wanted back.
#[derive(Debug, Default)]
pub struct Messages {
    queue: VecDeque<WantedMessage>,
    under_way: HashMap<Offset, WantedMessage>,
    /// Skipped messages among them, each once.
    skipped: HashSet<Offset>,
}

impl Messages {
    pub fn want(&mut self, offset: Offset, bytes: usize, lane: usize) {
        self.queue.push_back(WantedMessage { offset, by: WaitsFor::Lane(lane), bytes });
    }

    pub fn want_skipped(&mut self, offset: Offset, bytes: usize) {
        if self.skipped.insert(offset) {
            self.queue.push_back(WantedMessage { offset, by: WaitsFor::Skipped, bytes });
        }
    }

    /// None is on its way.
    pub fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    pub fn are_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The next message to fetch, if `room` keeps so many bytes free for it.
    pub fn take(&mut self, mut room: impl FnMut(usize) -> Option<usize>) -> Option<Offset> {
        while self.under_way.len() < FETCHES_MAX {
            let wanted = *self.queue.front()?;
            if let Some(other) = self.under_way.get_mut(&wanted.offset) {
                // Asked for twice: it comes once, for who asked last.
                other.by = wanted.by;
                self.queue.pop_front();
                continue;
            }
            let bytes = room(wanted.bytes)?;
            self.queue.pop_front();
            self.under_way.insert(wanted.offset, WantedMessage { bytes, ..wanted });
            return Some(wanted.offset);
        }
        None
    }

    /// Who waited for the message that came, and for how many bytes room was kept.
    pub fn came(&mut self, offset: Offset) -> Option<(WaitsFor, usize)> {
        let WantedMessage { by, bytes, .. } = self.under_way.remove(&offset)?;
        if by == WaitsFor::Skipped {
            self.skipped.remove(&offset);
        }
        Some((by, bytes))
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
    fn is_idle(&self) -> bool {
        self.hungry.is_empty() && self.under_way.is_empty()
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_states_are_on_their_way_at_a_time_than_allowed_and_each_once() {
        let keys: Vec<Key> = (0..6).map(|number| Key::parse(&format!("k{number}")).unwrap().unwrap()).collect();
        let mut states = States::default();
        keys.iter().chain(&keys).for_each(|key| states.want(key));
        assert_eq!(states.take(4), keys[..4]);
        assert_eq!(states.take(4), []);
        states.came(&keys[1]);
        assert_eq!(states.take(4), keys[4..5]);
        keys.iter().for_each(|key| states.came(key));
        assert!(states.is_idle());
    }
    #[test]
    fn no_more_messages_are_on_their_way_at_a_time_than_allowed() {
        let mut messages = Messages::default();
        (1..=1000).for_each(|offset| messages.want(Offset(offset), 1, 0));
        let take = |messages: &mut Messages| std::iter::from_fn(|| messages.take(Some)).count();
        assert_eq!((take(&mut messages), take(&mut messages)), (FETCHES_MAX, 0));
        assert_eq!(messages.came(Offset(1)), Some((WaitsFor::Lane(0), 1)));
        assert_eq!(take(&mut messages), 1);
    }
}
