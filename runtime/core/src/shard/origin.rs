//! What the outputs of one run have from their input: ids that are the same at every try, hops, the trace.

use crate::commit::Term;
use crate::effects::Outgoing;
use crate::handler::ShardId;
use crate::message::{Headers, IdHash, NewMessage, WorkId};
use crate::routing::Routed;
use crate::trace::{self, Trace};
use std::sync::Arc;

pub struct Origin {
    /// 128 bits that no other input of any handler has.
    seed: u128,
    hops: u8,
    trace: Option<Trace>,
}

impl Origin {
    pub fn of(shard: &ShardId, term: Term, routed: &Routed) -> Self {
        use sha2::Digest as _;
        let mut hash = sha2::Sha256::new();
        hash.update(shard.handler.as_str().as_bytes());
        match (routed.id, routed.work()) {
            (Some(IdHash(id)), _) => {
                hash.update([0]);
                hash.update(id.to_le_bytes());
            }
            (None, WorkId::Offset(offset)) => {
                hash.update([1]);
                hash.update(offset.0.to_le_bytes());
            }
            // Tickets are given out anew in each term of each shard.
            (None, WorkId::Ticket(ticket)) => {
                hash.update([2]);
                hash.update(shard.index.to_le_bytes());
                hash.update(term.0.to_le_bytes());
                hash.update(ticket.to_le_bytes());
            }
        }
        let mut half = [0; 16];
        half.copy_from_slice(&hash.finalize()[..16]);
        let message = &routed.message;
        let (hops, trace) = (message.hops.saturating_add(1), Trace::of(&message.headers));
        Self { seed: u128::from_le_bytes(half), hops, trace }
    }

    /// The message that the run's output with this index becomes.
    pub fn message(&self, index: usize, output: Outgoing) -> NewMessage {
        let Outgoing { topic, key, id, headers, body, delay: _ } = output;
        let id = id.unwrap_or_else(|| self.id(index));
        let headers = match &self.trace {
            Some(trace) if headers.get(trace::HEADER).is_none() => {
                let own = headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
                Headers::new(own.chain([(trace::HEADER.to_owned(), trace.to_string())]).collect())
            }
            _ => headers,
        };
        NewMessage { topic, key, id: Some(id), headers, body, hops: self.hops }
    }

    fn id(&self, index: usize) -> Arc<str> {
        format!("{:032x}-{index}", self.seed).into()
    }
}
