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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::message::{Message, NewMessage};
    use crate::topic::Topic;
    use std::sync::Arc;

    /// Messages at the offsets 1 to `count`, and the bytes of each.
    fn batch(count: u64) -> (ShardBatch, usize) {
        let mut batch = ShardBatch::default();
        for number in 1..=count {
            let new = NewMessage::new(Topic::parse("in").unwrap(), "body");
            let message = Arc::new(Message::from_new(new, Offset(number), Timestamp(0)));
            batch.push(Routed { message, hash: 0, key: None, id: None, unroutable: None, deaths: None });
        }
        let one = batch.bytes_of(0).unwrap();
        (batch, one)
    }

    #[test]
    fn as_many_of_the_first_messages_fit_as_have_room_together() {
        let (batch, one) = batch(3);
        for (bytes_max, fitting) in [(0, 0), (one - 1, 0), (one, 1), (2 * one - 1, 1), (2 * one, 2), (9 * one, 3)] {
            assert_eq!(batch.fitting(bytes_max), fitting, "{bytes_max} bytes");
        }
    }

    #[test]
    fn the_bytes_of_messages_go_with_them() {
        let (mut batch, one) = batch(9);
        assert_eq!(batch.bytes(), 9 * one);
        batch.skip_to(Offset(2));
        assert_eq!((batch.len(), batch.bytes()), (7, 7 * one));
        assert!(batch.take(0).is_none());
        let taken = batch.take(3).unwrap();
        assert_eq!((taken.bytes(), taken.last()), (3 * one, Offset(5)));
        assert_eq!((batch.len(), batch.bytes()), (4, 4 * one));
        let rest = batch.take(4).unwrap();
        assert_eq!((rest.bytes(), rest.last()), (4 * one, Offset(9)));
        assert_eq!((batch.bytes(), batch.is_empty()), (0, true));
        let mut cleared = rest;
        cleared.clear();
        assert_eq!((cleared.bytes(), cleared.is_empty()), (0, true));
    }
}
