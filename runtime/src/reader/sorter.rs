//! Routes the messages of a batch and sorts them by shard. Plain calculation, done outside the lock.

use super::batch::ShardBatch;
use super::subscribers::{Audience, Subscribers};
use crate::message::Message;
use crate::routing::{Router, Routing};
use std::sync::Arc;

/// Sorts the messages that `routing` subscribes to by shard.
pub(super) fn sort(routing: &Routing, messages: &[Arc<Message>]) -> Vec<ShardBatch> {
    let shards = routing.shards.max(1);
    let router = Router::new([routing]);
    let mut batches: Vec<ShardBatch> = (0..shards).map(|_| ShardBatch::default()).collect();
    let mut subscriber = routing.subscriber();
    for message in messages.iter().filter(|message| subscriber.wants(message)) {
        let routed = router.message(message).to(0);
        batches[usize::from(routed.shard(shards))].push(routed);
    }
    batches
}

/// A batch of the tail, sorted by handler and shard. What it allocates serves the next batch too.
#[derive(Default)]
pub(super) struct Sorted {
    /// By slot, then by shard.
    handlers: Vec<Vec<ShardBatch>>,
    /// The slots with messages; handlers without any cost nothing.
    touched: Vec<usize>,
    /// Bytes of the whole batch.
    pub(super) bytes: usize,
}

impl Sorted {
    /// Sorts the messages of every handler that is active.
    pub(super) fn sort(&mut self, subscribers: &mut Subscribers, messages: &[Arc<Message>]) {
        for slot in self.touched.drain(..) {
            self.handlers[slot].clear();
        }
        self.bytes = 0;
        let table = subscribers.table.clone();
        self.handlers.resize_with(table.entries.len(), Vec::new);
        for message in messages {
            self.bytes += message.bytes();
            let Audience { slots, router } = subscribers.of(message);
            let mut routes = router.message(message);
            for (number, &slot) in slots.iter().enumerate() {
                let Some(entry) = table.entries[slot].as_ref().filter(|entry| entry.is_active()) else { continue };
                let shards = entry.routing.shards.max(1);
                let batches = &mut self.handlers[slot];
                if batches.is_empty() {
                    batches.resize_with(usize::from(shards), ShardBatch::default);
                    self.touched.push(slot);
                }
                let routed = routes.to(number);
                batches[usize::from(routed.shard(shards))].push(routed);
            }
        }
    }

    /// Calls `each` with the slot and batches of every handler with messages.
    pub(super) fn for_each(&mut self, mut each: impl FnMut(usize, &mut [ShardBatch])) {
        self.touched.iter().for_each(|&slot| each(slot, &mut self.handlers[slot]));
    }
}
