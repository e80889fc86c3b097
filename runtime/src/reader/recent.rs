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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::message::NewMessage;
    use crate::topic::Topic;

    /// Two messages, at this offset and the next, and the bytes of both.
    fn two(first: u64) -> (Arc<Batch>, usize) {
        let new = NewMessage::new(Topic::parse("in").unwrap(), "body");
        let message = |offset| Arc::new(Message::from_new(new.clone(), Offset(offset), Timestamp(1)));
        let messages = vec![message(first), message(first + 1)];
        let bytes = messages.iter().map(|message| message.bytes()).sum();
        (Arc::new(Batch { messages, upto: Offset(first + 1) }), bytes)
    }

    fn offsets(chunk: &Chunk) -> Vec<u64> {
        chunk.messages.iter().map(|message| message.offset.0).collect()
    }

    #[test]
    fn the_newest_batches_are_kept_within_each_of_the_bounds_and_the_last_whatever_its_size() {
        let (_, bytes) = two(1);
        for (messages_max, bytes_max, kept) in [(4, usize::MAX, 4), (usize::MAX, 2 * bytes, 4), (1, 1, 2)] {
            let mut recent = Recent::new(Offset(0), messages_max, bytes_max);
            for last in (2..40).step_by(2) {
                let (batch, bytes) = two(last - 1);
                recent.push(batch, bytes);
                let first = last.saturating_sub(kept);
                let chunk = recent.chunk(Offset(first), 100, usize::MAX).unwrap();
                assert_eq!((offsets(&chunk), chunk.upto), ((first + 1..=last).collect(), Offset(last)));
                assert!(first == 0 || recent.chunk(Offset(first - 1), 100, usize::MAX).is_none(), "{first} of {last}");
            }
        }
    }

    #[test]
    fn a_chunk_says_how_far_it_reaches_also_when_nothing_is_in_it() {
        let mut recent = Recent::new(Offset(0), 100, usize::MAX);
        let (batch, bytes) = two(1);
        recent.push(batch, bytes);
        let reach = |after, messages_max, bytes_max| {
            let chunk = recent.chunk(Offset(after), messages_max, bytes_max).unwrap();
            (offsets(&chunk), chunk.upto.0)
        };
        assert_eq!(reach(0, 1, usize::MAX), (vec![1], 1));
        assert_eq!(reach(0, 100, 1), (vec![1], 1), "one that is larger than the bound comes alone");
        assert_eq!(reach(1, 100, usize::MAX), (vec![2], 2));
        assert_eq!(reach(2, 100, usize::MAX), (vec![], 2));
    }

    #[test]
    fn before_a_gap_nothing_is_handed_out() {
        let mut recent = Recent::new(Offset(0), 100, usize::MAX);
        let (batch, bytes) = two(1);
        recent.push(batch, bytes);
        recent.restart(Offset(5));
        let (batch, bytes) = two(6);
        recent.push(batch, bytes);
        assert!(recent.chunk(Offset(2), 100, usize::MAX).is_none());
        assert_eq!(offsets(&recent.chunk(Offset(5), 100, usize::MAX).unwrap()), [6, 7]);
    }
}
