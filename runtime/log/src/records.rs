//! The records of shards in memory, in the form in which commits change them, for kinds of log that hold all of them.

use crate::contract::{Held, ShardStatus, Why};
use sluicebox_core::commit::{Control, Delayed, Head, Mark, Record, ShardCommit, Term};
use sluicebox_core::handler::{HandlerName, ShardId};
use sluicebox_core::message::Offset;
use sluicebox_core::routing::Routing;
use std::collections::{BTreeMap, VecDeque};

/// The record of one shard.
#[derive(Clone, Debug)]
pub(crate) struct ShardRecord {
    pub(crate) term: Term,
    pub(crate) commit_number: u64,
    pub(crate) read: Offset,
    pub(crate) open: BTreeMap<Offset, Head>,
    pub(crate) marks: VecDeque<Mark>,
    pub(crate) delayed: BTreeMap<u64, Delayed>,
    pub(crate) controlled: Offset,
    pub(crate) control: Control,
}

impl ShardRecord {
    /// Of a shard that was never claimed.
    pub(crate) fn new(term: Term, start: Offset, controlled: Offset) -> Self {
        Self::from_record(term, Record { read: start, controlled, ..Record::default() })
    }

    pub(crate) fn from_record(term: Term, record: Record) -> Self {
        let Record { commit_number, read, open, marks, delayed, controlled, control } = record;
        Self {
            term,
            commit_number,
            read,
            open: open.into_iter().map(|head| (head.offset, head)).collect(),
            marks: marks.into(),
            delayed: delayed.into_iter().map(|delayed| (delayed.number, delayed)).collect(),
            controlled,
            control,
        }
    }

    /// More of its lists.
    pub(crate) fn add(&mut self, record: Record) {
        self.open.extend(record.open.into_iter().map(|head| (head.offset, head)));
        self.marks.extend(record.marks);
        self.delayed.extend(record.delayed.into_iter().map(|delayed| (delayed.number, delayed)));
    }

    /// As a claim returns it.
    pub(crate) fn record(&self) -> Record {
        Record {
            commit_number: self.commit_number,
            read: self.read,
            open: self.open.values().cloned().collect(),
            marks: self.marks.iter().copied().collect(),
            delayed: self.delayed.values().cloned().collect(),
            controlled: self.controlled,
            control: self.control.clone(),
        }
    }

    pub(crate) fn status(&self, shard: &ShardId, dead: usize, behind: u64) -> ShardStatus {
        ShardStatus {
            shard: shard.clone(),
            term: self.term,
            commit_number: self.commit_number,
            read: self.read,
            open: self.open.len() as u64,
            marks: self.marks.len() as u64,
            dead: dead as u64,
            delayed: self.delayed.len() as u64,
            behind,
            control: self.control.clone(),
            controlled: self.controlled,
        }
    }

    pub(crate) fn apply(&mut self, commit: &ShardCommit) {
        self.commit_number = commit.number;
        self.read = commit.read;
        self.controlled = commit.controlled;
        if let Some(control) = &commit.control {
            self.control = control.clone();
        }
        commit.open_drop.iter().for_each(|offset| drop(self.open.remove(offset)));
        self.open.extend(commit.open_put.iter().map(|head| (head.offset, head.clone())));
        commit.delayed_drop.iter().for_each(|number| drop(self.delayed.remove(number)));
        self.delayed.extend(commit.delayed_put.iter().map(|delayed| (delayed.number, delayed.clone())));
        self.marks.extend(&commit.marks);
        while self.marks.len() > commit.marks_max || self.marks.front().is_some_and(|m| m.time < commit.marks_since) {
            self.marks.pop_front();
        }
    }
}

/// No shard of the handler needs a message up to here any more; `None` while a shard was never claimed.
pub(crate) fn settled<'r>(
    shards: impl Iterator<Item = (&'r ShardId, &'r ShardRecord)>,
    routing: &Routing,
) -> Option<Offset> {
    let mine = shards.filter(|(id, _)| id.handler == routing.handler);
    let settled = mine.map(|(_, shard)| {
        let open = shard.open.keys().next().map(|open| Offset(open.0.saturating_sub(1)));
        open.map_or(shard.read, |before_open| shard.read.min(before_open))
    });
    let settled: Vec<Offset> = settled.collect();
    settled.iter().min().copied().filter(|_| settled.len() >= usize::from(routing.shards))
}

/// The first offset that these handlers need, and who needs it.
pub(crate) fn floor<'r>(
    shards: impl Iterator<Item = (&'r ShardId, &'r ShardRecord)> + Clone,
    routings: &[Routing],
    holders: &[HandlerName],
) -> (Offset, Option<Held>) {
    let mut floor = (Offset::END, None);
    for handler in holders {
        let mut claimed = 0;
        for (id, shard) in shards.clone().filter(|(id, _)| id.handler == *handler) {
            claimed += 1;
            let after = Offset(shard.read.min(shard.controlled).0.saturating_add(1));
            let open = shard.open.keys().next().copied().filter(|open| *open < after);
            let needs = open.unwrap_or(after);
            if needs < floor.0 {
                let why = if open.is_some() { Why::Open } else { Why::Unread };
                let Control { paused, tripped, .. } = shard.control;
                floor = (needs, Some(Held { shard: id.clone(), why, paused, tripped }));
            }
        }
        let routing = routings.iter().find(|routing| routing.handler == *handler);
        if let Some(routing) = routing.filter(|routing| claimed < routing.shards) {
            let needs = Offset(routing.start().0.saturating_add(1));
            if needs < floor.0 {
                let shard = ShardId { handler: handler.clone(), index: claimed };
                floor = (needs, Some(Held { shard, why: Why::NeverStarted, paused: false, tripped: false }));
            }
        }
    }
    floor
}
