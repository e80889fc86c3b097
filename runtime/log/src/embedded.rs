//! The embedded log: SQLite in a directory of this machine, for one host. The default.
//!
//! One thread writes: it takes all that waits into one transaction, syncs it to the disk once, and then answers
//! everyone. A few read-only connections serve reads meanwhile. What was answered outlives the death of the process and
//! the loss of power, where the file system is one of a disk.
//!
//! A directory holds `sluicebox.db` (with its `-wal` and `-shm`) and `lock`; one process works on it at a time, any
//! number may look at it with [`EmbeddedLog::open_read_only`].

mod backup;
mod checkpoint;
mod crash;
mod dead;
mod dead_box;
mod failure;
mod file_system;
mod forget;
mod format;
mod gaps;
mod inspect;
mod lock;
mod log_state;
mod modules;
mod opening;
mod queries;
mod readers;
mod redate;
mod requests;
mod reroute;
mod restore;
mod room;
mod rows;
mod shard;
mod spans;
mod statements;
mod tables;
mod topics;
mod trim;
mod writer;

pub use self::backup::{BackupError, Copied};
pub use self::opening::Opening;
pub use self::redate::HostBoot;

use self::failure::Failure;
use self::file_system::{FileSystem, Keeps};
use self::log_state::LogState;
use self::modules::ModuleWrite;
use self::queries::Reader;
use self::readers::{Length, Readers};
use self::requests::Request;
use self::restore::EmbeddedRestore;
use self::room::{Bounds, Room};
use self::trim::Looked;
use self::writer::{Unanswered, Writer, WriterResources};
use crate::contract::{Batch, Guarantees, Log};
use crate::contract::{ReadRequest, Routings, ShardStatus, Tail, Trim, Trimmed, Usage};
use crate::error::LogError;
use crate::inspect::{DelayedFacts, DelayedQuery, HeadQuery, OpenHead, StateKey, StateQuery};
use crate::members::{Heartbeat, Members};
use crate::modules::{self as stored, Modules, PIECE_BYTES_MAX};
use crate::portable::Restore;
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
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// How an embedded log is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Reads at once; at least 1.
    pub readers: usize,
    /// Memory for pages that the writer keeps.
    pub writer_cache_bytes: u64,
    /// Memory for pages that each reader keeps.
    pub reader_cache_bytes: u64,
    /// At this size of the database appends are refused, while commits go on into a reserve of an eighth of it.
    /// `None`: until the disk is full.
    pub bytes_max: Option<u64>,
    /// When the disk has fewer bytes left appends are refused, and commits go on into what is left.
    pub disk_reserve_bytes: u64,
    /// The write-ahead log starts over at about this size. A larger one makes commits cheaper, since pages that are
    /// written again and again are copied less often, and the start after a crash dearer.
    pub wal_bytes_max: u64,
    /// How long writes wait while another process holds the database (a tool that looks at it, a copy being made); then
    /// they are refused, and the log goes on.
    pub lock_wait: Duration,
    /// Asked for the time of each transaction. A host has its own time, see [`clock::steady`].
    pub clock: fn() -> Timestamp,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            readers: 3,
            writer_cache_bytes: 64 * 1024 * 1024,
            reader_cache_bytes: 16 * 1024 * 1024,
            bytes_max: None,
            disk_reserve_bytes: 32 * 1024 * 1024,
            wal_bytes_max: 256 * 1024 * 1024,
            lock_wait: Duration::from_secs(30),
            clock: clock::now,
        }
    }
}

/// A log in a directory. Dropping it waits until everything it took is written.
pub struct EmbeddedLog {
    state: Arc<LogState>,
    bounds: Bounds,
    readers: Arc<Readers>,
    access: Access,
    file_system: FileSystem,
    /// It was another kind of log before.
    has_gaps: bool,
    /// Where the next trim goes on looking for topics that nobody needs.
    topics_looked_at: AtomicI64,
    /// This host, and nobody else.
    members: Members,
}

enum Access {
    ReadWrite(Writer),
    /// The end is read from the database each time: another process moves it.
    ReadOnly,
}

impl EmbeddedLog {
    /// Opens the log in `directory` and makes both if they do not exist.
    ///
    /// Blocks on the disk. Refused when another process has it open, when its format is newer, or when the file is not
    /// a log.
    pub fn open(directory: &Path, options: Options) -> Result<Self, LogError> {
        Opening::begin(directory, options)?.open()
    }

    fn start(opening: Opening) -> Result<Self, LogError> {
        let Opening { directory, lock, connection, options } = opening;
        let (directory, path) = (directory.as_path(), format::database(&directory));
        let bounds = Bounds::new(directory.to_owned(), options.bytes_max, options.disk_reserve_bytes);
        let room = Room::limit(&connection, bounds.clone())?;
        let readers = open_readers(&path, &options)?;
        let has_gaps = gaps::has_any(&connection)?;
        let end = Reader::new(format::open_to_read(&path, 0)?).end()?;
        let state = Arc::new(LogState::new(end));
        let second_connection = format::open_to_checkpoint(&path)?;
        let Options { clock, wal_bytes_max, lock_wait, .. } = options;
        let writer = Writer::start(WriterResources {
            lock,
            connection,
            second_connection,
            state: state.clone(),
            clock,
            room,
            wal_bytes_max,
            lock_wait,
        })?;
        Ok(Self { has_gaps, ..Self::with(bounds, directory, state, readers, Access::ReadWrite(writer)) })
    }

    /// Opens the log in `directory` to look at it, also while a host works on it. Whatever writes is refused.
    pub fn open_read_only(directory: &Path) -> Result<Self, LogError> {
        let readers = open_readers(&format::database(directory), &Options::default())?;
        let state = Arc::new(LogState::new(Offset::START));
        let bounds = Bounds::new(directory.to_owned(), None, 0);
        Ok(Self::with(bounds, directory, state, readers, Access::ReadOnly))
    }

    fn with(bounds: Bounds, directory: &Path, state: Arc<LogState>, readers: Arc<Readers>, access: Access) -> Self {
        let file_system = FileSystem::of(directory);
        let (topics_looked_at, members) = (AtomicI64::new(0), Members::default());
        let has_gaps = false;
        Self { state, bounds, readers, access, file_system, has_gaps, topics_looked_at, members }
    }

    /// Copies the data in `directory` and the host's versions of `modules` to `to`, which must not exist or be empty;
    /// `progress` hears the bytes done and in all. A host can be started on the copy. Blocks on the disk.
    pub fn backup(
        directory: &Path,
        modules: &Path,
        to: &Path,
        progress: impl FnMut(u64, u64),
    ) -> Result<Copied, BackupError> {
        backup::back_up(directory, modules, to, progress)
    }

    /// Restores a log into `directory`, which must have none. A log is there once all of it is. Blocks on the disk.
    pub fn restore(directory: &Path) -> Result<Box<dyn Restore>, LogError> {
        Ok(Box::new(EmbeddedRestore::begin(directory)?))
    }

    fn writer(&self) -> Result<&Writer, LogError> {
        match &self.access {
            Access::ReadWrite(writer) => Ok(writer),
            Access::ReadOnly => Err(LogError::Refused { reason: "the log was opened to look at it only".into() }),
        }
    }

    async fn query<T: Send + 'static>(
        &self,
        length: Length,
        query: impl FnOnce(&mut Reader) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, LogError> {
        self.state.check()?;
        Ok(self.readers.run(length, query).await?)
    }

    async fn put_pieces(
        &self,
        handler: &HandlerName,
        digest: Digest,
        module: &Bytes,
        needed: Vec<Digest>,
    ) -> Result<(), LogError> {
        if let Err(LogError::Refused { .. }) = self.module(handler.clone(), digest).await {
            self.write_module(ModuleWrite::Delete { handler: handler.clone(), digest }).await?;
        }
        for (index, piece) in (0..).zip(module.chunks(PIECE_BYTES_MAX)) {
            let bytes = module.slice_ref(piece);
            self.write_module(ModuleWrite::Piece { handler: handler.clone(), digest, index, bytes }).await?;
        }
        let bytes = module.len() as u64;
        self.write_module(ModuleWrite::Whole { handler: handler.clone(), digest, bytes, needed }).await
    }

    async fn write_module(&self, write: ModuleWrite) -> Result<(), LogError> {
        let asked = self.writer()?.ask(|answer| Request::Module { write, answer }).await;
        asked.unwrap_or_else(|unanswered| Err(self.unanswered(unanswered)))
    }

    /// `Err` when the writer ended without an answer.
    fn unanswered(&self, unanswered: Unanswered) -> LogError {
        match (self.state.check(), unanswered) {
            (Err(stopped), _) => stopped.into(),
            (Ok(()), Unanswered::NotTaken) => LogError::Unavailable { reason: "it was closed".into() },
            (Ok(()), Unanswered::Lost) => LogError::Unknown { reason: "its writer ended".into() },
        }
    }
}

fn open_readers(path: &Path, options: &Options) -> Result<Arc<Readers>, LogError> {
    let open = |_| format::open_to_read(path, options.reader_cache_bytes).map(Reader::new);
    Ok(Readers::new((0..options.readers.max(1)).map(open).collect::<Result<_, _>>()?))
}

impl Log for EmbeddedLog {
    fn guarantees(&self) -> Guarantees {
        Guarantees {
            kind: "embedded",
            survives_process_death: true,
            survives_power_loss: self.file_system.keeps == Keeps::Disk,
            times_never_fall: true,
            several_hosts: false,
            lag_is_exact: !self.has_gaps,
            measures_bytes: true,
            summary: format!(
                "SQLite {} with a write-ahead log and `synchronous = FULL`: {}",
                rusqlite::version(),
                self.file_system.describe()
            ),
        }
    }

    fn append(&self, messages: Vec<NewMessage>) -> BoxFuture<'_, Result<Vec<Offset>, LogError>> {
        Box::pin(async move {
            let asked = self.writer()?.ask(|answer| Request::Append { messages, answer }).await;
            asked.unwrap_or_else(|unanswered| Err(self.unanswered(unanswered)))
        })
    }

    fn read(&self, request: ReadRequest) -> BoxFuture<'_, Result<Batch, LogError>> {
        Box::pin(async move {
            // Taken before the read: what it sees up to here is complete, and nothing beyond is claimed.
            let end = self.end().await?;
            self.query(Length::Scan, move |reader| reader.read(&request, end)).await
        })
    }

    fn fetch(&self, offsets: Vec<Offset>) -> BoxFuture<'_, Result<Vec<Option<Arc<Message>>>, LogError>> {
        Box::pin(self.query(Length::Short, move |reader| reader.fetch(&offsets)))
    }

    fn end(&self) -> BoxFuture<'_, Result<Offset, LogError>> {
        Box::pin(async {
            match self.access {
                Access::ReadWrite(_) => self.state.check_open().map(|()| self.state.live.end()),
                Access::ReadOnly => self.query(Length::Short, |reader| reader.end()).await,
            }
        })
    }

    fn offset_before(&self, time: Timestamp) -> BoxFuture<'_, Result<Offset, LogError>> {
        Box::pin(self.query(Length::Short, move |reader| reader.offset_before(time)))
    }

    fn tail(&self) -> BoxFuture<'_, Result<Box<dyn Tail>, LogError>> {
        Box::pin(async {
            self.writer()?;
            self.state.check()?;
            self.state.live.tail().ok_or_else(|| self.unanswered(Unanswered::NotTaken))
        })
    }

    fn claim(&self, shard: ShardId, start: Offset) -> BoxFuture<'_, Result<Claim, LogError>> {
        Box::pin(async move {
            let id = shard.clone();
            let asked = self.writer()?.ask(|answer| Request::Claim { shard: id, start, answer }).await;
            let term = asked.unwrap_or_else(|unanswered| Err(self.unanswered(unanswered)))?;
            // The term is durable, so the record stands still: only whoever claims after us can move it on, and that
            // fences us.
            let (log, record) =
                self.query(Length::Scan, move |reader| Ok((reader.log_id()?, reader.record(&shard)?))).await?;
            let record = record.ok_or_else(|| Failure::damaged("a shard that was claimed is not there"))?;
            Ok(Claim { log, term, record })
        })
    }

    fn load(&self, shard: ShardId, keys: Vec<Key>) -> BoxFuture<'_, Result<Vec<Entries>, LogError>> {
        Box::pin(self.query(Length::Short, move |reader| reader.load(&shard.handler, &keys)))
    }

    fn commit(&self, commit: ShardCommit) -> BoxFuture<'_, Result<Committed, CommitError>> {
        Box::pin(async move {
            let shard = commit.shard.clone();
            let writer = match self.writer() {
                Ok(writer) => writer,
                Err(error) => return Err(CommitError::Unavailable { shard, reason: error.to_string() }),
            };
            match writer.ask(|answer| Request::Commit { commit: Box::new(commit), answer }).await {
                Ok(answer) => answer,
                Err(unanswered) => {
                    let reason = self.unanswered(unanswered).to_string();
                    Err(match unanswered {
                        Unanswered::NotTaken => CommitError::Unavailable { shard, reason },
                        Unanswered::Lost => CommitError::Unknown { shard, reason },
                    })
                }
            }
        })
    }

    fn routings(&self) -> BoxFuture<'_, Result<Routings, LogError>> {
        Box::pin(self.query(Length::Short, |reader| reader.routings()))
    }

    fn put_routings(&self, version: u64, routings: Vec<Routing>) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            let asked = self.writer()?.ask(|answer| Request::PutRoutings { version, routings, answer }).await;
            asked.unwrap_or_else(|unanswered| Err(self.unanswered(unanswered)))
        })
    }

    fn dead(&self, query: DeadQuery) -> BoxFuture<'_, Result<Vec<NumberedDeadLetter>, LogError>> {
        Box::pin(self.query(Length::Scan, move |reader| reader.dead(&query)))
    }

    fn dead_count(&self, filter: DeadFilter) -> BoxFuture<'_, Result<DeadCount, LogError>> {
        Box::pin(self.query(Length::Scan, move |reader| reader.dead_count(&filter)))
    }

    fn heads(&self, query: HeadQuery) -> BoxFuture<'_, Result<Vec<OpenHead>, LogError>> {
        Box::pin(self.query(Length::Scan, move |reader| reader.heads(&query)))
    }

    fn delayed(&self, query: DelayedQuery) -> BoxFuture<'_, Result<Vec<DelayedFacts>, LogError>> {
        Box::pin(self.query(Length::Scan, move |reader| reader.delayed_facts(&query)))
    }

    fn state_keys(&self, query: StateQuery) -> BoxFuture<'_, Result<Vec<StateKey>, LogError>> {
        Box::pin(self.query(Length::Scan, move |reader| reader.state_keys(&query)))
    }

    fn trim(&self, trim: Trim) -> BoxFuture<'_, Result<Trimmed, LogError>> {
        Box::pin(async move {
            let writer = self.writer()?;
            let wanted = trim.clone();
            let after = self.topics_looked_at.load(Ordering::Relaxed);
            let look = move |reader: &mut Reader| {
                let (unused_topics, next) = reader.unused_topics(after)?;
                Ok((reader.look(&wanted, unused_topics)?, next))
            };
            let (looked, next) = self.query(Length::Scan, look).await?;
            self.topics_looked_at.store(next, Ordering::Relaxed);
            match looked {
                Looked::NothingToDo { bytes } => Ok(Trimmed { bytes, ..Trimmed::default() }),
                Looked::Due(due) => {
                    let due = Box::new(due);
                    let asked = writer.ask(|answer| Request::Trim { trim, due, answer }).await;
                    asked.unwrap_or_else(|unanswered| Err(self.unanswered(unanswered)))
                }
            }
        })
    }

    fn reroute(&self, rerouting: Rerouting) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            let rerouting = Box::new(rerouting);
            let asked = self.writer()?.ask(|answer| Request::Reroute { rerouting, answer }).await;
            asked.unwrap_or_else(|unanswered| Err(self.unanswered(unanswered)))
        })
    }

    fn gone_after(&self, offset: Offset) -> BoxFuture<'_, Result<u64, LogError>> {
        Box::pin(self.query(Length::Short, move |reader| reader.gone_after(offset)))
    }

    fn usage(&self) -> BoxFuture<'_, Result<Usage, LogError>> {
        let bounds = self.bounds.clone();
        Box::pin(self.query(Length::Short, move |reader| bounds.usage(reader.connection())))
    }

    fn forget(&self, handler: HandlerName) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            let asked = self.writer()?.ask(|answer| Request::Forget { handler, answer }).await;
            asked.unwrap_or_else(|unanswered| Err(self.unanswered(unanswered)))?;
            loop {
                let asked = self.writer()?.ask(|answer| Request::Erase { answer }).await;
                if asked.unwrap_or_else(|unanswered| Err(self.unanswered(unanswered)))? {
                    return Ok(());
                }
            }
        })
    }

    fn status(&self) -> BoxFuture<'_, Result<Vec<ShardStatus>, LogError>> {
        Box::pin(self.query(Length::Scan, |reader| reader.status()))
    }

    fn put_module(
        &self,
        handler: HandlerName,
        module: Bytes,
        needed: Vec<Digest>,
    ) -> BoxFuture<'_, Result<Digest, LogError>> {
        Box::pin(async move {
            stored::check(&module)?;
            let digest = Digest::of(&module);
            let put = self.put_pieces(&handler, digest, &module, needed).await;
            if put.is_err() {
                // What this leaves when it fails too goes when the log is opened again.
                let _ = self.write_module(ModuleWrite::Undo { handler, digest }).await;
            }
            put.map(|()| digest)
        })
    }

    fn module(&self, handler: HandlerName, digest: Digest) -> BoxFuture<'_, Result<Option<Bytes>, LogError>> {
        Box::pin(async move {
            let name = handler.clone();
            let module = self.query(Length::Scan, move |reader| reader.module(&name, digest)).await?;
            module.map(|module| stored::verified(&handler, digest, module)).transpose()
        })
    }

    fn modules(&self) -> BoxFuture<'_, Result<Modules, LogError>> {
        Box::pin(self.query(Length::Short, |reader| reader.modules()))
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
