//! Where every shard is and where the tail is, under one lock: whoever compares the two sees both as they are.
//!
//! That is what makes joining the tail safe. The dispatcher moves the tail's position and hands its batch to all live
//! shards in one step, and a shard goes live only in a step that finds it at or past that position.

use super::Options;
use super::feed::{Feed, Plan, Step};
use super::inbox::{Bounds, Queue};
use super::part::Part;
use super::recent::Recent;
use super::seat::Seat;
use super::sorter::Sorted;
use super::subscribers::{Entry, Table};
use crate::handler::{HandlerName, ShardId};
use crate::log::Batch;
use crate::message::Offset;
use crate::routing::Routing;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

/// All handlers, their shards, and the tail.
pub(super) struct Positions {
    options: Options,
    /// Everything up to here was dispatched. `None` while it is unknown: from a lag to the next batch.
    tail: Option<Offset>,
    recent: Recent,
    /// By slot. The slots of forgotten handlers are used again.
    feeds: Vec<Option<Feed>>,
    slots: HashMap<HandlerName, usize>,
    table: Arc<Table>,
    activations: Arc<AtomicU64>,
    /// The slot that is swept next.
    sweep_next: usize,
    /// Messages dispatched times handlers, since a handler was swept.
    sweep_credit: usize,
    closed: bool,
}

impl Positions {
    pub(super) fn new(tail: Offset, options: Options) -> Self {
        Self {
            recent: Recent::new(tail, options.recent_messages_max, options.recent_bytes_max),
            tail: Some(tail),
            options,
            feeds: vec![],
            slots: HashMap::new(),
            table: Arc::default(),
            activations: Arc::default(),
            sweep_next: 0,
            sweep_credit: 0,
            closed: false,
        }
    }

    /// Sets the routing of a handler. Returns the slot of one that is new and needs a catch-up task, woken by `wake`.
    pub(super) fn route(&mut self, routing: Arc<Routing>, wake: &Arc<Notify>) -> Option<usize> {
        if self.closed {
            return None;
        }
        let entry = Entry::new(routing.clone(), self.activations.clone());
        let new = match self.slots.get(&routing.handler).copied() {
            Some(slot) => {
                let feed = self.feeds[slot].as_mut().expect("a name has a slot as long as it has a feed");
                let tail = self.tail;
                feed.reroute(routing, entry).into_iter().for_each(|seat| part_with(seat, tail));
                None
            }
            None => {
                let slot = self.feeds.iter().position(Option::is_none).unwrap_or(self.feeds.len());
                self.slots.insert(routing.handler.clone(), slot);
                self.feeds.resize_with(self.feeds.len().max(slot + 1), || None);
                self.feeds[slot] = Some(Feed::new(routing, entry, wake.clone()));
                Some(slot)
            }
        };
        self.renew_table();
        new
    }

    pub(super) fn unroute(&mut self, handler: &HandlerName) {
        let Some(slot) = self.slots.remove(handler) else { return };
        if let Some(feed) = self.feeds[slot].take() {
            feed.wake.notify_one();
            feed.seats.into_iter().flatten().for_each(|seat| part_with(seat, self.tail));
        }
        self.renew_table();
    }

    pub(super) fn join(&mut self, shard: &ShardId, after: Offset) -> Arc<Queue> {
        let bounds = Bounds {
            messages_max: self.options.inbox_messages_max.max(1),
            bytes_max: self.options.inbox_bytes_max.max(1),
        };
        let tail = self.tail;
        let Some(feed) = self.feed_of(shard) else { return Arc::new(Queue::ended()) };
        let queue = Arc::new(Queue::new(bounds, feed.wake.clone()));
        if let Some(old) = feed.seat(usize::from(shard.index), Seat::new(queue.clone(), after), tail) {
            // Whoever joins again starts over: what the earlier inbox holds comes once more, or is not wanted.
            old.queue.clear();
        }
        queue
    }

    pub(super) fn leave(&mut self, shard: &ShardId) {
        let tail = self.tail;
        if let Some(seat) = self.feed_of(shard).and_then(|feed| feed.unseat(usize::from(shard.index))) {
            part_with(seat, tail);
        }
    }

    /// Leaves unless the shard was joined again: then the queue is no longer its own.
    pub(super) fn leave_queue(&mut self, shard: &ShardId, queue: &Arc<Queue>) {
        let seated = self.feed_of(shard).and_then(|feed| feed.seats[usize::from(shard.index)].as_ref());
        if seated.is_some_and(|seat| Arc::ptr_eq(&seat.queue, queue)) {
            self.leave(shard);
        }
    }

    pub(super) fn tell(&mut self, shard: &ShardId) {
        let tail = self.tail;
        if let Some(seat) = self.feed_of(shard).and_then(|feed| feed.seats[usize::from(shard.index)].as_mut()) {
            seat.ask(seat.position(tail));
        }
    }

    pub(super) fn passed(&mut self, shard: &ShardId) -> Option<Offset> {
        let tail = self.tail;
        let seat = self.feed_of(shard)?.seats.get(usize::from(shard.index))?.as_ref()?;
        seat.queue.is_empty().then(|| seat.position(tail))
    }

    /// What the dispatcher routes by.
    pub(super) fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// How often a handler got its first shard on the tail.
    pub(super) fn activations(&self) -> u64 {
        self.activations.load(Ordering::Relaxed)
    }

    /// Delivers a batch of the tail that was sorted by the table and at the activations of now.
    pub(super) fn dispatch(&mut self, sorted: &mut Sorted, batch: Arc<Batch>) {
        let (before, upto, messages) = (self.tail, batch.upto, batch.messages.len());
        if before.is_none() {
            // Messages are missing somewhere before the first one.
            self.recent.restart(batch.messages.first().map_or(upto, |message| message.offset));
        }
        self.tail = Some(upto);
        self.recent.push(batch, sorted.bytes);
        sorted.for_each(|slot, parts| {
            if let Some(feed) = &mut self.feeds[slot] {
                feed.dispatch(parts, before, upto);
            }
        });
        if before.is_none() {
            // Now that there is a tail to go live on.
            self.feeds.iter().flatten().for_each(|feed| feed.wake.notify_one());
        }
        self.sweep(messages);
    }

    /// The tail lost messages: every shard reads them from the log.
    pub(super) fn lag(&mut self) {
        let tail = self.tail.take();
        // Those that were behind already are woken too: one that had read to the end goes on from there.
        self.feeds.iter_mut().flatten().for_each(|feed| feed.drop_all_off(tail));
    }

    /// What the catch-up task of a handler, known by its `wake`, does next. `read_to_end`: there was nothing to read
    /// after that offset.
    pub(super) fn step(&mut self, slot: usize, wake: &Arc<Notify>, read_to_end: Option<Offset>) -> Step {
        match self.feeds.get_mut(slot) {
            Some(Some(feed)) if Arc::ptr_eq(&feed.wake, wake) => {
                feed.step(self.tail, read_to_end, &self.recent, &self.options)
            }
            _ => Step::End,
        }
    }

    /// Delivers messages that a catch-up task routed; says whether that brought any shard further.
    pub(super) fn deliver(&mut self, slot: usize, plan: &Plan, parts: &mut [Part], upto: Offset) -> bool {
        match self.feeds.get_mut(slot) {
            Some(Some(feed)) => feed.deliver(plan, parts, upto, self.tail, self.options.foreign_messages_max.max(1)),
            _ => true,
        }
    }

    /// Parts with all handlers. None is taken up again.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.slots.clear();
        for feed in self.feeds.drain(..).flatten() {
            feed.wake.notify_one();
            feed.seats.into_iter().flatten().for_each(|seat| part_with(seat, self.tail));
        }
        self.table = Arc::default();
    }

    fn feed_of(&mut self, shard: &ShardId) -> Option<&mut Feed> {
        let slot = *self.slots.get(&shard.handler)?;
        self.feeds[slot].as_mut().filter(|feed| usize::from(shard.index) < feed.seats.len())
    }

    /// Looks after idle shards: each handler once in `foreign_messages_max` messages, a few handlers at a time, so that
    /// a batch costs the same however many there are.
    fn sweep(&mut self, messages: usize) {
        let turn = self.options.foreign_messages_max.max(1);
        self.sweep_credit += messages * self.feeds.len();
        let handlers = (self.sweep_credit / turn).min(self.feeds.len());
        self.sweep_credit %= turn;
        for _ in 0..handlers {
            self.sweep_next = (self.sweep_next + 1) % self.feeds.len();
            if let Some(feed) = &mut self.feeds[self.sweep_next] {
                feed.sweep(self.tail);
            }
        }
    }

    fn renew_table(&mut self) {
        let entries = self.feeds.iter().map(|feed| feed.as_ref().map(|feed| feed.entry.clone())).collect();
        self.table = Arc::new(Table::new(entries));
    }
}

/// Ends a shard's inbox after what is in it and the position it reached.
fn part_with(mut seat: Seat, tail: Option<Offset>) {
    seat.tell(seat.position(tail));
    seat.queue.end();
}
