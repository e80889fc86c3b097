//! Lanes: the queue of each key inside a shard, and what is left of it in the log.
//!
//! A lane holds a bounded number of items. Beyond that it remembers only how far the rest reaches in the log and is
//! filled again from there, so a key that waits for ever costs a few hundred bytes whatever arrives for it.

use super::items::{Item, Items};
use crate::commit::{Head, HeadScope};
use crate::message::{Key, Offset, WorkId};
use crate::routing::Routing;
use hashbrown::HashTable;
use slab::Slab;

/// Most changed lanes that room is made for before there are any.
const ROOM_MAX: usize = 1024;

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
    single: WorkId,
    /// The first is the next to run.
    pub items: Items,
    pub more: Option<More>,
    pub phase: Phase,
    /// The offset of the lane's head in the record as of the last commit that was staged.
    pub recorded: Option<Offset>,
    /// In the list of lanes that changed since the last commit was staged.
    changed: bool,
}

impl Lane {
    pub fn is_done(&self) -> bool {
        self.items.is_empty() && self.more.is_none()
    }

    /// It waits long and gave its memory back: what comes after stays in the log too.
    pub fn is_shed(&self) -> bool {
        matches!(self.phase, Phase::Waiting | Phase::Paused)
            && self.items.front().is_some_and(|item| item.routed.is_none())
    }

    /// Whether it should be filled again from the log now: not while its first item waits for a retry.
    pub fn is_hungry(&self, items_max: usize) -> bool {
        self.more.is_some()
            && self.items.len() <= items_max / 4
            && self.items.front().is_none_or(|item| !item.has_failed() || item.alone)
    }

    /// The head that stands for the lane in the record; `None` when it is done.
    pub fn head(&self) -> Option<Head> {
        let scope = if self.key.is_some() { HeadScope::Lane } else { HeadScope::Message };
        let own = self.items.iter().find(|item| !item.alone && item.work.offset().is_some());
        match own {
            Some(item) => item.head(self.key.clone(), scope),
            None => Item::in_log(self.more?.own).head(self.key.clone(), HeadScope::After),
        }
    }

    /// Leaves a message in the log that came while the lane holds no more.
    pub fn leave(&mut self, offset: Offset) {
        match &mut self.more {
            Some(more) => more.last = more.last.max(offset),
            None => {
                let held = self.items.iter().filter(|item| !item.alone).filter_map(|item| item.work.offset()).max();
                // A lane without an own item that leaves one in the log: everything before `offset` is settled or alone,
                // and the previous offset cannot be named, so the item itself is held instead (the caller's bound).
                let Some(after) = held else { return self.items.push_back(Item::in_log(offset)) };
                self.more = Some(More { after, last: offset, own: after });
            }
        }
    }

    /// Gives the memory of all its messages back, but of what is not in the log. Returns the bytes freed.
    pub fn shed(&mut self) -> usize {
        let behind = self.shed_behind();
        behind + self.items.front_mut().map_or(0, Item::shed)
    }

    /// Gives back what waits behind the first item. Returns the bytes freed.
    pub fn shed_behind(&mut self) -> usize {
        let Some(first) = self.items.front() else { return 0 };
        let own = first.work.offset().filter(|_| !first.alone && self.key.is_some());
        let is_plain = self.items.iter().skip(1).all(Item::is_plain);
        if let (Some(first), true, true) = (own, is_plain, self.items.len() > 1) {
            let last = self.items.back().and_then(|item| item.work.offset()).unwrap_or(first);
            let bytes = self.items.iter().skip(1).map(Item::held_bytes).sum();
            self.items.keep_first();
            self.more = Some(More { after: first, last: self.more.map_or(last, |more| more.last), own: first });
            return bytes;
        }
        // They keep their place in the queue: the log alone cannot say what became of them.
        self.items.rest_mut().map(Item::shed).sum()
    }

    /// Gives back what is of no use now: nothing of a message that runs or is about to.
    pub fn shed_idle(&mut self) -> usize {
        match self.phase {
            Phase::Waiting | Phase::Paused => self.shed(),
            _ => self.shed_behind(),
        }
    }
}

/// All lanes of a shard, found by key and addressed by a small number while they exist.
#[derive(Debug, Default)]
pub struct Lanes {
    lanes: Slab<Lane>,
    index: HashTable<usize>,
    /// Lanes whose head may differ from the record's.
    changed: Vec<usize>,
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

    /// The lane of a key, or the lane of this work alone when there is no key; made if it is not there.
    pub fn of(&mut self, hash: u64, key: Option<&Key>, work: WorkId) -> usize {
        // Many messages that stand alone may have one id, and so one hash: each has a place of its own in the table.
        let hash = if key.is_some() { hash } else { Routing::lane_hash(None, Offset(work.number())) };
        let found = self.index.find(spread(hash), |&lane| {
            let lane = &self.lanes[lane];
            lane.key.as_ref() == key && (key.is_some() || lane.single == work)
        });
        if let Some(&lane) = found {
            return lane;
        }
        let lane = self.lanes.insert(Lane {
            hash,
            key: key.cloned(),
            single: work,
            items: Items::default(),
            more: None,
            phase: Phase::Empty,
            recorded: None,
            changed: false,
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

    /// The lane's head may have changed.
    pub fn touch(&mut self, lane: usize) {
        if let Some(touched) = self.lanes.get_mut(lane)
            && !touched.changed
        {
            touched.changed = true;
            self.changed.push(lane);
        }
    }

    /// Those that were touched since the last commit was staged.
    pub fn changed(&self) -> impl Iterator<Item = &Lane> {
        self.changed.iter().filter_map(|&lane| self.lanes.get(lane))
    }

    pub fn have_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// The lanes that were touched since the last call.
    pub fn take_changed(&mut self) -> Vec<usize> {
        // Room for as many again, within bounds: otherwise each commit begins with a list that grows step by step.
        let room = Vec::with_capacity(self.changed.len().min(ROOM_MAX));
        let mut changed = std::mem::replace(&mut self.changed, room);
        // A lane that went and came again under the same number is listed twice.
        changed.retain(|&lane| self.lanes.get_mut(lane).is_some_and(|lane| std::mem::take(&mut lane.changed)));
        changed
    }

    pub fn iter(&self) -> impl Iterator<Item = (usize, &Lane)> {
        self.lanes.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut Lane)> {
        self.lanes.iter_mut()
    }
}

/// What a table of keys takes the hash of a key as: its buckets come from the low bits, which all keys of a shard have in
/// common.
pub fn spread(hash: u64) -> u64 {
    hash.rotate_left(32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::message::{Message, NewMessage};
    use crate::routing::Routed;
    use crate::topic::Topic;
    use std::sync::Arc;

    /// A lane that holds the messages with these offsets, and the bytes of one.
    fn lane_of(lanes: &mut Lanes, offsets: std::ops::RangeInclusive<u64>) -> (&mut Lane, usize) {
        let key = Key::parse("k").unwrap();
        let hash = Routing::lane_hash(key.as_ref(), Offset::START);
        let at = lanes.of(hash, key.as_ref(), Offset(1).into());
        let lane = lanes.get_mut(at).unwrap();
        for offset in offsets {
            let new = NewMessage::new(Topic::parse("in").unwrap(), "body");
            let message = Arc::new(Message::from_new(new, Offset(offset), Timestamp(1)));
            let key = key.clone();
            lane.items.push_back(Item::new(Routed { message, hash, key, id: None, unroutable: None, deaths: None }));
        }
        let one = lane.items.front().unwrap().held_bytes();
        (lane, one)
    }

    #[test]
    fn what_waits_behind_the_first_is_left_in_the_log_however_much_it_is() {
        for last in [2, 3, 9] {
            let mut lanes = Lanes::default();
            let (lane, one) = lane_of(&mut lanes, 1..=last);
            assert_eq!(lane.shed_behind(), (last as usize - 1) * one);
            let more = More { after: Offset(1), last: Offset(last), own: Offset(1) };
            assert_eq!((lane.items.len(), lane.more), (1, Some(more)));
            assert_eq!(lane.shed_behind(), 0, "it is given back once");
            assert_eq!(lane.more, Some(more));
        }
    }

    #[test]
    fn a_lane_with_one_message_leaves_nothing_in_the_log() {
        let mut lanes = Lanes::default();
        let (lane, _) = lane_of(&mut lanes, 1..=1);
        assert_eq!((lane.shed_behind(), lane.more), (0, None));
    }

    #[test]
    fn behind_one_that_failed_all_keep_their_places() {
        let mut lanes = Lanes::default();
        let (lane, one) = lane_of(&mut lanes, 1..=4);
        lane.items.rest_mut().nth(1).unwrap().attempt = 2;
        assert_eq!(lane.shed_behind(), 3 * one);
        assert_eq!((lane.items.len(), lane.more), (4, None));
    }

    #[test]
    fn who_waits_gives_back_all_its_memory_and_who_runs_or_is_about_to_keeps_its_message() {
        for phase in [Phase::Waiting, Phase::Paused, Phase::Ready, Phase::Running] {
            let mut lanes = Lanes::default();
            let (lane, one) = lane_of(&mut lanes, 1..=3);
            lane.phase = phase;
            let kept = if matches!(phase, Phase::Waiting | Phase::Paused) { 0 } else { one };
            assert_eq!(lane.shed_idle(), 3 * one - kept, "{phase:?}");
            assert_eq!(lane.items.iter().map(Item::held_bytes).sum::<usize>(), kept, "{phase:?}");
        }
    }

    #[test]
    fn keys_of_one_shard_do_not_share_a_bucket() {
        let keys = (0..8_000).map(|number| Key::parse(&format!("k{number}")).unwrap());
        let hashes = keys.map(|key| Routing::lane_hash(key.as_ref(), Offset::START)).filter(|hash| hash % 8 == 3);
        let hashes: Vec<u64> = hashes.collect();
        let buckets: std::collections::BTreeSet<u64> = hashes.iter().map(|hash| spread(*hash) % 1024).collect();
        // At random 1,000 keys take some 640 of 1,024 buckets; with their last three bits in common 128 at most.
        assert!(hashes.len() > 800 && buckets.len() > 400, "{} in {}", hashes.len(), buckets.len());
    }
}
