//! A log whose entries every host applies: what the kinds have in common that are on an engine for several hosts.
//!
//! - A commit is one entry, outputs included, so it is atomic by nature. It is fenced: the engine takes it only if the last
//!   entry on the shard's subject is the one that this host knows. A claim is an entry on that subject whose sequence is the
//!   term, so whoever had the shard before is fenced by it.
//! - One task ([`follower`]) reads the entries in their order and applies them to the [`replica`]: records, routings, the
//!   index of dead letters. Whoever writes an entry waits until it came back there. So what came of it is known also when the
//!   engine's answer was lost, what concerns several shards is decided by the order of entries alone, and a host that takes a
//!   shard over has its record already. A host holds the records of all shards, marks and delayed messages included;
//!   messages, dead letters' content and the state of keys stay in the engine.
//! - State that commits wrote is in memory until it is written beside the entries, by name ([`state`]); any host may do that
//!   at any time, since versions say which value is right. A [`snapshot`] of the replica goes there too.
//! - Messages are read from the entries by sequence; offsets are made of sequence and place in the entry.
//!
//! What the engine does for that is an [`engine`].
//!
//! Rejected: records that only the owner of a shard reads (a claim would read marks back for seconds, and the bound on the
//! dead letters of a handler would need a second fence); state in the replica (memory would grow with the keys).

mod appends;
pub mod engine;
mod entry;
mod follower;
mod look;
mod modules;
mod reads;
mod replica;
mod restore;
mod room;
mod shared;
mod snapshot;
mod state;
mod trim;
mod watch;

use self::appends::Appends;
use self::engine::{Engine, PublishError, Subject};
use self::entry::Entry;
use self::replica::{Outcome, Replica};
#[cfg(feature = "nats")]
pub(crate) use self::shared::unreadable;
use self::shared::{Purpose, Shared, WriteError};
use crate::contract::{Batch, Guarantees, Log, ReadRequest, Routings, ShardStatus, Tail, Trim, Trimmed};
use crate::error::LogError;
use crate::frame::{Frame, Place};
use crate::inspect::{DelayedFacts, DelayedQuery, HeadQuery, OpenHead, StateKey, StateQuery};
use crate::limits::check_commit;
use crate::members::{self, Heartbeat, Members};
use crate::modules::Modules;
use crate::portable::Restore;
use crate::records;
use crate::rerouting::Rerouting;
use crate::routings::drop_settled_spans;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use sluicebox_core::clock::{self, Timestamp};
use sluicebox_core::commit::{
    Claim, CommitError, Committed, DeadCount, DeadFilter, DeadQuery, LogId, NumberedDeadLetter, ShardCommit,
};
use sluicebox_core::effects::Entries;
use sluicebox_core::handler::{Digest, HandlerName, ShardId};
use sluicebox_core::message::{Key, Message, NewMessage, Offset};
use sluicebox_core::routing::Routing;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// Of state that commits wrote, in the memory of each host, before it goes into the engine.
pub const FLUSH_BYTES: usize = 16 * 1024 * 1024;
/// Of entries that a host which starts reads behind the last snapshot.
pub const SNAPSHOT_BYTES: u64 = 64 * 1024 * 1024;

/// How often a change is tried that met another one.
const TRIES: usize = 5;
/// How often, and how long after one another, the newest snapshot is asked for before the entries after it are given up.
const LATE_MAX: u32 = 5;
const LATE: Duration = Duration::from_millis(200);

/// When a host writes down what it has in memory.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of state in memory at which they go into the engine.
    pub flush_bytes: usize,
    /// Bytes of entries after which a snapshot is taken.
    pub snapshot_bytes: u64,
    /// So many entries that nobody needs go together, since the engine is asked each time.
    pub purge_entries: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { flush_bytes: FLUSH_BYTES, snapshot_bytes: SNAPSHOT_BYTES, purge_entries: 256 }
    }
}

/// A log on an engine, as this host has it.
pub struct Replicated<E> {
    shared: Arc<Shared<E>>,
    appends: Arc<Appends<E>>,
    /// Commits of one shard follow each other.
    in_order: Mutex<HashMap<ShardId, Arc<tokio::sync::Mutex<()>>>>,
    members: Members,
    _follower: AbortOnDropHandle<()>,
    _watch: AbortOnDropHandle<()>,
    _listener: AbortOnDropHandle<()>,
}

impl<E: Engine> Replicated<E> {
    /// Returns when all that is in the log was applied.
    pub async fn open_on(engine: E, bounds: Bounds) -> Result<Self, LogError> {
        Self::open_for(Purpose::Work, engine, bounds).await
    }

    /// Restores a log into this one, which must be empty, or the place of an import that was interrupted.
    pub(crate) async fn restore_on(engine: E, bounds: Bounds) -> Result<Box<dyn Restore>, LogError> {
        let log = Self::open_for(Purpose::Import, engine, bounds).await?;
        Ok(Box::new(restore::ReplicatedRestore::begin(log).await?))
    }

    async fn open_for(purpose: Purpose, engine: E, bounds: Bounds) -> Result<Self, LogError> {
        let replica = newest_intact(&engine).await?;
        if replica.id.is_none() {
            let begin = entry::encode(rand::random(), &Entry::Begin(LogId(rand::random())));
            match engine.publish(Subject::Control, begin, Some(0)).await {
                // Somebody else began it.
                Ok(_) | Err(PublishError::Stale) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let (_, last) = engine.ends().await?;
        let members = Members::default();
        let listener = AbortOnDropHandle::new(tokio::spawn(engine.listen(members.clone()).await?));
        let shared = Shared::new(engine, bounds, replica);
        let mut applied = shared.applied.subscribe();
        let follower = AbortOnDropHandle::new(tokio::spawn(follower::follow(shared.clone())));
        // Entries may cease to come from the first one on.
        let watch = AbortOnDropHandle::new(tokio::spawn(watch::watch(shared.clone())));
        while *applied.borrow_and_update() < last {
            let changed = tokio::select! {
                changed = applied.changed() => changed.is_ok(),
                // It failed, so nothing more comes.
                () = shared.failed() => false,
            };
            if !changed {
                shared.check()?;
                break;
            }
        }
        watch::intact(&shared, shared.engine.ends().await?)?;
        shared.opened(purpose)?;
        shared.room.look(&shared.engine).await?;
        let (appends, in_order) = (Appends::new(shared.clone()), Mutex::default());
        Ok(Self { shared, appends, in_order, members, _follower: follower, _watch: watch, _listener: listener })
    }

    /// What the engine's clock says, by which all that is in the log is dated, whoever wrote it.
    pub async fn time(&self) -> Result<Timestamp, LogError> {
        let asked = clock::instant();
        let time = self.shared.engine.time().await?;
        // Half of the way back is as much as anybody knows.
        Ok(time.after(clock::instant().saturating_duration_since(asked) / 2))
    }

    /// What the log is on.
    #[cfg(feature = "redis")]
    pub(crate) fn engine(&self) -> &E {
        &self.shared.engine
    }

    /// How many entries the engine keeps.
    pub async fn entries_kept(&self) -> Result<u64, LogError> {
        let (first, last) = self.shared.engine.ends().await?;
        Ok((last + 1).saturating_sub(first))
    }

    fn in_order(&self, shard: &ShardId) -> Arc<tokio::sync::Mutex<()>> {
        let mut in_order = self.in_order.lock().unwrap_or_else(PoisonError::into_inner);
        in_order.entry(shard.clone()).or_default().clone()
    }

    async fn claim(&self, shard: ShardId, start: Offset) -> Result<Claim, LogError> {
        let controlled = self.shared.replica().end;
        let entry = Entry::Claim { shard: shard.clone(), start, controlled };
        match self.shared.write(Subject::Journal(&shard), entry, None).await? {
            Outcome::Claimed(claim) => Ok(*claim),
            _ => Err(LogError::Unknown { reason: "another entry came back".into() }),
        }
    }

    async fn commit(&self, commit: ShardCommit) -> Result<Committed, CommitError> {
        let shard = commit.shard.clone();
        let fenced = || CommitError::Fenced { shard: shard.clone() };
        let refused = |reason| CommitError::Refused { shard: shard.clone(), reason };
        let unavailable = |reason| CommitError::Unavailable { shard: shard.clone(), reason };
        let in_order = self.in_order(&shard);
        let _in_order = in_order.lock().await;
        let (expected, read, controlled) = {
            let replica = self.shared.replica();
            let known = replica.shards.get(&shard).filter(|known| known.takes(commit.term, commit.number));
            let known = known.ok_or_else(fenced)?;
            if commit.outputs.len().max(commit.dead.len()) > Place::MESSAGES_MAX {
                return Err(refused(format!("it has more than {} messages", Place::MESSAGES_MAX)));
            }
            let in_memory = replica.written.bytes();
            if in_memory > self.shared.bounds.flush_bytes.saturating_add(state::BEHIND_BYTES_MAX) {
                return Err(unavailable(format!("{in_memory} bytes of state are not written down yet")));
            }
            (known.last, known.record.read, known.record.controlled)
        };
        // Whoever applies entries must not wait for it. What was read stays so: commits of the shard follow each other.
        check_commit(&commit, read, controlled).map_err(refused)?;
        let entry = Entry::Frame(Frame::Commit(Box::new(commit)));
        match self.shared.write(Subject::Journal(&shard), entry, Some(expected)).await {
            Ok(Outcome::Committed(committed)) => Ok(committed),
            Ok(_) => Err(fenced()),
            Err(WriteError::Published(PublishError::Stale)) => Err(fenced()),
            Err(WriteError::Published(PublishError::Full(reason) | PublishError::Unavailable(reason))) => {
                Err(unavailable(reason))
            }
            Err(WriteError::Published(PublishError::Unknown(reason))) => Err(CommitError::Unknown { shard, reason }),
            Err(error @ WriteError::TooLarge(_)) => Err(refused(LogError::from(error).to_string())),
        }
    }

    async fn put_routings(&self, version: u64, mut routings: Vec<Routing>) -> Result<(), LogError> {
        {
            let replica = self.shared.replica();
            for routing in &mut routings {
                if let Some(settled) = records::settled(replica.records(), routing) {
                    drop_settled_spans(routing, settled);
                }
            }
        }
        self.control(Entry::Routings { version, routings }).await
    }

    async fn forget(&self, handler: HandlerName) -> Result<(), LogError> {
        for _ in 0..TRIES {
            match self.try_forget(&handler).await {
                // A commit or a claim came between, or another change of the routings.
                Err(LogError::Conflict) => {}
                done => return done,
            }
        }
        Err(LogError::Unavailable { reason: format!("handler `{handler}` is in use") })
    }

    async fn try_forget(&self, handler: &HandlerName) -> Result<(), LogError> {
        let shared = &self.shared;
        let (shards, is_known) = {
            let replica = shared.replica();
            let shards: Vec<ShardId> = replica.shards.keys().filter(|id| id.handler == *handler).cloned().collect();
            let is_known = !shards.is_empty()
                || replica.dead.contains_key(handler)
                || replica.routings.routings.iter().any(|routing| routing.handler == *handler);
            (shards, is_known)
        };
        if !is_known && !modules::all(shared).await?.contains_key(handler) {
            return modules::drop_forgotten(shared, handler).await;
        }
        // Whoever still works on a shard is fenced before the handler ends.
        for shard in shards {
            self.claim(shard, Offset::START).await?;
        }
        // What is written down after this is a new handler's of the name. Values that are left after a crash are out of
        // sight, since they are of before the handler ended.
        let place = shared.engine.values_end().await?;
        let (upto, version) = {
            let replica = shared.replica();
            (replica.applied, replica.routings.version)
        };
        self.control(Entry::Forget { handler: handler.clone(), upto, version }).await?;
        let ended = shared.replica().forgotten_before(handler);
        modules::drop_forgotten(shared, handler).await?;
        shared.engine.purge_values(handler, place, ended).await
    }

    async fn control(&self, entry: Entry) -> Result<(), LogError> {
        self.shared.write(Subject::Control, entry, None).await?.done()
    }
}

/// The newest snapshot, with which the entries go on that are there.
async fn newest_intact<E: Engine>(engine: &E) -> Result<Replica, LogError> {
    let mut tries = 0;
    loop {
        let replica = snapshot::newest(engine).await?;
        let (first, last) = engine.ends().await?;
        tries += 1;
        // Whoever answers may have yet to catch up, and a newer snapshot may have come with which older entries went.
        let is_late = last < replica.applied || first > replica.applied + 1;
        if !is_late {
            return Ok(replica);
        }
        if tries == LATE_MAX {
            let known = replica.applied;
            return Err(if last < known { watch::older(last, known) } else { watch::purged(known + 1, first) });
        }
        tokio::time::sleep(LATE).await;
    }
}

impl<E> Drop for Replicated<E> {
    fn drop(&mut self) {
        self.shared.live.close();
    }
}

impl<E: Engine> Log for Replicated<E> {
    fn guarantees(&self) -> Guarantees {
        self.shared.engine.guarantees()
    }

    fn append(&self, messages: Vec<NewMessage>) -> BoxFuture<'_, Result<Vec<Offset>, LogError>> {
        Box::pin(self.appends.append(messages))
    }

    fn read(&self, request: ReadRequest) -> BoxFuture<'_, Result<Batch, LogError>> {
        Box::pin(reads::read(&self.shared, request))
    }

    fn fetch(&self, offsets: Vec<Offset>) -> BoxFuture<'_, Result<Vec<Option<Arc<Message>>>, LogError>> {
        Box::pin(reads::fetch(&self.shared, offsets))
    }

    fn end(&self) -> BoxFuture<'_, Result<Offset, LogError>> {
        Box::pin(async {
            self.shared.check()?;
            self.shared.engine.reachable()?;
            Ok(self.shared.replica().end)
        })
    }

    fn offset_before(&self, time: Timestamp) -> BoxFuture<'_, Result<Offset, LogError>> {
        Box::pin(reads::offset_before(&self.shared, time))
    }

    fn tail(&self) -> BoxFuture<'_, Result<Box<dyn Tail>, LogError>> {
        Box::pin(async {
            let closed = || LogError::Unavailable { reason: "the log was closed".into() };
            self.shared.check()?;
            self.shared.live.tail().ok_or_else(closed)
        })
    }

    fn claim(&self, shard: ShardId, start: Offset) -> BoxFuture<'_, Result<Claim, LogError>> {
        Box::pin(self.claim(shard, start))
    }

    fn load(&self, shard: ShardId, keys: Vec<Key>) -> BoxFuture<'_, Result<Vec<Entries>, LogError>> {
        Box::pin(async move { state::load(&self.shared, &shard.handler, keys).await })
    }

    fn commit(&self, commit: ShardCommit) -> BoxFuture<'_, Result<Committed, CommitError>> {
        Box::pin(self.commit(commit))
    }

    fn routings(&self) -> BoxFuture<'_, Result<Routings, LogError>> {
        Box::pin(async { self.shared.check().map(|()| self.shared.replica().routings.clone()) })
    }

    fn catch_up(&self) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async {
            match trim::catch_up(&self.shared).await {
                // A log that is full is to be opened and looked at all the same.
                Err(LogError::Full { .. }) => Ok(()),
                done => done,
            }
        })
    }

    fn put_routings(&self, version: u64, routings: Vec<Routing>) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(self.put_routings(version, routings))
    }

    fn reroute(&self, rerouting: Rerouting) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(self.control(Entry::Reroute(Box::new(rerouting))))
    }

    fn dead(&self, query: DeadQuery) -> BoxFuture<'_, Result<Vec<NumberedDeadLetter>, LogError>> {
        Box::pin(look::dead(&self.shared, query))
    }

    fn dead_count(&self, filter: DeadFilter) -> BoxFuture<'_, Result<DeadCount, LogError>> {
        Box::pin(async move { Ok(look::dead_count(&self.shared, &filter)) })
    }

    fn gone_after(&self, offset: Offset) -> BoxFuture<'_, Result<u64, LogError>> {
        Box::pin(async move { Ok(self.shared.replica().gone_after(offset)) })
    }

    fn heads(&self, query: HeadQuery) -> BoxFuture<'_, Result<Vec<OpenHead>, LogError>> {
        Box::pin(look::heads(&self.shared, query))
    }

    fn delayed(&self, query: DelayedQuery) -> BoxFuture<'_, Result<Vec<DelayedFacts>, LogError>> {
        Box::pin(async move { Ok(look::delayed(&self.shared, &query)) })
    }

    fn state_keys(&self, query: StateQuery) -> BoxFuture<'_, Result<Vec<StateKey>, LogError>> {
        Box::pin(state::keys(&self.shared, query))
    }

    fn trim(&self, trim: Trim) -> BoxFuture<'_, Result<Trimmed, LogError>> {
        Box::pin(async move { trim::trim(&self.shared, trim).await })
    }

    fn forget(&self, handler: HandlerName) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(self.forget(handler))
    }

    fn status(&self) -> BoxFuture<'_, Result<Vec<ShardStatus>, LogError>> {
        Box::pin(async { self.shared.check().map(|()| look::status(&self.shared)) })
    }

    fn put_module(
        &self,
        handler: HandlerName,
        module: Bytes,
        needed: Vec<Digest>,
    ) -> BoxFuture<'_, Result<Digest, LogError>> {
        Box::pin(async move { modules::put(&self.shared, handler, module, &needed).await })
    }

    fn module(&self, handler: HandlerName, digest: Digest) -> BoxFuture<'_, Result<Option<Bytes>, LogError>> {
        Box::pin(modules::get(&self.shared, handler, digest))
    }

    fn modules(&self) -> BoxFuture<'_, Result<Modules, LogError>> {
        Box::pin(modules::all(&self.shared))
    }

    fn beat(&self, beat: Heartbeat) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move { self.shared.engine.beat(members::encode(&beat)).await })
    }

    fn members(&self) -> &Members {
        &self.members
    }

    fn settle(&self) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async {
            self.shared.check()?;
            let _one = self.shared.housekeeping.lock().await;
            state::flush(&self.shared).await?;
            snapshot::take(&self.shared).await
        })
    }
}
