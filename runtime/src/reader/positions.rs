//! Where every shard is and where the tail is, under one lock: whoever compares the two sees both as they are.
//!
//! That is what makes joining the tail safe. The dispatcher moves the tail's position and hands its batch to all live
//! shards in one step, and a shard goes live only in a step that finds it at or past that position.

use super::Options;
use super::batch::ShardBatch;
use super::cursor::Cursor;
use super::inbox::{Capacity, Queue};
use super::recent::Recent;
use super::sorter::Sorted;
use super::subscribers::{Entry, Table};
use super::subscription::{Plan, Step, Subscription};
use crate::clock::Timestamp;
use crate::handler::{HandlerName, ShardId};
use crate::log::Batch;
use crate::memory::Lease;
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
    /// When the last message up to there came; `None` while it is unknown.
    tail_time: Option<Timestamp>,
    recent: Recent,
    /// By slot. The slots of forgotten handlers are used again.
    subscriptions: Vec<Option<Subscription>>,
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
            tail_time: None,
            options,
            subscriptions: vec![],
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
                let subscription =
                    self.subscriptions[slot].as_mut().expect("a name has a slot as long as it has a subscription");
                let tail = self.tail;
                subscription.reroute(routing, entry).into_iter().for_each(|cursor| end_delivery(cursor, tail));
                None
            }
            None => {
                let slot = self.subscriptions.iter().position(Option::is_none).unwrap_or(self.subscriptions.len());
                self.slots.insert(routing.handler.clone(), slot);
                self.subscriptions.resize_with(self.subscriptions.len().max(slot + 1), || None);
                self.subscriptions[slot] = Some(Subscription::new(routing, entry, wake.clone()));
                Some(slot)
            }
        };
        self.renew_table();
        new
    }

    pub(super) fn unroute(&mut self, handler: &HandlerName) {
        let Some(slot) = self.slots.remove(handler) else { return };
        if let Some(subscription) = self.subscriptions[slot].take() {
            subscription.wake.notify_one();
            subscription.cursors.into_iter().flatten().for_each(|cursor| end_delivery(cursor, self.tail));
        }
        self.renew_table();
    }

    pub(super) fn join(&mut self, shard: &ShardId, after: Offset) -> Arc<Queue> {
        let capacity = Capacity {
            messages_max: self.options.inbox_messages_max.max(1),
            bytes_max: self.options.inbox_bytes_max.max(1),
        };
        let tail = self.tail;
        let lease = Lease::of_inbox(self.options.waiting.clone());
        let Some(subscription) = self.subscription_of(shard) else { return Arc::new(Queue::ended(lease)) };
        let queue = Arc::new(Queue::new(capacity, lease, subscription.wake.clone()));
        if let Some(old) = subscription.join(usize::from(shard.index), Cursor::new(queue.clone(), after), tail) {
            // Whoever joins again starts over: what the earlier inbox holds comes once more, or is not wanted.
            old.queue.clear();
        }
        queue
    }

    pub(super) fn leave(&mut self, shard: &ShardId) {
        let tail = self.tail;
        if let Some(cursor) =
            self.subscription_of(shard).and_then(|subscription| subscription.leave(usize::from(shard.index)))
        {
            end_delivery(cursor, tail);
        }
    }

    /// Leaves unless the shard was joined again: then the queue is no longer its own.
    pub(super) fn leave_queue(&mut self, shard: &ShardId, queue: &Arc<Queue>) {
        let cursor = self
            .subscription_of(shard)
            .and_then(|subscription| subscription.cursors[usize::from(shard.index)].as_ref());
        if cursor.is_some_and(|cursor| Arc::ptr_eq(&cursor.queue, queue)) {
            self.leave(shard);
        }
    }

    pub(super) fn tell(&mut self, shard: &ShardId) {
        let tail = self.tail;
        if let Some(cursor) =
            self.subscription_of(shard).and_then(|subscription| subscription.cursors[usize::from(shard.index)].as_mut())
        {
            cursor.ask(cursor.position(tail));
        }
    }

    pub(super) fn passed(&mut self, shard: &ShardId) -> Option<Offset> {
        let tail = self.tail;
        let cursor = self.subscription_of(shard)?.cursors.get(usize::from(shard.index))?.as_ref()?;
        cursor.queue.is_empty().then(|| cursor.position(tail))
    }

    /// Only of a shard that is on the tail, for when a message in the log came is not known here.
    pub(super) fn passed_at(&mut self, shard: &ShardId) -> Option<(Offset, Timestamp)> {
        let (tail, time) = (self.tail?, self.tail_time?);
        let cursor = self.subscription_of(shard)?.cursors.get(usize::from(shard.index))?.as_ref()?;
        (cursor.live && cursor.queue.is_empty()).then_some((tail, time))
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
        self.tail_time = batch.messages.last().map(|message| message.time).or(self.tail_time);
        self.recent.push(batch, sorted.bytes);
        sorted.for_each(|slot, batches| {
            if let Some(subscription) = &mut self.subscriptions[slot] {
                subscription.dispatch(batches, before, upto);
            }
        });
        if before.is_none() {
            // Now that there is a tail to go live on.
            self.subscriptions.iter().flatten().for_each(|subscription| subscription.wake.notify_one());
        }
        self.sweep(messages);
    }

    /// The tail lost messages: every shard reads them from the log.
    pub(super) fn lag(&mut self) {
        let tail = self.tail.take();
        // Those that were behind already are woken too: one that had read to the end goes on from there.
        self.subscriptions.iter_mut().flatten().for_each(|subscription| subscription.drop_all_off(tail));
    }

    /// What the catch-up task of a handler, known by its `wake`, does next. `read_to_end`: there was nothing to read
    /// after that offset.
    pub(super) fn step(&mut self, slot: usize, wake: &Arc<Notify>, read_to_end: Option<Offset>) -> Step {
        match self.subscriptions.get_mut(slot) {
            Some(Some(subscription)) if Arc::ptr_eq(&subscription.wake, wake) => {
                subscription.step(self.tail, read_to_end, &self.recent, &self.options)
            }
            _ => Step::End,
        }
    }

    /// Delivers messages that a catch-up task routed; says whether that brought any shard further.
    pub(super) fn deliver(&mut self, slot: usize, plan: &Plan, batches: &mut [ShardBatch], upto: Offset) -> bool {
        match self.subscriptions.get_mut(slot) {
            Some(Some(subscription)) => {
                subscription.deliver(plan, batches, upto, self.tail, self.options.foreign_messages_max.max(1))
            }
            _ => true,
        }
    }

    /// Ends delivery to all handlers. None is taken up again.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.slots.clear();
        for subscription in self.subscriptions.drain(..).flatten() {
            subscription.wake.notify_one();
            subscription.cursors.into_iter().flatten().for_each(|cursor| end_delivery(cursor, self.tail));
        }
        self.table = Arc::default();
    }

    fn subscription_of(&mut self, shard: &ShardId) -> Option<&mut Subscription> {
        let slot = *self.slots.get(&shard.handler)?;
        self.subscriptions[slot].as_mut().filter(|subscription| usize::from(shard.index) < subscription.cursors.len())
    }

    /// Looks after idle shards: each handler once in `foreign_messages_max` messages, a few handlers at a time, so that
    /// a batch costs the same however many there are.
    fn sweep(&mut self, messages: usize) {
        let turn = self.options.foreign_messages_max.max(1);
        self.sweep_credit += messages * self.subscriptions.len();
        let handlers = (self.sweep_credit / turn).min(self.subscriptions.len());
        self.sweep_credit %= turn;
        for _ in 0..handlers {
            self.sweep_next = (self.sweep_next + 1) % self.subscriptions.len();
            if let Some(subscription) = &mut self.subscriptions[self.sweep_next] {
                subscription.sweep(self.tail);
            }
        }
    }

    fn renew_table(&mut self) {
        let entries = self
            .subscriptions
            .iter()
            .map(|subscription| subscription.as_ref().map(|subscription| subscription.entry.clone()))
            .collect();
        self.table = Arc::new(Table::new(entries));
    }
}

/// Ends a shard's inbox after what is in it and the position it reached.
fn end_delivery(mut cursor: Cursor, tail: Option<Offset>) {
    cursor.tell(cursor.position(tail));
    cursor.queue.end();
}
