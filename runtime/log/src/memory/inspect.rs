//! What people look at, of the log in memory.

use super::core::MemoryCore;
use crate::inspect::{DelayedFacts, DelayedQuery, HeadQuery, MessageFacts, OpenHead, Smallest, StateKey, StateQuery};

impl MemoryCore {
    /// See [`Log::heads`](crate::contract::Log::heads).
    pub fn heads(&self, query: &HeadQuery) -> Vec<OpenHead> {
        let mut first = Smallest::new(query.heads_max);
        for (shard, head) in self.open_of(&query.handler).filter(|(_, head)| head.offset > query.after) {
            if !first.wants(head.offset) {
                continue;
            }
            let message = self.fetch(&[head.offset]).pop().flatten().map(|message| MessageFacts {
                topic: message.topic.clone(),
                id: message.id.clone(),
                time: message.time,
            });
            let found = OpenHead { shard, head: head.clone(), message };
            if query.filter.matches(&found) {
                first.add(head.offset, found);
            }
        }
        first.in_order()
    }

    /// See [`Log::delayed`](crate::contract::Log::delayed).
    pub fn delayed(&self, query: &DelayedQuery) -> Vec<DelayedFacts> {
        let mut first = Smallest::new(query.delayed_max);
        for (shard, delayed) in self.delayed_of(&query.handler) {
            let facts = DelayedFacts::of(shard, delayed);
            let comes_after = query.after.is_none_or(|after| facts.place > after);
            if comes_after && query.filter.matches(&facts) && first.wants(facts.place) {
                first.add(facts.place, facts);
            }
        }
        first.in_order()
    }

    /// See [`Log::state_keys`](crate::contract::Log::state_keys).
    pub fn state_keys(&self, query: &StateQuery) -> Vec<StateKey> {
        let mut first = Smallest::new(query.keys_max);
        for (key, entries) in self.state_of(&query.handler) {
            let comes_after = query.after.as_ref().is_none_or(|after| key > after);
            if comes_after && key.as_str().starts_with(&query.prefix) && first.wants(key) {
                let (entries, bytes) = (entries.len() as u64, entries.bytes() as u64);
                first.add(key, StateKey { key: key.clone(), entries, bytes });
            }
        }
        first.in_order()
    }
}
