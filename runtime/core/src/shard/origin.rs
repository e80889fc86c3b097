//! What the outputs of one run have from their input: ids, hops, the trace.
//!
//! An id names one run's output and is the same at every try: it is made of the log, the handler, the input's offset and
//! the output's index. The input's own id is not enough: without dedup, or on another topic, two messages may have the
//! same one, and of their outputs one would be dropped as a duplicate. A dead letter that was returned is a message with
//! a new offset, so its outputs have new ids.

use crate::commit::{LogId, Term};
use crate::effects::Outgoing;
use crate::handler::ShardId;
use crate::message::{HEADERS_BYTES_MAX, HEADERS_MAX, Headers, NewMessage, WorkId};
use crate::routing::Routed;
use crate::trace::{self, Trace};
use std::sync::Arc;

pub struct Origin {
    /// 128 bits that no other input of any handler in any log has.
    seed: u128,
    hops: u8,
    /// The headers that carry the trace on.
    trace: Vec<(String, String)>,
}

impl Origin {
    pub fn of(log: LogId, shard: &ShardId, term: Term, routed: &Routed) -> Self {
        use sha2::Digest as _;
        let mut hash = sha2::Sha256::new();
        hash.update(log.0.to_le_bytes());
        hash.update(shard.handler.as_str().as_bytes());
        match routed.work() {
            WorkId::Offset(offset) => {
                hash.update([0]);
                hash.update(offset.0.to_le_bytes());
            }
            // Tickets are given out anew in each term of each shard.
            WorkId::Ticket(ticket) => {
                hash.update([1]);
                hash.update(shard.index.to_le_bytes());
                hash.update(term.0.to_le_bytes());
                hash.update(ticket.to_le_bytes());
            }
        }
        let mut half = [0; 16];
        half.copy_from_slice(&hash.finalize()[..16]);
        let message = &routed.message;
        let hops = message.hops.saturating_add(1);
        Self { seed: u128::from_le_bytes(half), hops, trace: inherited(&message.headers) }
    }

    /// The message that the run's output with this index becomes.
    pub fn message(&self, index: usize, output: Outgoing) -> NewMessage {
        let Outgoing { topic, key, id, headers, body, delay: _ } = output;
        let id = id.unwrap_or_else(|| self.id(index));
        let headers = self.traced(headers);
        NewMessage { topic, key, id: Some(id), headers, body, hops: self.hops }
    }

    fn id(&self, index: usize) -> Arc<str> {
        id(self.seed, index)
    }

    /// The headers of an output, with the trace if it has none of its own and it fits: they were within the limits before,
    /// and an output beyond them could never be committed.
    fn traced(&self, headers: Headers) -> Headers {
        if self.trace.is_empty() || headers.get(trace::HEADER).is_some() || headers.get(trace::STATE_HEADER).is_some() {
            return headers;
        }
        let (mut count, mut bytes) = (headers.iter().count(), headers.bytes());
        // Without the first the second means nothing.
        let fitting = self.trace.iter().take_while(|(name, value)| {
            (count, bytes) = (count + 1, bytes + name.len() + value.len());
            count <= HEADERS_MAX && bytes <= HEADERS_BYTES_MAX
        });
        let own = headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        Headers::new(own.chain(fitting.cloned()).collect())
    }
}

/// What an output inherits of these headers.
fn inherited(headers: &Headers) -> Vec<(String, String)> {
    let Some(trace) = Trace::of(headers) else { return Vec::new() };
    let parent = (trace::HEADER.to_owned(), trace.to_string());
    let state = trace::state_of(headers).map(|state| (trace::STATE_HEADER.to_owned(), state));
    [parent].into_iter().chain(state).collect()
}

/// The seed in 32 digits, a dash, and the index: by hand, since there is one for every output and the formatting of a
/// 128-bit number costs more than all else here.
fn id(seed: u128, index: usize) -> Arc<str> {
    let mut text = [b'-'; 33 + 20];
    for (digits, byte) in text.chunks_exact_mut(2).zip(seed.to_be_bytes()) {
        digits.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
    // From the last digit to the first.
    let (mut rest, mut from) = (index, text.len());
    loop {
        from -= 1;
        text[from] = b'0' + u8::try_from(rest % 10).expect("less than ten");
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let digits = text.len() - from;
    text.copy_within(from.., 33);
    std::str::from_utf8(&text[..33 + digits]).expect("digits and a dash").into()
}

/// A digit of a hexadecimal number.
fn digit(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'a' + value - 10 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_seed_in_hex_and_the_index() {
        for (seed, index) in [(0, 0), (1, 9), (u128::MAX, 10), (0x0123_4567_89ab_cdef, 255), (2, usize::MAX)] {
            assert_eq!(*id(seed, index), *format!("{seed:032x}-{index}"));
        }
    }
}
