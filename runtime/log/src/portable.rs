//! A whole log in pieces, so that it can move to another place or another kind of log, through a file or a pipe.
//!
//! The promise: a host that starts on what was restored goes on as if nothing had happened. Messages keep their offsets,
//! their times and their order; so everything that names a message means the same one after the move: how far shards have
//! read, open heads, the place from which a subscription holds, commands and where they apply, dead letters and what became
//! of them before, the key of idempotency of a message that is tried again, and the shard of a message that has neither key
//! nor id. Dead letters keep their numbers, which commands name. What is new gets higher offsets and numbers than anything
//! that was moved, however the new kind makes them. Terms and the log's identity are the new log's own: nobody who held a
//! shard of the old log can write into the new one, and ids that are derived from now on never meet those that the old log
//! would give if somebody went on with it.
//!
//! [`export`] reads pieces from any kind of log through its contract, [`file`] is what carries them, and each kind has a
//! [`Restore`] that takes them. Nothing of what was taken is in force, or seen by anybody, before the last piece came and all were
//! found whole.
//!
//! Rejected: offsets of the new kind's own, with a map from the old ones. The shard of a message without key and id follows
//! from its offset, so some would have been lost and some done twice; and a call that was made before the move would have
//! been made again under another key of idempotency.

mod codec;
mod counts;
mod export;
pub mod file;

pub use self::counts::Counts;
pub use self::export::{ExportError, export};

#[cfg(any(feature = "nats", feature = "redis"))]
pub(crate) use self::codec::{encode, read};

use crate::contract::Routings;
use crate::error::LogError;
use crate::members::Members;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use sluicebox_core::clock::Timestamp;
use sluicebox_core::commit::{KeyWrites, NumberedDeadLetter, Record, Term};
use sluicebox_core::handler::{HandlerName, ShardId};
use sluicebox_core::message::{Message, Offset};
use std::sync::Arc;

/// Most messages, and bytes of them, in one piece.
pub(crate) const MESSAGES_MAX: usize = 1000;
pub(crate) const BYTES_MAX: usize = 512 * 1024;

/// Part of a log. They come in the order of the variants, of each as many as there are.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// The first, once.
    About(About),
    /// Once.
    Routings(Routings),
    Module(Module),
    Shard(ShardPart),
    /// Entries of keys as they are, none of them deleted.
    State {
        handler: HandlerName,
        keys: Vec<KeyWrites>,
    },
    /// Ascending by number.
    Letters(Vec<NumberedDeadLetter>),
    /// Ascending by offset.
    Messages(Vec<Arc<Message>>),
    /// The last, once.
    End(End),
}

/// What is known before anything is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The kind of log that it was, for people.
    pub kind: String,
    /// Every message after this offset that there was is here.
    pub after: Offset,
    /// So many messages at or before it are gone, or were left out.
    pub gone: u64,
}

/// A module that was deployed; those of a handler come oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    pub handler: HandlerName,
    pub time: Timestamp,
    pub bytes: Bytes,
}

/// A shard, or a part of it: of several the lists belong together, and everything else is the same in each.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardPart {
    pub shard: ShardId,
    pub term: Term,
    pub record: Record,
}

/// What is known once everything was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Of the log; the last message may be gone. What is new has higher offsets.
    pub end: Offset,
    /// The latest of all times of messages and dead letters.
    pub time: Timestamp,
    /// What dead letters are numbered from here on is higher: commands may name numbers of letters that are gone.
    pub letters_upto: u64,
    pub counts: Counts,
}

/// Takes the pieces of a log into an empty place. Dropped before [`Restore::finish`] it leaves no log there; what it may leave
/// goes when the next one begins.
pub trait Restore: Send {
    /// Which hosts were heard there since it was opened; `None`: no other can be there.
    fn members(&self) -> Option<&Members> {
        None
    }

    /// Pieces in their order, but the last.
    fn take(&mut self, piece: Piece) -> BoxFuture<'_, Result<(), LogError>>;

    /// Puts what was taken in force, all at once: durable when it returns.
    fn finish(self: Box<Self>, end: End) -> BoxFuture<'static, Result<(), LogError>>;
}

/// A piece that cannot be where it is.
pub(crate) fn out_of_order(what: &str) -> LogError {
    LogError::Refused { reason: format!("the pieces of the log are not in their order: {what}") }
}
