//! Which handlers get the messages of a topic, remembered by topic.

use crate::message::{Message, Offset};
use crate::routing::Routing;
use crate::topic::Topic;
use hashbrown::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A handler as the dispatcher sees it while it does not hold the lock.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) routing: Arc<Routing>,
    /// Some shard of it is on the tail; when none is, routing its messages would be wasted.
    active: Arc<AtomicBool>,
    /// How often any handler became active: one that did while a batch was routed is missing in what was routed.
    activations: Arc<AtomicU64>,
}

// Relaxed suffices: both are written under the lock on the positions, and what was read outside is checked under it.
impl Entry {
    pub(super) fn new(routing: Arc<Routing>, activations: Arc<AtomicU64>) -> Self {
        Self { routing, active: Arc::default(), activations }
    }

    pub(super) fn activate(&self) {
        self.active.store(true, Ordering::Relaxed);
        self.activations.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn deactivate(&self) {
        self.active.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }
}

/// All handlers at one time, by slot.
#[derive(Default)]
pub(super) struct Table {
    pub(super) entries: Vec<Option<Entry>>,
    /// No subscription changes after this offset, so that from here on the topic alone decides.
    pub(super) settled_after: Offset,
}

impl Table {
    pub(super) fn new(entries: Vec<Option<Entry>>) -> Self {
        let last_spans = entries.iter().flatten().filter_map(|entry| entry.routing.spans.last());
        let settled_after = last_spans.map(|span| span.after).max().unwrap_or_default();
        Self { entries, settled_after }
    }

    fn subscribers<'t>(&'t self, message: &'t Message) -> impl Iterator<Item = usize> + 't {
        let subscribes = |entry: &Option<Entry>| entry.as_ref().is_some_and(|entry| entry.routing.subscribes(message));
        self.entries.iter().enumerate().filter(move |(_, entry)| subscribes(entry)).map(|(slot, _)| slot)
    }
}

/// A table and what was learned from it.
pub(super) struct Subscribers {
    pub(super) table: Arc<Table>,
    topics_max: usize,
    /// Index into `lists`.
    topics: HashMap<Topic, usize>,
    lists: Vec<Box<[usize]>>,
    /// Of the last message that the topic alone did not decide.
    unsettled: Vec<usize>,
}

impl Subscribers {
    pub(super) fn new(table: Arc<Table>, topics_max: usize) -> Self {
        Self { table, topics_max: topics_max.max(1), topics: HashMap::new(), lists: vec![], unsettled: vec![] }
    }

    /// The slots of the handlers that get this message.
    pub(super) fn of(&mut self, message: &Message) -> &[usize] {
        if message.offset <= self.table.settled_after {
            self.unsettled.clear();
            self.unsettled.extend(self.table.subscribers(message));
            return &self.unsettled;
        }
        let index = match self.topics.get(&message.topic) {
            Some(index) => *index,
            None => self.learn(message),
        };
        &self.lists[index]
    }

    fn learn(&mut self, message: &Message) -> usize {
        if self.topics.len() >= self.topics_max {
            // Topics that matter are learned again at once; which ones those are is not worth the bookkeeping.
            self.topics.clear();
            self.lists.clear();
        }
        self.lists.push(self.table.subscribers(message).collect());
        self.topics.insert(message.topic.clone(), self.lists.len() - 1);
        self.lists.len() - 1
    }
}
