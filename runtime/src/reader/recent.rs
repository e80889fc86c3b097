//! The newest batches of the tail, kept for shards that dropped off a moment ago: bringing them back costs no read, and
//! ends for certain, since what is left at the last step is in memory and can be handed over under the lock.

use crate::log::Batch;
use crate::message::{Message, Offset};
use std::collections::VecDeque;
use std::sync::Arc;

/// Batches without a gap between them, bounded in messages and bytes.
#[derive(Debug)]
pub(super) struct Recent {
    /// Each with its bytes.
    batches: VecDeque<(Arc<Batch>, usize)>,
    /// Every message after this offset is in `batches`.
    after: Offset,
    messages: usize,
    bytes: usize,
    messages_max: usize,
    bytes_max: usize,
}

/// Messages to deliver, and how far they reach.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) messages: Vec<Arc<Message>>,
    pub(super) bytes: usize,
    pub(super) upto: Offset,
}

impl Recent {
    pub(super) fn new(after: Offset, messages_max: usize, bytes_max: usize) -> Self {
        Self { batches: VecDeque::new(), after, messages: 0, bytes: 0, messages_max, bytes_max }
    }

    pub(super) fn push(&mut self, batch: Arc<Batch>, bytes: usize) {
        self.messages += batch.messages.len();
        self.bytes += bytes;
        self.batches.push_back((batch, bytes));
        while self.batches.len() > 1 && (self.messages > self.messages_max || self.bytes > self.bytes_max) {
            let (oldest, bytes) = self.batches.pop_front().expect("there is more than one");
            self.messages -= oldest.messages.len();
            self.bytes -= bytes;
            self.after = oldest.upto;
        }
    }

    /// Forgets all batches: messages are missing before the next one, which comes after `after`.
    pub(super) fn restart(&mut self, after: Offset) {
        *self = Self::new(after, self.messages_max, self.bytes_max);
    }

    /// The messages after `after`, on whatever topic; `None` when some of them are no longer here.
    pub(super) fn chunk(&self, after: Offset, messages_max: usize, bytes_max: usize) -> Option<Chunk> {
        if after < self.after {
            return None;
        }
        let mut chunk = Chunk { upto: after, ..Chunk::default() };
        let first = self.batches.partition_point(|(batch, _)| batch.upto <= after);
        for (batch, _) in self.batches.range(first..) {
            let from = batch.messages.partition_point(|message| message.offset <= after);
            for message in &batch.messages[from..] {
                if chunk.messages.len() >= messages_max || chunk.bytes >= bytes_max {
                    return Some(chunk);
                }
                chunk.bytes += message.bytes();
                chunk.messages.push(message.clone());
                chunk.upto = message.offset;
            }
            chunk.upto = batch.upto;
        }
        Some(chunk)
    }
}
