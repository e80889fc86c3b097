//! A shard's inbox: filled by the reader, which never waits for it, and emptied by the shard.

use super::State;
use super::batch::ShardBatch;
use crate::handler::ShardId;
use crate::memory::Lease;
use crate::message::Offset;
use crate::routing::Routed;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::Notify;

/// A delivery smaller than this takes up what comes next, so that a shard that is behind gets few large ones.
const MERGE_MESSAGES_MAX: usize = 256;

/// Messages of one shard in offset order, perhaps none, and how far they reach.
#[derive(Debug)]
pub struct Delivery {
    pub messages: Vec<Routed>,
    /// Of all of them.
    pub bytes: usize,
    /// Everything for this shard up to here has been delivered.
    pub upto: Offset,
}

/// The receiving end of one join. Dropping it leaves.
pub struct Inbox {
    queue: Arc<Queue>,
    /// The last answer of `passed`.
    passed: Offset,
    shard: ShardId,
    reader: Arc<State>,
}

impl Inbox {
    pub(super) fn new(queue: Arc<Queue>, shard: ShardId, reader: Arc<State>) -> Self {
        Self { queue, passed: Offset::START, shard, reader }
    }

    /// The next delivery; `None` when the shard left, was joined again, or the reader stopped. Safe to cancel.
    pub async fn next(&mut self) -> Option<Delivery> {
        loop {
            // A delivery that comes after the look leaves a permit behind, so the wait ends at once.
            match self.queue.take() {
                Ok(delivery) => return Some(delivery),
                Err(Empty::Ended) => return None,
                Err(Empty::ForNow) => self.queue.filled.notified().await,
            }
        }
    }

    /// How far the shard is without what waits in its inbox, when that is news: up to there nothing is for it but what it
    /// took. For a shard that takes nothing up. Safe to cancel.
    /// With `or_filled` it is `None` as soon as messages wait.
    pub async fn passed(&mut self, or_filled: bool) -> Option<Offset> {
        loop {
            let passed = self.queue.passed();
            if passed > self.passed {
                self.passed = passed;
                return Some(passed);
            }
            if or_filled && !self.is_empty() {
                return None;
            }
            // As in `next`; a permit that is used up here leaves its delivery in the queue, where `next` looks first.
            self.queue.filled.notified().await;
        }
    }

    /// As [`Inbox::passed`], for who does not wait: how far, whether that is news or not.
    pub fn passed_now(&self) -> Offset {
        self.queue.passed()
    }

    /// Whether no messages wait in it.
    pub fn is_empty(&self) -> bool {
        self.queue.held().messages == 0
    }

    /// Leaves, and throws away what waits in it: who joins again after what it took gets it once more.
    pub fn leave(&mut self) {
        self.reader.positions().leave_queue(&self.shard, &self.queue);
        self.queue.clear();
    }

    /// The next delivery if there is one now.
    pub fn try_next(&mut self) -> Option<Delivery> {
        self.queue.take().ok()
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.reader.positions().leave_queue(&self.shard, &self.queue);
    }
}

/// Most messages and bytes of an inbox.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capacity {
    pub(super) messages_max: usize,
    pub(super) bytes_max: usize,
}

/// The deliveries between reader and shard.
pub(super) struct Queue {
    held: Mutex<Held>,
    capacity: Capacity,
    /// Wakes the shard.
    filled: Notify,
    /// Wakes the handler's catch-up task.
    drained: Arc<Notify>,
}

struct Held {
    /// At most one has no messages, so the bound on messages bounds the list.
    deliveries: VecDeque<Delivery>,
    messages: usize,
    bytes: usize,
    /// Everything for the shard up to here was taken out.
    passed: Offset,
    /// What it takes of the host's memory.
    lease: Lease,
    /// Bytes of the message that did not fit; 0 when all did.
    refused_bytes: usize,
    /// The catch-up task waits for room.
    awaited: bool,
    ended: bool,
}

enum Empty {
    ForNow,
    Ended,
}

impl Queue {
    pub(super) fn new(capacity: Capacity, lease: Lease, drained: Arc<Notify>) -> Self {
        Self { held: Mutex::new(Held::new(lease)), capacity, filled: Notify::new(), drained }
    }

    /// A queue that ended before anything was in it.
    pub(super) fn ended(lease: Lease) -> Self {
        let queue = Self::new(Capacity { messages_max: 1, bytes_max: 1 }, lease, Arc::default());
        queue.end();
        queue
    }

    /// Takes as many messages out of `batch` as fit, at least one when it is empty, and says how far it got. When all
    /// fit that is `upto`; when some did, the last of them; when none did, `None`.
    /// Everything for the shard up to `from` was offered before.
    pub(super) fn offer(&self, batch: &mut ShardBatch, from: Offset, upto: Offset) -> Option<Offset> {
        let mut held = self.held();
        if held.messages == 0 {
            held.passed = held.passed.max(from);
        }
        let fitting = held.fitting(batch, self.capacity);
        let refused_bytes = batch.bytes_of(fitting);
        held.refused_bytes = refused_bytes.unwrap_or(0);
        // Set while the queue is locked: room that comes right after this must not go unnoticed.
        held.awaited |= refused_bytes.is_some();
        let fits = batch.take(fitting)?;
        let upto = if refused_bytes.is_some() { fits.last() } else { upto };
        let was_empty = held.deliveries.is_empty();
        held.push(fits, upto);
        drop(held);
        if was_empty {
            self.filled.notify_one();
        }
        Some(upto)
    }

    /// Says how far the shard is, without messages.
    pub(super) fn tell(&self, upto: Offset) {
        let mut held = self.held();
        match held.deliveries.back_mut() {
            Some(last) => last.upto = upto,
            None => {
                held.deliveries.push_back(Delivery { messages: vec![], bytes: 0, upto });
                drop(held);
                self.filled.notify_one();
            }
        }
    }

    /// See [`Inbox::passed`]. A delivery that says nothing else is taken out.
    fn passed(&self) -> Offset {
        let mut held = self.held();
        if held.messages == 0
            && let Some(told) = held.deliveries.pop_front()
        {
            held.passed = held.passed.max(told.upto);
        }
        held.passed
    }

    /// Whether nothing is in it, not even a position.
    pub(super) fn is_empty(&self) -> bool {
        self.held().deliveries.is_empty()
    }

    /// Whether a catch-up read is worth while: at most half full, and a message that was refused would fit.
    pub(super) fn has_room(&self) -> bool {
        self.held().has_room(self.capacity)
    }

    /// Whether the catch-up task is to be woken when there is room again.
    pub(super) fn await_room(&self, awaited: bool) {
        self.held().awaited = awaited;
    }

    /// Nothing comes after what is in it.
    pub(super) fn end(&self) {
        self.held().ended = true;
        self.filled.notify_one();
    }

    /// Throws away what is in it.
    pub(super) fn clear(&self) {
        let mut held = self.held();
        held.lease.cover(0);
        (held.messages, held.bytes, held.refused_bytes) = (0, 0, 0);
        (held.awaited, held.ended) = (false, true);
        held.deliveries.clear();
    }

    fn take(&self) -> Result<Delivery, Empty> {
        let mut held = self.held();
        let Some(delivery) = held.deliveries.pop_front() else {
            return Err(if held.ended { Empty::Ended } else { Empty::ForNow });
        };
        held.messages -= delivery.messages.len();
        held.bytes -= delivery.bytes;
        held.passed = held.passed.max(delivery.upto);
        let left = held.bytes;
        held.lease.cover(left);
        // Whether there was room before says nothing: others may have given memory back since a message was refused.
        if held.awaited && held.has_room(self.capacity) {
            self.drained.notify_one();
        }
        Ok(delivery)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().expect("nothing panics while it holds a queue")
    }
}

impl Held {
    fn new(lease: Lease) -> Self {
        let deliveries = VecDeque::new();
        let passed = Offset::START;
        Self { deliveries, messages: 0, bytes: 0, passed, lease, refused_bytes: 0, awaited: false, ended: false }
    }

    /// Most bytes it may hold now.
    fn bytes_max(&self, capacity: Capacity) -> usize {
        capacity.bytes_max.min(self.bytes + self.lease.budget().inbox_room())
    }

    fn fitting(&self, batch: &ShardBatch, capacity: Capacity) -> usize {
        let messages = capacity.messages_max.saturating_sub(self.messages).min(batch.len());
        let bytes = self.bytes_max(capacity).saturating_sub(self.bytes);
        let fitting = if batch.bytes() <= bytes { messages } else { batch.fitting(bytes).min(messages) };
        if self.messages == 0 { fitting.max(1).min(batch.len()) } else { fitting }
    }

    fn push(&mut self, batch: ShardBatch, upto: Offset) {
        let (messages, bytes) = batch.into_inner();
        self.messages += messages.len();
        self.bytes += bytes;
        self.lease.cover(self.bytes);
        match self.deliveries.back_mut() {
            Some(last) if last.messages.len() + messages.len() <= MERGE_MESSAGES_MAX => {
                last.messages.extend(messages);
                last.upto = upto;
                last.bytes += bytes;
            }
            // Told how far it is, and nothing else: there is at most one such delivery.
            Some(last) if last.messages.is_empty() => *last = Delivery { messages, bytes, upto },
            _ => self.deliveries.push_back(Delivery { messages, bytes, upto }),
        }
    }

    fn has_room(&self, capacity: Capacity) -> bool {
        let bytes_max = self.bytes_max(capacity);
        self.messages == 0
            || (self.messages <= capacity.messages_max / 2
                && self.bytes <= bytes_max / 2
                && self.bytes + self.refused_bytes <= bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::memory::Budget;
    use crate::message::{Message, NewMessage};
    use crate::routing::Routing;
    use crate::topic::Topic;
    use futures_util::FutureExt as _;

    fn batch(first: u64, count: u64) -> ShardBatch {
        let mut batch = ShardBatch::default();
        for number in first..first + count {
            let new = NewMessage::new(Topic::parse("in").unwrap(), vec![0; 100_000]);
            let message = Arc::new(Message::from_new(new, Offset(number), Timestamp(0)));
            let hash = Routing::lane_hash(None, message.offset);
            batch.push(Routed { message, hash, key: None, id: None, unroutable: None, deaths: None });
        }
        batch
    }

    #[test]
    fn who_waits_for_room_hears_of_it_although_others_made_it() {
        let budget = Budget::new(4 * 1024 * 1024);
        let drained = Arc::new(Notify::new());
        let capacity = Capacity { messages_max: 100, bytes_max: 1024 * 1024 };
        let queue = Queue::new(capacity, Lease::of_inbox(budget.clone()), drained.clone());
        let mut other = Lease::of_shard(budget);
        other.cover(4 * 1024 * 1024);
        // There is no memory: an empty inbox takes one message, and the rest waits for room.
        assert_eq!(queue.offer(&mut batch(1, 3), Offset(0), Offset(3)), Some(Offset(1)));
        other.cover(0);
        assert!(drained.notified().now_or_never().is_none());
        assert_eq!(queue.take().ok().unwrap().upto, Offset(1));
        assert!(drained.notified().now_or_never().is_some());
    }
    /// A queue with memory enough.
    fn queue(messages_max: usize, bytes_max: usize) -> Queue {
        Queue::new(Capacity { messages_max, bytes_max }, Lease::of_inbox(Budget::new(1 << 30)), Arc::default())
    }

    /// How many messages each delivery has and how far it reaches.
    fn taken(queue: &Queue) -> Vec<(usize, u64)> {
        std::iter::from_fn(|| queue.take().ok()).map(|delivery| (delivery.messages.len(), delivery.upto.0)).collect()
    }

    #[test]
    fn small_deliveries_become_one_and_none_is_lost() {
        type Taken<'a> = &'a [(usize, u64)];
        let deliveries: [(u64, u64, Taken<'_>); 3] =
            [(200, 56, &[(256, 256)]), (200, 57, &[(200, 200), (57, 257)]), (256, 1, &[(256, 256), (1, 257)])];
        for (first, second, expected) in deliveries {
            let queue = queue(1000, 1 << 30);
            queue.offer(&mut batch(1, first), Offset(0), Offset(first));
            queue.offer(&mut batch(first + 1, second), Offset(first), Offset(first + second));
            assert_eq!(taken(&queue), expected);
        }
        let queue = queue(1000, 1 << 30);
        queue.tell(Offset(5));
        queue.offer(&mut batch(6, 300), Offset(5), Offset(305));
        assert_eq!(taken(&queue), [(300, 305)], "what it was told is in what came");
    }

    #[test]
    fn there_is_room_while_at_most_half_of_each_bound_is_taken() {
        let one = batch(1, 1).bytes();
        for (messages_max, bytes_max) in [(7, 1 << 30), (100, 7 * one)] {
            for count in 1..=7 {
                let queue = queue(messages_max, bytes_max);
                assert!(queue.has_room());
                assert_eq!(queue.offer(&mut batch(1, count), Offset(0), Offset(count)), Some(Offset(count)));
                assert_eq!(queue.has_room(), count <= 3, "{count} of {messages_max} messages or {bytes_max} bytes");
                assert_eq!(taken(&queue), [(count as usize, count)]);
                assert!(queue.has_room());
                assert_eq!(queue.offer(&mut batch(8, 9), Offset(7), Offset(16)), Some(Offset(14)), "as many as fit");
            }
        }
    }
}
