//! Which handlers get the messages of a topic, remembered by topic.

use crate::message::{Message, Offset};
use crate::routing::{Router, Routing};
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
        let changes = entries.iter().flatten().flat_map(|Entry { routing, .. }| {
            // Dead letters return to the handler from where it was recorded on.
            routing.spans.last().map(|span| span.after).into_iter().chain([routing.recorded])
        });
        let settled_after = changes.max().unwrap_or_default();
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
    /// Index into `audiences`.
    topics: HashMap<Topic, usize>,
    /// Index into `audiences` by slots: many topics have the same one.
    known: HashMap<Box<[usize]>, usize>,
    audiences: Vec<Audience>,
}

/// The handlers that get the messages of some topics.
pub(super) struct Audience {
    pub(super) slots: Box<[usize]>,
    /// Numbers them as `slots` does.
    pub(super) router: Router,
}

impl Subscribers {
    pub(super) fn new(table: Arc<Table>, topics_max: usize) -> Self {
        let (topics, known) = (HashMap::new(), HashMap::new());
        Self { table, topics_max: topics_max.max(1), topics, known, audiences: vec![] }
    }

    /// The handlers that get this message.
    pub(super) fn of(&mut self, message: &Message) -> &Audience {
        let is_settled = message.offset > self.table.settled_after;
        let index = match self.topics.get(&message.topic).filter(|_| is_settled) {
            Some(index) => *index,
            None => self.learn(message, is_settled),
        };
        &self.audiences[index]
    }

    fn learn(&mut self, message: &Message, is_settled: bool) -> usize {
        if self.topics.len() >= self.topics_max || self.audiences.len() >= self.topics_max {
            // Topics that matter are learned again at once; which ones those are is not worth the bookkeeping.
            self.topics.clear();
            self.known.clear();
            self.audiences.clear();
        }
        let slots: Box<[usize]> = self.table.subscribers(message).collect();
        let index = match self.known.get(&slots) {
            Some(index) => *index,
            None => {
                let routing = |slot: &usize| self.table.entries[*slot].as_ref().map(|entry| &*entry.routing);
                let router = Router::new(slots.iter().filter_map(routing));
                self.known.insert(slots.clone(), self.audiences.len());
                self.audiences.push(Audience { slots, router });
                self.audiences.len() - 1
            }
        };
        if is_settled {
            self.topics.insert(message.topic.clone(), index);
        }
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::message::NewMessage;
    use crate::reader::tests::{routing, span};

    fn message(topic: &str, offset: u64) -> Message {
        Message::from_new(NewMessage::new(Topic::parse(topic).unwrap(), ""), Offset(offset), Timestamp(1))
    }

    /// Of one handler that subscribes to `t` up to the offset 2 and from 5 to 8.
    fn subscribers(topics_max: usize) -> Subscribers {
        let mut routing = routing("h", &["t"], 1);
        routing.spans.extend([span(Offset(2), &[]), span(Offset(5), &["t"]), span(Offset(8), &["other.*"])]);
        let entry = Entry::new(Arc::new(routing), Arc::default());
        Subscribers::new(Arc::new(Table::new(vec![Some(entry)])), topics_max)
    }

    #[test]
    fn each_message_goes_to_who_subscribed_at_its_place_however_often_that_changed() {
        let mut subscribers = subscribers(100);
        let wanted = (1..=12).filter(|offset| !subscribers.of(&message("t", *offset)).slots.is_empty());
        assert_eq!(wanted.collect::<Vec<_>>(), [1, 2, 6, 7, 8]);
    }

    #[test]
    fn topics_are_remembered_up_to_their_bound() {
        let mut subscribers = subscribers(4);
        for number in 0..100 {
            let other = !subscribers.of(&message(&format!("other.{number}"), 9 + number)).slots.is_empty();
            assert!(other);
            assert!(subscribers.topics.len() <= 4 && subscribers.audiences.len() <= 4);
            assert_eq!(subscribers.topics.len() as u64, number % 4 + 1, "after topic {number}");
        }
    }
}
