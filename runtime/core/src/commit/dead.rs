//! A dead letter, and which of them are meant: for lists, counts and operator commands.

use crate::clock::Timestamp;
use crate::handler::{Digest, HandlerName, ShardId};
use crate::message::{IdHash, Key, Message, Offset};
use crate::topic::Pattern;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// How a message may fail, as [`DeadLetter::kind`] names it.
pub const DEAD_KINDS: [&str; 11] =
    ["reject", "retry", "timeout", "trap", "memory", "host", "key", "loop", "too-large", "uncommittable", "gone"];

/// A message given up.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    pub shard: ShardId,
    /// Held by value: `retain` may delete it from the log.
    pub message: Arc<Message>,
    /// The key it was handled under.
    pub key: Option<Key>,
    /// Failed tries; 0 when it never ran.
    pub attempts: u32,
    /// One of [`DEAD_KINDS`].
    pub kind: String,
    /// For people: what was tried and what went wrong.
    pub error: String,
    pub digest: Option<Digest>,
    /// When it was given up.
    pub time: Timestamp,
    /// Key and id, where the handler takes messages with the same ones for one; `None`: no other message is this one.
    pub identity: Option<IdHash>,
    pub deaths: Deaths,
}

impl DeadLetter {
    /// Whether this letter takes the place of `older`: the same message, sent again within the time for which ids are
    /// remembered. After that it is another message. The one that is given up last stays, which need not be the one that was
    /// sent last.
    pub fn joins(&self, older: &DeadLetter, window: Duration) -> bool {
        self.shard == older.shard
            && self.identity.is_some()
            && self.identity == older.identity
            && self.message.time.since(older.message.time).max(older.message.time.since(self.message.time)) < window
    }
}

/// How often a message was given up, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deaths {
    /// At least 1.
    pub count: u32,
    /// Its offset when it was given up first.
    pub first_offset: Offset,
    /// When that was.
    pub first_time: Timestamp,
    /// How often operators sent it back.
    pub returns: u32,
}

impl Deaths {
    /// Of a message that was never given up before.
    pub fn first(offset: Offset, time: Timestamp) -> Self {
        Self { count: 1, first_offset: offset, first_time: time, returns: 0 }
    }

    /// One more, of a message that was sent back.
    pub fn again(self) -> Self {
        Self { count: self.count.saturating_add(1), ..self }
    }

    /// Of a letter that takes the place of an older one of the same message.
    pub fn joined(self, older: Self) -> Self {
        let first = if older.first_offset <= self.first_offset { older } else { self };
        Self {
            count: self.count.saturating_add(older.count),
            returns: self.returns.saturating_add(older.returns),
            ..first
        }
    }
}

/// A dead letter and the number under which the log keeps it (rises, has gaps).
#[derive(Clone, Debug, PartialEq)]
pub struct NumberedDeadLetter {
    pub number: u64,
    pub letter: DeadLetter,
}

/// Dead letters that fulfil every condition given; without any, all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeadFilter {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handler: Option<HandlerName>,
    /// Only letters of this shard of the handler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard: Option<u16>,
    /// The key the message was handled under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<Pattern>,
    /// As in [`DeadLetter::kind`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Only these; empty: any number.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub numbers: Vec<u64>,
    /// Only letters numbered up to this: what was counted before a command is what the command is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upto: Option<u64>,
}

impl DeadFilter {
    /// Whether it means this letter.
    pub fn matches(&self, number: u64, letter: &DeadLetter) -> bool {
        self.handler.as_ref().is_none_or(|handler| letter.shard.handler == *handler)
            && self.shard.is_none_or(|shard| letter.shard.index == shard)
            && self.key.as_ref().is_none_or(|key| letter.key.as_ref() == Some(key))
            && self.topic.as_ref().is_none_or(|topic| topic.matches(&letter.message.topic))
            && self.kind.as_ref().is_none_or(|kind| letter.kind == *kind)
            && (self.numbers.is_empty() || self.numbers.contains(&number))
            && self.upto.is_none_or(|upto| number <= upto)
    }
}

/// In which order to list, and where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadOrder {
    /// Newest first; only letters numbered below this; `None`: from the newest.
    Newest { below: Option<u64> },
    /// Oldest first; only letters numbered above this; 0: from the oldest.
    Oldest { above: u64 },
}

/// Which dead letters to list.
#[derive(Clone, Debug)]
pub struct DeadQuery {
    pub filter: DeadFilter,
    pub order: DeadOrder,
    pub letters_max: usize,
    /// Stops after the letter that reaches this many bytes.
    pub bytes_max: usize,
}

impl DeadQuery {
    /// The newest letters of a filter, in any amount of bytes.
    pub fn newest(filter: DeadFilter, letters_max: usize) -> Self {
        Self { filter, order: DeadOrder::Newest { below: None }, letters_max, bytes_max: usize::MAX }
    }
}

/// How many dead letters a filter means, and the newest of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeadCount {
    pub letters: u64,
    /// What they take in the log, about.
    pub bytes: u64,
    /// 0 when there is none.
    pub newest: u64,
}
