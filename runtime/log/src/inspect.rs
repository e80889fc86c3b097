//! What people ask of a log to see what waits and which state there is: pages, bounded in memory, that change nothing.
//!
//! All of it is durable: what a shard has in hand and did not commit yet is not seen.

use sluicebox_core::clock::Timestamp;
use sluicebox_core::commit::{Delayed, Head};
use sluicebox_core::handler::HandlerName;
use sluicebox_core::message::{Key, Offset};
use sluicebox_core::topic::{Pattern, Topic};
use std::sync::Arc;

/// Which open heads of a handler to list. They come in the order of their offsets, over all its shards.
#[derive(Clone, Debug)]
pub struct HeadQuery {
    pub handler: HandlerName,
    pub filter: HeadFilter,
    /// Only heads after this offset: the last one of the page before. A handler has at most one head at an offset.
    pub after: Offset,
    pub heads_max: usize,
}

/// Heads that fulfil every condition given; without any, all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadFilter {
    pub offset: Option<Offset>,
    /// The key the message is handled under.
    pub key: Option<Key>,
    /// Heads whose message is gone from the log have no topic.
    pub topic: Option<Pattern>,
    /// Part of the last error; ASCII case does not count.
    pub error: Option<String>,
    /// At least so many failed tries.
    pub attempts_min: u32,
}

/// A head and what the log knows of its message.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenHead {
    pub shard: u16,
    pub head: Head,
    /// `None`: the message is no longer in the log.
    pub message: Option<MessageFacts>,
}

/// What tells people which message it is, without its body.
#[derive(Clone, Debug, PartialEq)]
pub struct MessageFacts {
    pub topic: Topic,
    pub id: Option<Arc<str>>,
    pub time: Timestamp,
}

impl HeadFilter {
    /// Whether it means this head.
    pub fn matches(&self, found: &OpenHead) -> bool {
        let OpenHead { head, message, .. } = found;
        self.offset.is_none_or(|offset| head.offset == offset)
            && self.key.as_ref().is_none_or(|key| head.key.as_ref() == Some(key))
            && head.attempt >= self.attempts_min
            && self.error.as_ref().is_none_or(|part| contains(&head.error, part))
            && self
                .topic
                .as_ref()
                .is_none_or(|pattern| message.as_ref().is_some_and(|message| pattern.matches(&message.topic)))
    }
}

fn contains(text: &str, part: &str) -> bool {
    text.to_ascii_lowercase().contains(&part.to_ascii_lowercase())
}

/// Which delayed messages of a handler to list: the next one due comes first.
#[derive(Clone, Debug)]
pub struct DelayedQuery {
    pub handler: HandlerName,
    pub filter: DelayedFilter,
    /// Only those after this place: the last one of the page before.
    pub after: Option<DelayedPlace>,
    pub delayed_max: usize,
}

/// Delayed messages that fulfil every condition given; without any, all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DelayedFilter {
    pub shard: Option<u16>,
    pub number: Option<u64>,
    /// The key it will have.
    pub key: Option<Key>,
    pub topic: Option<Pattern>,
}

/// The order of delayed messages: by due time, then by what names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DelayedPlace {
    pub due: Timestamp,
    pub shard: u16,
    pub number: u64,
}

/// A message held back until it is due, without its body.
#[derive(Clone, Debug, PartialEq)]
pub struct DelayedFacts {
    pub place: DelayedPlace,
    pub topic: Topic,
    pub key: Option<Key>,
    pub id: Option<Arc<str>>,
    /// What it takes, about.
    pub bytes: u64,
}

impl DelayedFacts {
    pub(crate) fn of(shard: u16, delayed: &Delayed) -> Self {
        let message = &delayed.message;
        Self {
            place: DelayedPlace { due: delayed.due, shard, number: delayed.number },
            topic: message.topic.clone(),
            key: message.key.clone(),
            id: message.id.clone(),
            bytes: (message.body.len() + message.headers.bytes()) as u64,
        }
    }
}

impl DelayedFilter {
    /// Whether it means this message.
    pub fn matches(&self, found: &DelayedFacts) -> bool {
        self.shard.is_none_or(|shard| found.place.shard == shard)
            && self.number.is_none_or(|number| found.place.number == number)
            && self.key.as_ref().is_none_or(|key| found.key.as_ref() == Some(key))
            && self.topic.as_ref().is_none_or(|topic| topic.matches(&found.topic))
    }
}

/// Which keys of a handler's state to list, in the order of their bytes.
#[derive(Clone, Debug)]
pub struct StateQuery {
    pub handler: HandlerName,
    /// Only keys that begin with this.
    pub prefix: String,
    /// Only keys after this one: the last one of the page before.
    pub after: Option<Key>,
    pub keys_max: usize,
}

/// A key that has state, and how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateKey {
    pub key: Key,
    pub entries: u64,
    /// Of the names and values of its entries.
    pub bytes: u64,
}

/// The smallest of many, in order, without holding more of them than asked for.
pub(crate) struct Smallest<P, T> {
    found: std::collections::BTreeMap<P, T>,
    max: usize,
}

impl<P: Ord + Copy, T> Smallest<P, T> {
    pub(crate) fn new(max: usize) -> Self {
        Self { found: std::collections::BTreeMap::new(), max }
    }

    /// Whether one at this place, or any later one, could still be among them.
    pub(crate) fn wants(&self, place: P) -> bool {
        self.found.len() < self.max || self.found.last_key_value().is_some_and(|(last, _)| place < *last)
    }

    pub(crate) fn add(&mut self, place: P, value: T) {
        self.found.insert(place, value);
        if self.found.len() > self.max {
            self.found.pop_last();
        }
    }

    pub(crate) fn in_order(self) -> Vec<T> {
        self.found.into_values().collect()
    }
}
