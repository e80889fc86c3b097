//! What a commit is: the one atomic write of a shard's outcomes, and the record it moves on.

mod control;
mod dead;

pub use control::{Control, DeadAction, DeadJob, Over, Pin};
pub use dead::{DEAD_KINDS, DeadCount, DeadFilter, DeadLetter, DeadOrder, DeadQuery, Deaths, NumberedDeadLetter};

use crate::clock::Timestamp;
use crate::effects::StateWrite;
use crate::handler::{Digest, ShardId};
use crate::message::{IdHash, Key, NewMessage, Offset};
use std::sync::Arc;
use std::time::Duration;

/// Tells a log from every other: made at random with the log, and kept as long as it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LogId(pub u128);

/// Rises at each claim of a shard. A commit with an old term is refused: it is *fenced*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

/// What is durable of a shard, as `claim` returns it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// The number of the last commit; the next one is one more.
    pub commit_number: u64,
    /// Offset up to which the shard has taken messages up.
    pub read: Offset,
    /// Ordered by offset.
    pub open: Vec<Head>,
    /// In commit order, so roughly by time; may hold some that are older than the window or beyond the maximum.
    pub marks: Vec<Mark>,
    /// Messages held back until they are due, in no order.
    pub delayed: Vec<Delayed>,
    /// Every operator command up to here is applied. A shard that the log does not know starts at the log's end.
    pub controlled: Offset,
    pub control: Control,
}

/// A shard's record as claimed.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Of the log that the shard belongs to.
    pub log: LogId,
    pub term: Term,
    pub record: Record,
}

/// An unsettled message at or below `read`.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    pub offset: Offset,
    /// `None`: the message has no key and stands alone.
    pub key: Option<Key>,
    /// Tries that failed so far; 0 when it was only in flight.
    pub attempt: u32,
    /// Not before this time.
    pub due: Timestamp,
    /// The last failure, for people; empty when there was none. At most 1 KiB.
    pub error: Arc<str>,
    /// The module that failed last.
    pub digest: Option<Digest>,
    /// What it implies about its key.
    pub scope: HeadScope,
}

/// Whether a head stands for its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadScope {
    /// Every later message of the key up to `read` is unsettled too, unless it has a head of its own.
    Lane,
    /// As `Lane`, but the message at the offset itself is settled: the next one of the key was not yet read again.
    After,
    /// The message gave up its place (`on_failure = "skip"`): nothing follows for the key.
    Message,
}

/// The trace of an id that was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub id: IdHash,
    /// The log's time of the message that was done.
    pub time: Timestamp,
}

/// A message that the shard appends when it is due.
#[derive(Clone, Debug, PartialEq)]
pub struct Delayed {
    /// Unique within the shard; given by the shard.
    pub number: u64,
    pub due: Timestamp,
    pub message: NewMessage,
}

/// The state writes of one key in a commit, coalesced: one per entry.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyWrites {
    pub key: Key,
    pub writes: Vec<StateWrite>,
}

/// The outcomes of one shard, written in one piece or not at all.
///
/// The log refuses it unless the shard's term is `term` and its last commit was `number - 1`.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardCommit {
    pub shard: ShardId,
    pub term: Term,
    pub number: u64,
    /// The new `read`; never less than the one before.
    pub read: Offset,
    /// Heads to insert, or to replace by offset.
    pub open_put: Vec<Head>,
    pub open_drop: Vec<Offset>,
    pub marks: Vec<Mark>,
    /// Older marks may be deleted.
    pub marks_since: Timestamp,
    /// Most marks worth keeping; the oldest beyond it may be deleted.
    pub marks_max: usize,
    pub state: Vec<KeyWrites>,
    /// Appended in this order, adjacent.
    pub outputs: Vec<NewMessage>,
    pub delayed_put: Vec<Delayed>,
    /// Numbers of delayed messages that are now among `outputs`.
    pub delayed_drop: Vec<u64>,
    /// One whose message is the same as that of a letter of this shard takes its place: see [`DeadLetter::joins`].
    pub dead: Vec<DeadLetter>,
    /// How long an id is remembered, and so how far apart messages may be that are the same.
    pub dead_window: Duration,
    /// Most dead letters worth keeping of the handler, over all its shards; the oldest beyond it are deleted, some
    /// thousand by a commit when there are many more.
    pub dead_max: u64,
    /// Numbers of dead letters of this shard that are deleted; when they are retried they are among `outputs`.
    pub dead_drop: Vec<u64>,
    /// The new `controlled`; never less than the one before.
    pub controlled: Offset,
    /// Replaces what operators asked for; `None`: as it was.
    pub control: Option<Control>,
}

/// What a commit did that only the log can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Dead letters that took the place of an older one of the same message.
    pub dead_joined: u64,
}

/// Why a shard's commit was not, or may not have been, written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Another claim raised the term, or another commit took the number. Nothing was written.
    #[error("commit of shard {shard} was fenced: its term is over")]
    Fenced { shard: ShardId },
    /// The log cannot write this content. Nothing was written; the same content will be refused again.
    #[error("commit of shard {shard} was refused: {reason}")]
    Refused { shard: ShardId, reason: String },
    /// The log is out of room or does not take writes now. Nothing was written; the same commit may be tried again.
    #[error("commit of shard {shard} was not taken: {reason}")]
    Unavailable { shard: ShardId, reason: String },
    /// It may or may not be durable: claim again, the record is the truth.
    #[error("the fate of a commit of shard {shard} is unknown: {reason}")]
    Unknown { shard: ShardId, reason: String },
}
