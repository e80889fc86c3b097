//! The messages of a batch that are for one shard.

use crate::message::Offset;
use crate::routing::Routed;

/// Routed messages in offset order and their bytes.
#[derive(Debug, Default)]
pub(super) struct ShardBatch {
    messages: Vec<Routed>,
    bytes: usize,
}

impl ShardBatch {
    pub(super) fn push(&mut self, routed: Routed) {
        self.bytes += routed.message.bytes();
        self.messages.push(routed);
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the message at `index`.
    pub(super) fn bytes_of(&self, index: usize) -> Option<usize> {
        self.messages.get(index).map(|routed| routed.message.bytes())
    }

    /// How many of the first messages have at most `bytes_max` bytes together.
    pub(super) fn fitting(&self, bytes_max: usize) -> usize {
        let mut bytes = 0;
        let fits = |routed: &&Routed| {
            bytes += routed.message.bytes();
            bytes <= bytes_max
        };
        self.messages.iter().take_while(fits).count()
    }

    /// Forgets messages up to and with `after`.
    pub(super) fn skip_to(&mut self, after: Offset) {
        let skipped = self.messages.partition_point(|routed| routed.message.offset <= after);
        if skipped > 0 {
            self.bytes -= self.messages.drain(..skipped).map(|routed| routed.message.bytes()).sum::<usize>();
        }
    }

    /// Takes the first `count` messages out; `None` when that is none.
    pub(super) fn take(&mut self, count: usize) -> Option<ShardBatch> {
        if count == 0 {
            return None;
        }
        if count >= self.messages.len() {
            return Some(std::mem::take(self));
        }
        let messages: Vec<Routed> = self.messages.drain(..count).collect();
        let bytes = messages.iter().map(|routed| routed.message.bytes()).sum();
        self.bytes -= bytes;
        Some(ShardBatch { messages, bytes })
    }

    /// Offset of the last message.
    pub(super) fn last(&self) -> Offset {
        self.messages.last().map_or(Offset::START, |routed| routed.message.offset)
    }

    pub(super) fn clear(&mut self) {
        self.messages.clear();
        self.bytes = 0;
    }

    pub(super) fn into_inner(self) -> (Vec<Routed>, usize) {
        (self.messages, self.bytes)
    }
}
