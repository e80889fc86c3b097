//! The record of one shard, in the form in which commits change it.

use sluicebox_core::commit::{Control, Delayed, Head, Mark, Record, ShardCommit, Term};
use sluicebox_core::message::Offset;
use std::collections::{BTreeMap, VecDeque};

#[derive(Clone, Debug)]
pub(in crate::nats) struct Shard {
    pub(in crate::nats) term: Term,
    pub(in crate::nats) commit_number: u64,
    /// The sequence of the last entry on its journal: what the next commit is fenced by.
    pub(in crate::nats) last: u64,
    pub(in crate::nats) read: Offset,
    pub(in crate::nats) open: BTreeMap<Offset, Head>,
    pub(in crate::nats) marks: VecDeque<Mark>,
    pub(in crate::nats) delayed: BTreeMap<u64, Delayed>,
    pub(in crate::nats) controlled: Offset,
    pub(in crate::nats) control: Control,
}

impl Shard {
    pub(super) fn new(start: Offset, controlled: Offset) -> Self {
        Self::from_record(Record { read: start, controlled, ..Record::default() })
    }

    /// Nobody has it yet.
    pub(in crate::nats) fn from_record(record: Record) -> Self {
        let Record { commit_number, read, open, marks, delayed, controlled, control } = record;
        Self {
            term: Term(0),
            commit_number,
            last: 0,
            read,
            open: open.into_iter().map(|head| (head.offset, head)).collect(),
            marks: marks.into(),
            delayed: delayed.into_iter().map(|delayed| (delayed.number, delayed)).collect(),
            controlled,
            control,
        }
    }

    pub(in crate::nats) fn record(&self) -> Record {
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

    /// Whether a commit of this term and number is the next one.
    pub(in crate::nats) fn takes(&self, term: Term, number: u64) -> bool {
        self.term == term && number == self.commit_number + 1
    }

    pub(super) fn apply(&mut self, commit: &ShardCommit) {
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
