//! What a shard needs read from the log (states, messages it no longer holds, the rest of a lane) and what it makes of
//! the answers.

use super::lanes::{Item, Phase};
use super::{Bounds, FETCHES_MAX, Needs, Scan, Shard};
use crate::clock::Timestamp;
use crate::effects::Entries;
use crate::message::{Key, Message, Offset};
use crate::routing::{Routed, Routing};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Shard {
    /// What must be read from the log. Empty most of the time.
    pub fn take_needs(&mut self) -> Needs {
        let room = self.state.loads_max().saturating_sub(self.loads_in_flight);
        let load: Vec<Key> = self.wanted_load.drain(..room.min(self.wanted_load.len())).collect();
        self.loads_in_flight += load.len();
        let mut needs = Needs { load, ..Needs::default() };
        // Not all at once: after a long stop every open head may be due. But one when nothing else moves: what is held in
        // memory may be waiting behind it.
        let stuck = self.fetching.is_empty() && self.ready.is_empty() && self.running == 0;
        while (self.held_bytes < self.setup.bounds.held_bytes_max || (stuck && needs.fetch.is_empty()))
            && self.fetching.len() < FETCHES_MAX
            && let Some((offset, lane)) = self.wanted_fetch.pop_front()
        {
            if self.fetching.insert(offset, lane).is_none() {
                needs.fetch.push(offset);
            }
        }
        if self.scanning.is_empty() && !self.hungry.is_empty() {
            needs.scan = self.next_scan();
        }
        needs.dead = self.next_dead_letters();
        needs
    }

    /// The range that the hungry lanes miss; they become the lanes the scan is for.
    fn next_scan(&mut self) -> Option<Scan> {
        let mut hungry = std::mem::take(&mut self.hungry);
        hungry.sort_unstable();
        hungry.dedup();
        hungry.retain(|&at| self.wants_fill(at));
        let mores = || hungry.iter().filter_map(|&at| self.lanes.get(at)?.more);
        let scan = Scan { after: mores().map(|more| more.after).min()?, upto: mores().map(|more| more.last).max()? };
        self.scanning = hungry;
        Some(scan)
    }

    /// Whether the lane is to be filled from the log now. One that still holds something asks again when that is settled
    /// and there is room; an empty one must be served.
    pub(super) fn wants_fill(&self, at: usize) -> bool {
        let Bounds { lane_items_max, held_bytes_max, .. } = self.setup.bounds;
        self.lanes.get(at).is_some_and(|lane| {
            lane.phase != Phase::Paused
                && lane.is_hungry(lane_items_max)
                && (lane.items.is_empty() || self.held_bytes < held_bytes_max)
        })
    }

    /// Takes loaded states.
    pub fn loaded(&mut self, states: Vec<(Key, Entries)>) {
        self.loads_in_flight = self.loads_in_flight.saturating_sub(states.len());
        // Before they come: what was not used for long makes room for them.
        self.state.trim(self.committed);
        for (key, entries) in states {
            self.loading.remove(&key);
            let lane = self.lanes.find(Routing::lane_hash(Some(&key), Offset::START), &key);
            self.state.loaded(key, entries);
            if let Some(at) = lane
                && self.lanes.get(at).is_some_and(|lane| lane.phase == Phase::Loading)
            {
                self.prepare(at);
            }
        }
    }

    /// Takes fetched messages, routed again; `None` where the log no longer has it.
    pub fn fetched(&mut self, messages: Vec<(Offset, Option<Routed>)>) {
        for (offset, routed) in messages {
            let Some(lane) = self.fetching.remove(&offset) else { continue };
            let mut routed =
                routed.unwrap_or_else(|| gone(offset, self.lanes.get(lane).and_then(|lane| lane.key.clone())));
            routed.hash_id();
            let bytes = routed.message.bytes();
            if lane == usize::MAX {
                self.skipped_wanted.remove(&offset);
                if let Some(item) = self.skipped.get_mut(&offset) {
                    if item.routed.is_none() {
                        item.routed = Some(routed);
                        self.held_bytes += bytes;
                    }
                    self.rejoin(offset);
                }
                continue;
            }
            let Some(waiting) = self.lanes.get_mut(lane) else { continue };
            let Some(item) = waiting.items.front_mut().filter(|item| item.offset == offset) else { continue };
            // It may have been asked for twice.
            if item.routed.is_none() {
                item.routed = Some(routed);
                self.held_bytes += bytes;
            }
            if waiting.phase == Phase::Fetching {
                self.prepare(lane);
            }
        }
    }

    /// Takes what a scan read: this shard's messages after `scan.after` and up to `upto`, routed again.
    pub fn scanned(&mut self, scan: Scan, messages: Vec<Routed>, upto: Offset) {
        let mut stalled: BTreeMap<usize, bool> = self.scanning.drain(..).map(|at| (at, false)).collect();
        let mut fed = Vec::new();
        for routed in messages {
            let offset = routed.message.offset;
            let Some(at) = routed.key.as_ref().and_then(|key| self.lanes.find(routed.hash, key)) else { continue };
            let Some(stalled) = stalled.get_mut(&at).filter(|stalled| !**stalled) else { continue };
            let Some(lane) = self.lanes.get_mut(at) else { continue };
            let Some(more) = lane.more.as_mut().filter(|more| more.after >= scan.after) else { continue };
            if offset <= more.after || offset > more.last || self.skipped.contains_key(&offset) {
                continue;
            }
            if lane.items.len() >= self.setup.bounds.lane_items_max
                || (self.held_bytes >= self.setup.bounds.held_bytes_max && !lane.items.is_empty())
            {
                // Its rest begins here: what follows in this scan would leave a gap.
                *stalled = true;
                continue;
            }
            (more.after, more.own) = (offset, offset);
            let item = Item::new(routed);
            self.held_bytes += item.held_bytes();
            if lane.items.is_empty() {
                fed.push(at);
            }
            lane.items.push_back(item);
        }
        // Only where the head moved: there may be many thousand lanes.
        fed.into_iter().for_each(|at| self.mark_dirty(at));
        for (at, stalled) in stalled {
            let Some(lane) = self.lanes.get_mut(at) else { continue };
            if let Some(more) = lane.more.as_mut().filter(|more| !stalled && more.after >= scan.after) {
                more.after = more.after.max(upto);
                if more.after >= more.last {
                    lane.more = None;
                }
            }
            // Nothing of it is left: its head must not stay in the record.
            let (phase, done) = (lane.phase, lane.is_done());
            self.flush |= done;
            if done {
                self.mark_dirty(at);
            }
            if phase == Phase::Empty {
                self.resume(at);
            } else if self.wants_fill(at) {
                self.hungry.push(at);
            }
        }
    }
}

/// Stands in for a message that is open in the record and no longer in the log.
fn gone(offset: Offset, key: Option<Key>) -> Routed {
    let topic = crate::topic::Topic::parse("_gone").expect("a valid topic");
    let new = crate::message::NewMessage::new(topic, "");
    let error = format!("the message at offset {offset} is no longer in the log");
    Routed {
        hash: Routing::lane_hash(key.as_ref(), offset),
        message: Arc::new(Message::from_new(new, offset, Timestamp(0))),
        key,
        id: None,
        unroutable: Some(crate::routing::Unroutable { kind: "gone", error }),
    }
}
