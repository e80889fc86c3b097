//! What an engine does for the log: it keeps entries in one order, and beside them what is looked up by name.
//!
//! An engine knows nothing of what is in an entry. All that it must promise is here; how it is asked is its own business.

use crate::contract::Guarantees;
use crate::error::LogError;
use crate::inspect::StateQuery;
use crate::members::Members;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use sluicebox_core::clock::Timestamp;
use sluicebox_core::handler::{Digest, HandlerName, ShardId};
use sluicebox_core::message::Key;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// What an entry is about. The fence counts for each of them by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    /// Appended messages.
    Messages,
    /// What concerns more than one shard: routings, forgetting, trimming.
    Control,
    /// Pieces of entries that are larger than an entry of the engine may be.
    Part,
    /// Claims and commits of a shard.
    Journal(&'a ShardId),
}

/// What the payload of an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    Entry,
    /// A piece of one.
    Part,
}

/// An entry as the engine has it.
#[derive(Clone, Debug)]
pub struct Stored {
    pub sequence: u64,
    pub holds: Holds,
    pub time: Timestamp,
    pub payload: Bytes,
}

/// Entries in their order, and where to go on after them.
#[derive(Clone, Debug)]
pub struct Page {
    pub entries: Vec<Stored>,
    pub next: u64,
}

/// How full an engine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub bytes: u64,
    /// It takes nothing more at.
    pub bytes_max: u64,
    /// Entries up to this sequence are counted.
    pub upto: u64,
    /// How often an entry is counted.
    pub copies: u64,
    /// What makes room.
    pub advice: &'static str,
}

/// Why something was not published.
#[derive(Debug)]
pub enum PublishError {
    /// The fence: something else is the last on the subject. Nothing was written.
    Stale,
    Full(String),
    /// Nothing was written.
    Unavailable(String),
    /// It may be written, or be written later.
    Unknown(String),
}

impl From<PublishError> for LogError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Stale => LogError::Conflict,
            PublishError::Full(reason) => LogError::Full { reason },
            PublishError::Unavailable(reason) => LogError::Unavailable { reason },
            PublishError::Unknown(reason) => LogError::Unknown { reason },
        }
    }
}

/// The newest value of one entry of a key's state, or that it was deleted.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// The sequence of the commit that wrote it: of two values the one with the higher sequence is right.
    pub version: u64,
    pub key: Key,
    pub entry: Arc<str>,
    /// `None`: it was deleted.
    pub value: Option<Bytes>,
}

/// How large a value is.
#[derive(Clone, Debug)]
pub struct ValueSize {
    pub version: u64,
    pub key: Key,
    pub entry: Arc<str>,
    /// `None`: it was deleted.
    pub bytes: Option<u64>,
}

/// An engine. Its methods may be called at once.
pub trait Engine: Send + Sync + 'static {
    type Following: Following;

    /// How long an entry of which nobody knows whether it was taken may take to come back.
    const UNKNOWN: Duration;

    fn guarantees(&self) -> Guarantees;

    /// An error while there is certainly no connection: what is asked then waits for one, and nobody knows how long.
    fn reachable(&self) -> Result<(), LogError>;

    /// Most bytes of an entry.
    fn payload_bytes_max(&self) -> usize;

    /// Adds an entry; its sequence, which is higher than that of every entry before. With `expected`: only if this is the
    /// sequence of the last entry on the subject, 0 where there is none. Durable when it returns.
    fn publish(
        &self,
        subject: Subject<'_>,
        payload: Bytes,
        expected: Option<u64>,
    ) -> impl Future<Output = Result<u64, PublishError>> + Send;

    /// Every entry from this sequence on, as they come.
    fn follow(&self, from: u64) -> impl Future<Output = Result<Self::Following, LogError>> + Send;

    /// Entries from this sequence on up to `last`, as many as come at once; `next` is after `last` when there is no more.
    fn read(&self, from: u64, last: u64) -> impl Future<Output = Result<Page, LogError>> + Send;

    /// The entry with this sequence: `None` only when it is certainly not there.
    fn get(&self, sequence: u64) -> impl Future<Output = Result<Option<Stored>, LogError>> + Send;

    /// The sequence of the first entry that is not older, if there is one.
    fn first_since(&self, time: Timestamp) -> impl Future<Output = Result<Option<u64>, LogError>> + Send;

    /// The sequences of the first entry that is kept and of the last that there was.
    fn ends(&self) -> impl Future<Output = Result<(u64, u64), LogError>> + Send;

    /// What its clock says, by which entries are dated.
    fn time(&self) -> impl Future<Output = Result<Timestamp, LogError>> + Send;

    /// How full it is, where there is a bound that is known.
    fn room(&self) -> impl Future<Output = Result<Option<Room>, LogError>> + Send;

    /// Every entry before this one goes.
    fn purge_before(&self, sequence: u64) -> impl Future<Output = Result<(), LogError>> + Send;

    /// All values of these keys, deleted ones as long as they are remembered; at least what was there at a place that
    /// `write_values` returned.
    fn values(
        &self,
        handler: &HandlerName,
        keys: &[Key],
        place: u64,
    ) -> impl Future<Output = Result<Vec<Value>, LogError>> + Send;

    /// Writes each value unless a newer one of the same entry is there; the place at which these, or those, are. That a
    /// value was deleted is remembered until nobody has an older one to write, so the engine is told since when, after the
    /// boot of this machine, these are in hand.
    fn write_values(
        &self,
        values: &[(HandlerName, Value)],
        in_hand_since: Duration,
    ) -> impl Future<Output = Result<u64, LogError>> + Send;

    /// Every value up to this version was written, and the log says so.
    fn values_written(&self, version: u64) -> impl Future<Output = Result<(), LogError>> + Send;

    /// The sizes of the values of keys that a query may mean, in any order; of all such keys, or of the first ones by key,
    /// as many as `keys_max` that have a value.
    fn value_sizes(
        &self,
        query: &StateQuery,
        keys_max: usize,
        take: &mut (dyn FnMut(ValueSize) + Send),
    ) -> impl Future<Output = Result<(), LogError>> + Send;

    /// The place up to which values were written.
    fn values_end(&self) -> impl Future<Output = Result<u64, LogError>> + Send;

    /// Values of a handler go that are older than `version` and were written up to `place`.
    fn purge_values(
        &self,
        handler: &HandlerName,
        place: u64,
        version: u64,
    ) -> impl Future<Output = Result<(), LogError>> + Send;

    /// Keeps a dead letter whose entry goes. One that is there already stays.
    fn put_letter(
        &self,
        handler: &HandlerName,
        number: u64,
        letter: Bytes,
    ) -> impl Future<Output = Result<(), LogError>> + Send;

    fn letter(
        &self,
        handler: &HandlerName,
        number: u64,
    ) -> impl Future<Output = Result<Option<Bytes>, LogError>> + Send;

    /// Which letters are kept.
    fn letters(&self) -> impl Future<Output = Result<HashSet<(HandlerName, u64)>, LogError>> + Send;

    fn drop_letter(&self, handler: &HandlerName, number: u64) -> impl Future<Output = Result<(), LogError>> + Send;

    /// Keeps the snapshot of what is up to this sequence unless a newer one is there, in place of older ones; the sequence
    /// of the newest.
    fn put_snapshot(&self, sequence: u64, snapshot: Bytes) -> impl Future<Output = Result<u64, LogError>> + Send;

    fn newest_snapshot(&self) -> impl Future<Output = Result<Option<Bytes>, LogError>> + Send;

    /// Keeps a module of a handler and what is said of it; whole when it returns, in nobody's sight before. One that is there
    /// is replaced. A module has at most 64 MiB, whatever an entry may have.
    fn put_module(
        &self,
        handler: &HandlerName,
        digest: Digest,
        said: Bytes,
        module: Bytes,
    ) -> impl Future<Output = Result<(), LogError>> + Send;

    /// `None` only when it is certainly not there.
    fn module(
        &self,
        handler: &HandlerName,
        digest: Digest,
    ) -> impl Future<Output = Result<Option<Bytes>, LogError>> + Send;

    /// Which modules are kept, of all handlers, and what is said of them.
    fn modules(&self) -> impl Future<Output = Result<Vec<(HandlerName, Digest, Bytes)>, LogError>> + Send;

    fn drop_module(&self, handler: &HandlerName, digest: Digest) -> impl Future<Output = Result<(), LogError>> + Send;

    /// Tells a heartbeat to every host, live and at most once.
    fn beat(&self, beat: Bytes) -> impl Future<Output = Result<(), LogError>> + Send;

    /// What comes back hears every heartbeat from now on, this host's too, until it is dropped; also after a loss of the
    /// connection.
    fn listen(&self, members: Members) -> impl Future<Output = Result<BoxFuture<'static, ()>, LogError>> + Send;
}

/// Entries of an engine, as they come.
pub trait Following: Send {
    /// The next entries, without gaps unless they are gone: at least one, and those that are there already. `None`: follow
    /// anew. Safe to cancel only where nothing more is asked of it.
    fn next(&mut self) -> impl Future<Output = Result<Option<Vec<Stored>>, LogError>> + Send;
}
