//! What a shard needs read from the log (states, messages it no longer holds, the rest of a lane) and what it makes of
//! the answers.

use super::Shard;
use super::items::Item;
use super::lanes::Phase;
use super::wanted::WaitsFor;
use crate::clock::Timestamp;
use crate::commit::DeadQuery;
use crate::effects::Entries;
use crate::message::{Key, Message, Offset};
use crate::routing::{Routed, Routing};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a shard needs read from the log. Each need is handed out once and must be answered.
#[derive(Debug, Default)]
pub struct Needs {
    /// Keys whose state is wanted: answer with [`Shard::loaded`].
    pub load: Vec<Key>,
    /// Messages wanted back: answer with [`Shard::fetched`].
    pub fetch: Vec<Offset>,
    /// A range to read the handler's messages of: answer with [`Shard::scanned`].
    pub scan: Option<Scan>,
    /// Dead letters that an operator's command is about: answer with [`Shard::dead_found`].
    pub dead: Option<DeadQuery>,
}

/// Messages with `after < offset <= upto` are wanted, in order, as many as fit one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    pub after: Offset,
    pub upto: Offset,
    /// Most bytes of messages to read; one message at any rate.
    pub bytes_max: usize,
}

impl Shard {
    /// What must be read from the log. Empty most of the time.
    pub fn take_needs(&mut self) -> Needs {
        self.end_caution();
        let load = self.wanted.states.take(self.state.loads_max());
        let mut fetch = Vec::new();
        // Not all at once: after a long stop every open head may be due. But one when nothing else moves: what is held in
        // memory may be waiting behind it.
        let stuck = self.wanted.messages.is_idle() && self.runs.is_stuck();
        let held = &mut self.held;
        while let Some(offset) =
            self.wanted.messages.take(|bytes| held.expect_message(bytes, stuck && fetch.is_empty()))
        {
            fetch.push(offset);
        }
        Needs { load, fetch, scan: self.next_scan(), dead: self.next_dead_letters() }
    }

    /// The range that the hungry lanes miss; they become the lanes the scan is for.
    fn next_scan(&mut self) -> Option<Scan> {
        let mut hungry = self.wanted.scans.take_hungry();
        hungry.retain(|&at| self.wants_fill(at));
        let mores = || hungry.iter().filter_map(|&at| self.lanes.get(at)?.more);
        let (after, upto) = (mores().map(|more| more.after).min()?, mores().map(|more| more.last).max()?);
        let scan = Scan { after, upto, bytes_max: self.held.expect_scan() };
        self.wanted.scans.begin(hungry);
        Some(scan)
    }

    /// Whether the lane is to be filled from the log now. One that still holds something asks again when that is settled
    /// and there is room; an empty one must be served.
    pub(super) fn wants_fill(&self, at: usize) -> bool {
        self.lanes.get(at).is_some_and(|lane| {
            lane.phase != Phase::Paused
                && lane.is_hungry(self.setup.bounds.lane_items_max)
                && (lane.items.is_empty() || !self.held.is_tight())
        })
    }

    /// Takes loaded states.
    pub fn loaded(&mut self, states: Vec<(Key, Entries)>) {
        // Before they come: what was not used for long makes room for them.
        self.state.trim(self.commits.durable());
        for (key, entries) in states {
            self.wanted.states.came(&key);
            let hash = Routing::lane_hash(Some(&key), Offset::START);
            let lane = self.lanes.find(hash, &key);
            self.state.loaded(hash, key, entries);
            if let Some(at) = lane
                && self.lanes.get(at).is_some_and(|lane| lane.phase == Phase::Loading)
            {
                self.prepare(at);
                self.held.keeps_another();
            }
        }
    }

    /// Takes fetched messages, routed again; `None` where the log no longer has it.
    pub fn fetched(&mut self, messages: Vec<(Offset, Option<Routed>)>) {
        for (offset, routed) in messages {
            let Some((by, expected)) = self.wanted.messages.came(offset) else { continue };
            self.held.came(expected);
            match by {
                WaitsFor::Lane(at) => self.fetched_for_lane(at, offset, routed),
                WaitsFor::Skipped => {
                    if let Some(item) = self.skipped.get_mut(offset) {
                        self.held.take_back(item, || routed.unwrap_or_else(|| gone(offset, None)));
                        self.rejoin(offset);
                    }
                }
            }
        }
    }

    fn fetched_for_lane(&mut self, at: usize, offset: Offset, routed: Option<Routed>) {
        let Some(lane) = self.lanes.get_mut(at) else { return };
        let Some(item) = lane.items.front_mut().filter(|item| item.work == offset.into()) else { return };
        let key = &lane.key;
        self.held.take_back(item, || routed.unwrap_or_else(|| gone(offset, key.clone())));
        if lane.phase == Phase::Fetching {
            self.prepare(at);
        }
    }

    /// Takes what a scan read: this shard's messages after `scan.after` and up to `upto`, routed again.
    pub fn scanned(&mut self, scan: Scan, messages: Vec<Routed>, upto: Offset) {
        self.held.came(scan.bytes_max);
        let mut stalled: BTreeMap<usize, bool> = self.wanted.scans.end().into_iter().map(|at| (at, false)).collect();
        let mut fed = Vec::new();
        for routed in messages {
            let offset = routed.message.offset;
            let Some(at) = routed.key.as_ref().and_then(|key| self.lanes.find(routed.hash, key)) else { continue };
            let Some(stalled) = stalled.get_mut(&at).filter(|stalled| !**stalled) else { continue };
            let Some(lane) = self.lanes.get_mut(at) else { continue };
            let Some(more) = lane.more.as_mut().filter(|more| more.after >= scan.after) else { continue };
            if offset <= more.after || offset > more.last || self.skipped.contains(offset) {
                continue;
            }
            if lane.items.len() >= self.setup.bounds.lane_items_max || (self.held.is_tight() && !lane.items.is_empty())
            {
                // Its rest begins here: what follows in this scan would leave a gap.
                *stalled = true;
                continue;
            }
            (more.after, more.own) = (offset, offset);
            let item = Item::new(routed);
            self.held.take(&item);
            if lane.items.is_empty() {
                fed.push(at);
            }
            lane.items.push_back(item);
        }
        // Only where the head moved: there may be many thousand lanes.
        fed.into_iter().for_each(|at| self.lanes.touch(at));
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
            if done {
                self.position.flush();
                self.lanes.touch(at);
            }
            if phase == Phase::Empty {
                self.resume(at);
            } else if self.wants_fill(at) {
                self.wanted.scans.want(at);
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
        deaths: None,
    }
}
