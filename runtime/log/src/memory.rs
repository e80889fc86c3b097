//! The log in memory: for unit tests and the simulation. It keeps every promise of the contract but loses everything
//! when the process ends.
//!
//! [`MemoryCore`] is the log without tasks, locks or clock, so that a simulation can step, copy and rewind it;
//! [`MemoryLog`] puts it behind [`Log`].

mod core;
mod inspect;
mod modules;
mod restore;

pub use self::core::MemoryCore;
pub use self::restore::MemoryRestore;

use crate::contract::{Batch, Guarantees, Log};
use crate::contract::{ReadRequest, Routings, ShardStatus, Tail, Trim, Trimmed};
use crate::error::LogError;
use crate::inspect::{DelayedFacts, DelayedQuery, HeadQuery, OpenHead, StateKey, StateQuery};
use crate::live::Live;
use crate::members::{Heartbeat, Members};
use crate::modules::Modules;
use crate::rerouting::Rerouting;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use sluicebox_core::clock::{self, Timestamp};
use sluicebox_core::commit::{
    Claim, CommitError, Committed, DeadCount, DeadFilter, DeadQuery, NumberedDeadLetter, ShardCommit,
};
use sluicebox_core::effects::Entries;
use sluicebox_core::handler::{Digest, HandlerName, ShardId};
use sluicebox_core::message::{Key, Message, NewMessage, Offset};
use sluicebox_core::routing::Routing;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A [`MemoryCore`] shared by tasks, with tails.
pub struct MemoryLog {
    core: Mutex<MemoryCore>,
    live: Live,
    members: Members,
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
}

impl MemoryLog {
    /// An empty log that stamps messages with the wall clock.
    pub fn new() -> Self {
        Self::with(MemoryCore::default(), clock::now)
    }

    /// A log that goes on from `core` and asks `clock` for the time of each append and commit.
    pub fn with(core: MemoryCore, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        let live = Live::new(core.end());
        Self { core: Mutex::new(core), live, members: Members::default(), clock: Box::new(clock) }
    }

    /// A copy of everything the log holds now.
    pub fn snapshot(&self) -> MemoryCore {
        self.core().clone()
    }

    fn core(&self) -> MutexGuard<'_, MemoryCore> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for MemoryLog {
    fn drop(&mut self) {
        self.live.close();
    }
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new()
    }
}

impl Log for MemoryLog {
    fn guarantees(&self) -> Guarantees {
        Guarantees {
            kind: "memory",
            survives_process_death: false,
            survives_power_loss: false,
            times_never_fall: true,
            several_hosts: false,
            lag_is_exact: true,
            measures_bytes: true,
            summary: "everything is lost when the process ends: the log is in memory only".into(),
        }
    }

    fn append(&self, messages: Vec<NewMessage>) -> BoxFuture<'_, Result<Vec<Offset>, LogError>> {
        Box::pin(async {
            let mut core = self.core();
            let batch = core.append(messages, (self.clock)())?;
            let offsets = batch.messages.iter().map(|message| message.offset).collect();
            // Still under the core's lock: batches are announced in offset order.
            self.live.announce(batch);
            Ok(offsets)
        })
    }

    fn read(&self, request: ReadRequest) -> BoxFuture<'_, Result<Batch, LogError>> {
        Box::pin(async move { Ok(self.core().read(&request)) })
    }

    fn fetch(&self, offsets: Vec<Offset>) -> BoxFuture<'_, Result<Vec<Option<Arc<Message>>>, LogError>> {
        Box::pin(async move { Ok(self.core().fetch(&offsets)) })
    }

    fn end(&self) -> BoxFuture<'_, Result<Offset, LogError>> {
        Box::pin(async { Ok(self.core().end()) })
    }

    fn offset_before(&self, time: Timestamp) -> BoxFuture<'_, Result<Offset, LogError>> {
        Box::pin(async move { Ok(self.core().offset_before(time)) })
    }

    fn tail(&self) -> BoxFuture<'_, Result<Box<dyn Tail>, LogError>> {
        Box::pin(async { Ok(self.live.tail().expect("only dropping the log closes it")) })
    }

    fn claim(&self, shard: ShardId, start: Offset) -> BoxFuture<'_, Result<Claim, LogError>> {
        Box::pin(async move { Ok(self.core().claim(&shard, start)) })
    }

    fn load(&self, shard: ShardId, keys: Vec<Key>) -> BoxFuture<'_, Result<Vec<Entries>, LogError>> {
        Box::pin(async move { Ok(self.core().load(&shard.handler, &keys)) })
    }

    fn commit(&self, commit: ShardCommit) -> BoxFuture<'_, Result<Committed, CommitError>> {
        Box::pin(async {
            let mut core = self.core();
            let (batch, committed) = core.commit(commit, (self.clock)())?;
            self.live.announce(batch);
            Ok(committed)
        })
    }

    fn routings(&self) -> BoxFuture<'_, Result<Routings, LogError>> {
        Box::pin(async { Ok(self.core().routings()) })
    }

    fn put_routings(&self, version: u64, routings: Vec<Routing>) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move { self.core().put_routings(version, routings) })
    }

    fn reroute(&self, rerouting: Rerouting) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move { self.core().reroute(rerouting) })
    }

    fn dead(&self, query: DeadQuery) -> BoxFuture<'_, Result<Vec<NumberedDeadLetter>, LogError>> {
        Box::pin(async move { Ok(self.core().dead(&query)) })
    }

    fn gone_after(&self, offset: Offset) -> BoxFuture<'_, Result<u64, LogError>> {
        Box::pin(async move { Ok(self.core().gone_after(offset)) })
    }

    fn dead_count(&self, filter: DeadFilter) -> BoxFuture<'_, Result<DeadCount, LogError>> {
        Box::pin(async move { Ok(self.core().dead_count(&filter)) })
    }

    fn heads(&self, query: HeadQuery) -> BoxFuture<'_, Result<Vec<OpenHead>, LogError>> {
        Box::pin(async move { Ok(self.core().heads(&query)) })
    }

    fn delayed(&self, query: DelayedQuery) -> BoxFuture<'_, Result<Vec<DelayedFacts>, LogError>> {
        Box::pin(async move { Ok(self.core().delayed(&query)) })
    }

    fn state_keys(&self, query: StateQuery) -> BoxFuture<'_, Result<Vec<StateKey>, LogError>> {
        Box::pin(async move { Ok(self.core().state_keys(&query)) })
    }

    fn trim(&self, trim: Trim) -> BoxFuture<'_, Result<Trimmed, LogError>> {
        Box::pin(async move { Ok(self.core().trim(&trim)) })
    }

    fn forget(&self, handler: HandlerName) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            self.core().forget(&handler);
            Ok(())
        })
    }

    fn status(&self) -> BoxFuture<'_, Result<Vec<ShardStatus>, LogError>> {
        Box::pin(async { Ok(self.core().status()) })
    }

    fn put_module(
        &self,
        handler: HandlerName,
        module: Bytes,
        needed: Vec<Digest>,
    ) -> BoxFuture<'_, Result<Digest, LogError>> {
        Box::pin(async move { self.core().modules.put(&handler, module, &needed, (self.clock)()) })
    }

    fn module(&self, handler: HandlerName, digest: Digest) -> BoxFuture<'_, Result<Option<Bytes>, LogError>> {
        Box::pin(async move { Ok(self.core().modules.get(&handler, digest)) })
    }

    fn modules(&self) -> BoxFuture<'_, Result<Modules, LogError>> {
        Box::pin(async move { Ok(self.core().modules.all()) })
    }

    fn beat(&self, beat: Heartbeat) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            self.members.hear(beat);
            Ok(())
        })
    }

    fn members(&self) -> &Members {
        &self.members
    }
}
