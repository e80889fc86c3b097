//! What a commit did. It hangs on the staged commit and comes out when that is durable: an aborted run counts nothing, and
//! nothing is told of it.

use crate::clock::Timestamp;
use crate::commit::DeadLetter;
use crate::message::WorkId;
use crate::pipeline::Settled;
use crate::routing::Routed;
use crate::topic::Topic;
use crate::trace::Trace;
use hashbrown::HashMap;
use std::sync::Arc;

/// To be counted and told once the commit is durable.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    pub settled: Settlements,
    /// The outcomes of messages that belong to a trace.
    pub traced: Vec<Traced>,
    /// Guest counters by name.
    pub counts: Vec<(Arc<str>, u64)>,
    pub marks_evicted: u64,
    pub dead: Vec<DeadLetter>,
    /// Dead letters that were retried or dropped.
    pub dead_removed: u64,
    /// The log's time of the oldest message among them.
    pub oldest: Option<Timestamp>,
}

/// An outcome that a trace should show.
#[derive(Clone, Debug, PartialEq)]
pub struct Traced {
    pub work: WorkId,
    pub trace: Trace,
    /// When the log took the message.
    pub time: Timestamp,
    pub outcome: Settled,
}

impl Report {
    pub(super) fn settled(&mut self, routed: &Routed, outcome: Settled) {
        let message = &routed.message;
        self.settled.add(&message.topic, outcome);
        self.oldest = Some(self.oldest.map_or(message.time, |oldest| oldest.min(message.time)));
        if let Some(trace) = Trace::of(&message.headers) {
            self.traced.push(Traced { work: routed.work(), trace, time: message.time, outcome });
        }
    }
}

/// How many messages of each topic had which outcome.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settlements {
    topics: HashMap<Topic, [u64; Settled::ALL.len()]>,
    all: usize,
}

impl Settlements {
    fn add(&mut self, topic: &Topic, outcome: Settled) {
        self.all += 1;
        match self.topics.get_mut(topic) {
            Some(counts) => counts[outcome as usize] += 1,
            None => self.topics.entry(topic.clone()).or_default()[outcome as usize] += 1,
        }
    }

    pub fn len(&self) -> usize {
        self.all
    }

    pub fn is_empty(&self) -> bool {
        self.all == 0
    }

    /// Each topic with its counts, in the order of [`Settled::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (&Topic, [u64; Settled::ALL.len()])> {
        self.topics.iter().map(|(topic, counts)| (topic, *counts))
    }
}
