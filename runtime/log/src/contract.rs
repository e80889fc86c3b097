//! What every kind of log does, and in which words.
//!
//! What a kind guarantees:
//! - `append` is durable when it returns, in the order of the list, adjacent or not.
//! - `read` yields messages in offset order, each once, and never one whose commit may still fail.
//! - `commit` is atomic, refuses an old term, and fails for no other shard's sake.
//! - `load` is never older than the last acknowledged commit of the key's shard.
//! - The tail delivers every message after its start once, in order, or says that it fell behind.

use crate::error::LogError;
use crate::inspect::{DelayedFacts, DelayedQuery, HeadQuery, OpenHead, StateKey, StateQuery};
use crate::members::{Heartbeat, Members};
use crate::modules::Modules;
use crate::rerouting::Rerouting;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use sluicebox_core::clock::Timestamp;
use sluicebox_core::commit::{
    Claim, CommitError, Committed, Control, DeadCount, DeadFilter, DeadQuery, NumberedDeadLetter, ShardCommit, Term,
};
use sluicebox_core::effects::Entries;
use sluicebox_core::handler::{Digest, HandlerName, ShardId};
use sluicebox_core::message::{Key, Message, NewMessage, Offset};
use sluicebox_core::routing::Routing;
use sluicebox_core::topic::Pattern;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Messages in offset order and how far they reach.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub messages: Vec<Arc<Message>>,
    /// Every matching message after the start and up to here is in `messages`. Nothing more may come although the batch
    /// is empty, and more may come although `upto` did not move: a caller goes on until it is as far as it wants.
    pub upto: Offset,
}

/// What to read: messages with `after < offset <= upto` that match one of `patterns`.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    pub after: Offset,
    /// [`Offset::END`] for as far as is known now.
    pub upto: Offset,
    /// Empty: every topic.
    pub patterns: Vec<Pattern>,
    /// At most this many messages; at least 1.
    pub messages_max: usize,
    /// Stops after the message that reaches this many bytes.
    pub bytes_max: usize,
}

/// The routings in the log and the version they were read at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routings {
    pub version: u64,
    pub routings: Vec<Routing>,
}

/// The durable position of one shard, for `status`.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardStatus {
    pub shard: ShardId,
    pub term: Term,
    pub commit_number: u64,
    pub read: Offset,
    pub open: u64,
    pub marks: u64,
    pub dead: u64,
    pub delayed: u64,
    /// Messages after `read`, of any topic; whether exactly is among the [`Guarantees`].
    pub behind: u64,
    /// What operators asked of it and is in force.
    pub control: Control,
    /// Their commands up to here are in it.
    pub controlled: Offset,
}

/// What `retain` lets go: messages that no holder needs and that are too old, or the oldest while there are too many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trim {
    /// Messages older than this go.
    pub older_than: Option<Timestamp>,
    /// While the log takes more bytes than this, the oldest messages go.
    pub bytes_max: Option<u64>,
    /// Handlers whose shards still need what they have not settled: nothing at or after the oldest open head, or after
    /// `read`, or after the last applied command, of any of their shards goes; nothing after a routing's start goes
    /// for those that have a shard which was never claimed.
    pub holders: Vec<HandlerName>,
    /// Most messages deleted by one call: commits wait for it. 0: only looks who keeps them.
    pub messages_max: usize,
}

/// What a trim did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    pub deleted: u64,
    /// There is more to delete or to give back: call again.
    pub more: bool,
    /// Bytes the log takes now; whether it can say is among the [`Guarantees`].
    pub bytes: u64,
    /// The shard that kept messages which would have gone otherwise.
    pub held: Option<Held>,
}

impl Trimmed {
    /// The shard that kept messages, without what it needs them for.
    pub fn held_by(&self) -> Option<&ShardId> {
        self.held.as_ref().map(|held| &held.shard)
    }
}

/// A shard that keeps old messages in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub shard: ShardId,
    pub why: Why,
    /// As operators asked.
    pub paused: bool,
    pub tripped: bool,
}

/// What a shard needs old messages for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// One of them failed and waits, or waits behind one that did.
    Open,
    /// Its record does not say that it has read them.
    Unread,
    /// It was never started, so it begins before them.
    NeverStarted,
}

/// What is true of it, and what its operator can do.
impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shard, why, paused, tripped } = self;
        let handler = &shard.handler;
        let why = match why {
            Why::Open => "a message of it failed and waits, or waits behind one that did",
            Why::Unread => "it has not written down that it read them",
            Why::NeverStarted => "it was never started",
        };
        let (state, command) = match (paused, tripped) {
            (true, _) => (" (the handler is paused)", "resume"),
            (false, true) => (" (its breaker was opened by hand)", "breaker reset"),
            (false, false) => ("", "show"),
        };
        let verb = if command == "show" { "see" } else { "let it go on with" };
        write!(
            f,
            "shard {shard} keeps old messages: {why}{state}; {verb} `sluicebox handlers {command} {handler}`, or remove it \
             from the settings and delete what is left of it with `sluicebox handlers forget {handler}`"
        )
    }
}

/// How full a log is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes it takes; 0 where the kind cannot say.
    pub bytes: u64,
    /// Here nothing new is taken.
    pub bytes_max: Option<u64>,
    /// Why nothing new is taken now, and what makes room.
    pub full: Option<String>,
    /// Most bytes that the dead letters of one handler take.
    pub dead_bytes_max: Option<u64>,
    /// The dead letters of handlers that had any since the log was opened.
    pub dead: BTreeMap<HandlerName, DeadUsage>,
}

/// What the dead letters of a handler take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeadUsage {
    pub letters: u64,
    pub bytes: u64,
    /// How many went for the bytes that they took, since the log was opened.
    pub dropped_for_bytes: u64,
}

/// What this log really offers: printed at start, and the parameters of the conformance suite. Where kinds may differ
/// there is a field for it; all else is the same for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarantees {
    /// What the kind is called. For people: whoever wants to know what it does asks for one of the others.
    pub kind: &'static str,
    /// An acknowledged write outlives kill -9 of the host.
    pub survives_process_death: bool,
    /// An acknowledged write outlives loss of power. Where that depends on the place of the data, as it is there.
    pub survives_power_loss: bool,
    /// The time of a message is never before that of the one before it, whatever the clock does.
    pub times_never_fall: bool,
    /// Several hosts may work on it at once.
    pub several_hosts: bool,
    /// `behind` in [`ShardStatus`] counts the messages; elsewhere it is about.
    pub lag_is_exact: bool,
    /// `bytes` in [`Trimmed`] says what the log takes and `bytes_max` in [`Trim`] holds; elsewhere it is 0.
    pub measures_bytes: bool,
    /// One sentence for people: what is in force and why.
    pub summary: String,
}

impl Guarantees {
    /// What is in force, in one short line for people; `summary` says why.
    pub fn short(&self) -> String {
        let outlives = match (self.survives_process_death, self.survives_power_loss) {
            (_, true) => "what is acknowledged outlives kill -9 and loss of power",
            (true, false) => "what is acknowledged outlives kill -9, not loss of power",
            (false, false) => "everything is lost when the host ends",
        };
        format!("exactly-once effects; {outlives}")
    }
}

/// The tail fell behind and lost messages after `last`: read them from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lagged;

/// The live end of the log, from the moment it was opened.
pub trait Tail: Send {
    /// Every message after this offset comes out of `next`.
    fn start(&self) -> Offset;
    /// The next durable messages, never an empty batch; `None` when the log was closed. Safe to cancel.
    /// After [`Lagged`] it goes on with newer messages: the missing ones are those between the last `upto` and the
    /// first offset of the next batch.
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Arc<Batch>, Lagged>>>;
}

/// A kind of log. Cheap to share; all methods may be called at once.
pub trait Log: Send + Sync + 'static {
    fn guarantees(&self) -> Guarantees;

    /// Appends in order; durable when it returns. Checks [`NewMessage::check`] before it writes any of them.
    fn append(&self, messages: Vec<NewMessage>) -> BoxFuture<'_, Result<Vec<Offset>, LogError>>;

    fn read(&self, request: ReadRequest) -> BoxFuture<'_, Result<Batch, LogError>>;

    /// The messages at these offsets, in the same order; `None` only where it is certain that `retain` deleted it.
    fn fetch(&self, offsets: Vec<Offset>) -> BoxFuture<'_, Result<Vec<Option<Arc<Message>>>, LogError>>;

    /// Offset of the last durable message; [`Offset::START`] when there is none.
    fn end(&self) -> BoxFuture<'_, Result<Offset, LogError>>;

    /// Offset of the last message older than `time`: reading after it yields what came since.
    fn offset_before(&self, time: Timestamp) -> BoxFuture<'_, Result<Offset, LogError>>;

    fn tail(&self) -> BoxFuture<'_, Result<Box<dyn Tail>, LogError>>;

    /// Takes the shard over: raises its term and returns its record. A shard the log does not know starts with
    /// `read = start`. No term of a shard is ever given again, also not when its handler was forgotten meanwhile.
    fn claim(&self, shard: ShardId, start: Offset) -> BoxFuture<'_, Result<Claim, LogError>>;

    /// The state of these keys, which belong to this shard, in the same order; never older than the shard's last
    /// acknowledged commit through this handle. Where several hosts share the log, a shard that another host has taken
    /// over may be answered with [`LogError::Fenced`].
    fn load(&self, shard: ShardId, keys: Vec<Key>) -> BoxFuture<'_, Result<Vec<Entries>, LogError>>;

    /// Writes a shard's commit whole or not at all. Commits of many shards come at once; whether the kind merges those
    /// that wait into one write is its own business, and none fails because of what it was merged with.
    fn commit(&self, commit: ShardCommit) -> BoxFuture<'_, Result<Committed, CommitError>>;

    fn routings(&self) -> BoxFuture<'_, Result<Routings, LogError>>;

    /// Returns once all that was acknowledged to anybody before this call is seen here. Where several hosts share a log, what one of them
    /// knows may be of a moment ago: a write finds that out, and who decides that nothing has to be written asks here.
    fn catch_up(&self) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async { Ok(()) })
    }

    /// Replaces all routings if their version is still `version`. Spans that no shard can need any more, since all have
    /// settled what lies before the next one, are left out.
    fn put_routings(&self, version: u64, routings: Vec<Routing>) -> BoxFuture<'_, Result<(), LogError>>;

    /// Replaces the routing of a handler and the records of its shards, whole or not at all. [`LogError::Conflict`] when the
    /// routings have another version; [`LogError::Fenced`] when a shard was claimed or committed since, or is not there.
    /// Claims and commits of before are fenced from then on.
    fn reroute(&self, rerouting: Rerouting) -> BoxFuture<'_, Result<(), LogError>>;

    fn dead(&self, query: DeadQuery) -> BoxFuture<'_, Result<Vec<NumberedDeadLetter>, LogError>>;

    /// How many dead letters a filter means.
    fn dead_count(&self, filter: DeadFilter) -> BoxFuture<'_, Result<DeadCount, LogError>>;

    /// How many messages after this offset are gone; about where [`Guarantees::lag_is_exact`] is false.
    fn gone_after(&self, offset: Offset) -> BoxFuture<'_, Result<u64, LogError>>;

    /// How full it is. A kind without bounds of its own has nothing to say.
    fn usage(&self) -> BoxFuture<'_, Result<Usage, LogError>> {
        Box::pin(async { Ok(Usage::default()) })
    }

    /// Open heads of a handler, by offset.
    fn heads(&self, query: HeadQuery) -> BoxFuture<'_, Result<Vec<OpenHead>, LogError>>;

    /// Messages of a handler that are held back until they are due, the next one first.
    fn delayed(&self, query: DelayedQuery) -> BoxFuture<'_, Result<Vec<DelayedFacts>, LogError>>;

    /// Keys of a handler that have state, by key; what is in it `load` tells.
    fn state_keys(&self, query: StateQuery) -> BoxFuture<'_, Result<Vec<StateKey>, LogError>>;

    /// Deletes old messages, as many as one step may.
    fn trim(&self, trim: Trim) -> BoxFuture<'_, Result<Trimmed, LogError>>;

    /// Keeps a module for the hosts that run the handler; durable and whole when it returns, in nobody's sight before. One that
    /// is there already is the newest then. Of the handler's modules at most [`MODULES_MAX`](crate::MODULES_MAX) stay, the
    /// oldest go first, and none of `needed`. Refused with [`LogError::Full`] where an append would be.
    fn put_module(
        &self,
        handler: HandlerName,
        module: Bytes,
        needed: Vec<Digest>,
    ) -> BoxFuture<'_, Result<Digest, LogError>>;

    /// A module of a handler, compared with its digest; `None`: it was never put there, or went since.
    fn module(&self, handler: HandlerName, digest: Digest) -> BoxFuture<'_, Result<Option<Bytes>, LogError>>;

    /// Which modules there are, of all handlers that have any.
    fn modules(&self) -> BoxFuture<'_, Result<Modules, LogError>>;

    /// Deletes everything of a handler: routing, records, marks, state, delayed messages, dead letters and modules. Claims and
    /// commits of its shards that come later are those of a new handler, or fenced. Whether it is still in use the
    /// caller knows. Unknown handlers are already forgotten. After an error or a crash what is
    /// left is out of everyone's sight; any later call deletes it.
    fn forget(&self, handler: HandlerName) -> BoxFuture<'_, Result<(), LogError>>;

    /// The durable position of every shard the log knows.
    fn status(&self) -> BoxFuture<'_, Result<Vec<ShardStatus>, LogError>>;

    /// Tells every host that has this log open, this one included. Live and at most once: nothing becomes durable, nothing is
    /// sent later, and whoever does not hear this one hears the next.
    fn beat(&self, beat: Heartbeat) -> BoxFuture<'_, Result<(), LogError>>;

    /// Who was heard since the log was opened, this host included once it beat. After a loss of the connection others are
    /// heard again by themselves.
    fn members(&self) -> &Members;

    /// Writes down what is only in memory, so that the next start is short. Nothing is lost without it.
    fn settle(&self) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async { Ok(()) })
    }
}
