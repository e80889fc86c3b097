//! Restores a log into a directory that has none: into a database beside the one that a host opens, which gets that one's name
//! once everything is in it and on the disk.

use super::checkpoint::checkpoint;
use super::crash::CrashPoint;
use super::dead_box;
use super::failure::Failure;
use super::format;
use super::gaps::Gaps;
use super::lock::Lock;
use super::modules;
use super::opening::create_directory;
use super::rows::{self, int};
use super::shard::{self, MARKS_PER_ROW};
use super::statements::Statements;
use crate::error::LogError;
use crate::modules::PIECE_BYTES_MAX;
use crate::portable::{About, End, Module, Piece, Restore, ShardPart, out_of_order};
use crate::routings;
use futures_util::future::BoxFuture;
use rusqlite::{Connection, OptionalExtension as _, params};
use sluicebox_core::commit::{KeyWrites, NumberedDeadLetter, Record};
use sluicebox_core::handler::{Digest, HandlerName, ShardId};
use sluicebox_core::message::{Message, Offset};
use sluicebox_core::topic::Topic;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Memory for pages, and pages of the write-ahead log before they go into the database.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
const WAL_PAGES: i64 = 4096;
/// A transaction ends after this many pieces.
const PIECES_PER_TRANSACTION: u32 = 16;

/// A log that is being restored. Everything blocks on the disk.
pub(super) struct EmbeddedRestore {
    // Dropped in this order: the lock is the last to go.
    connection: Connection,
    crash: CrashPoint,
    directory: PathBuf,
    /// Pieces in the transaction under way.
    pieces: u32,
    after: Option<Offset>,
    topics: HashMap<Topic, (i64, Offset)>,
    shards: HashMap<ShardId, Known>,
    gaps: Gaps,
    _partial: Partial,
    _lock: Lock,
}

/// What is not whole goes with it. Where it is whole it has another name.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // What stays has a name that says what it is, and the next import clears it away.
        let _ = clear(&self.0);
    }
}

/// A shard that came.
struct Known {
    id: i64,
    handler_id: i64,
    /// The number of its last row of marks, and how many marks there are.
    row: u64,
    marks: u64,
}

impl EmbeddedRestore {
    pub(super) fn begin(directory: &Path) -> Result<Self, LogError> {
        create_directory(directory)?;
        let lock = Lock::take(&directory.join("lock"))?;
        check_absent(directory)?;
        clear(directory).map_err(|error| files(directory, "clear away what an import left in", &error))?;
        let _partial = Partial(directory.to_owned());
        let connection = format::open_or_create(&partial(directory), CACHE_BYTES)?;
        let prepared = prepare(&connection);
        prepared.map_err(LogError::from)?;
        let (topics, shards, gaps) = Default::default();
        let (directory, crash) = (directory.to_owned(), CrashPoint::from_environment());
        Ok(Self { connection, crash, directory, pieces: 0, after: None, topics, shards, gaps, _partial, _lock: lock })
    }

    fn write(&mut self, piece: Piece) -> Result<(), LogError> {
        if self.connection.is_autocommit() {
            self.connection.execute_batch("BEGIN").map_err(Failure::from)?;
        }
        let is_first = matches!(piece, Piece::About(_));
        if is_first == self.after.is_some() {
            return Err(out_of_order("what is known of the log comes first, once"));
        }
        match piece {
            Piece::About(About { after, gone, .. }) => {
                self.after = Some(after);
                self.gaps = Gaps::begin(after, gone);
            }
            Piece::Routings(all) => {
                let text = routings::encode(&all.routings);
                let version = int(all.version.max(1));
                let update = "UPDATE routings SET version = ?1, routings = ?2";
                self.connection.execute(update, params![version, text]).map_err(Failure::from)?;
            }
            Piece::Module(module) => self.module(&module)?,
            Piece::Shard(part) => self.shard(&part)?,
            Piece::State { handler, keys } => self.state(&handler, &keys)?,
            Piece::Letters(letters) => {
                let mut sql = Statements::prepare(&self.connection).map_err(Failure::from)?;
                for NumberedDeadLetter { number, letter } in &letters {
                    let known = self.shards.get(&letter.shard);
                    let known = known.ok_or_else(|| out_of_order("a dead letter comes before its shard"))?;
                    dead_box::add(&mut sql.dead_add, known.handler_id, known.id, letter, letter.deaths)?;
                    // It got the next number, and numbers rise.
                    let own = "UPDATE dead SET number = ?1 WHERE number = last_insert_rowid()";
                    self.connection.execute(own, [int(*number)]).map_err(Failure::from)?;
                }
            }
            Piece::Messages(messages) => self.messages(&messages)?,
            Piece::End(_) => return Err(out_of_order("the end is not the end")),
        }
        self.pieces += 1;
        if self.pieces >= PIECES_PER_TRANSACTION {
            self.commit()?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Failure> {
        self.pieces = 0;
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("COMMIT")?;
        }
        self.crash.reach("import");
        Ok(())
    }

    fn handler_id(&self, name: &HandlerName) -> Result<i64, Failure> {
        let mut select = self.connection.prepare_cached("SELECT id FROM handlers WHERE name = ?1")?;
        let found = select.query_row([name.as_str()], |row| row.get(0)).optional()?;
        match found {
            Some(id) => Ok(id),
            None => Ok(self
                .connection
                .prepare_cached("INSERT INTO handlers (name) VALUES (?1)")?
                .insert([name.as_str()])?),
        }
    }

    fn module(&self, module: &Module) -> Result<(), Failure> {
        let Module { handler, time, bytes } = module;
        let handler_id = self.handler_id(handler)?;
        let digest = Digest::of(bytes);
        for (index, piece) in (0..).zip(bytes.chunks(PIECE_BYTES_MAX)) {
            modules::put_piece(&self.connection, handler_id, digest, index, piece)?;
        }
        modules::make_whole(&self.connection, handler_id, digest, bytes.len() as u64, &[], *time)?;
        Ok(())
    }

    fn shard(&mut self, part: &ShardPart) -> Result<(), Failure> {
        let ShardPart { shard: id, term, record } = part;
        let Record { commit_number, read, open, marks, delayed, controlled, control } = record;
        if !self.shards.contains_key(id) {
            let handler_id = self.handler_id(&id.handler)?;
            let mut add = self.connection.prepare_cached(
                "INSERT INTO shards (handler_id, shard_index, term, commit_number, read, marks, controlled, control) \
                 VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, ?7)",
            )?;
            let (number, read, controlled) = (int(*commit_number), int(read.0), int(controlled.0));
            let control = rows::control_text(control);
            let id_ = add.insert(params![handler_id, id.index, int(term.0), number, read, controlled, control])?;
            self.shards.insert(id.clone(), Known { id: id_, handler_id, row: 0, marks: 0 });
        }
        let known = self.shards.get_mut(id).expect("it was put there if it was not");
        let mut sql = Statements::prepare(&self.connection)?;
        for head in open {
            shard::put_head(&mut sql.open_put, known.id, head)?;
        }
        for delayed in delayed {
            shard::put_delayed(&mut sql.delayed_put, known.id, delayed)?;
        }
        for marks in marks.chunks(MARKS_PER_ROW) {
            known.row += 1;
            known.marks += shard::put_marks(&mut sql.marks_put, known.id, known.row, marks)?;
        }
        Ok(())
    }

    fn state(&self, handler: &HandlerName, keys: &[KeyWrites]) -> Result<(), Failure> {
        let handler_id = self.handler_id(handler)?;
        let mut put = self.connection.prepare_cached("REPLACE INTO state VALUES (?1, ?2, ?3, ?4)")?;
        for KeyWrites { key, writes } in keys {
            for write in writes {
                let Some(value) = &write.value else { continue };
                put.execute(params![handler_id, key.as_str(), &*write.entry, &**value])?;
            }
        }
        Ok(())
    }

    fn messages(&mut self, messages: &[std::sync::Arc<Message>]) -> Result<(), LogError> {
        let mut append = self
            .connection
            .prepare_cached("INSERT INTO log VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")
            .map_err(Failure::from)?;
        for message in messages {
            if message.offset <= self.gaps.last() {
                return Err(out_of_order("messages come in the order of their offsets"));
            }
            self.gaps.add(message.offset);
            let topic_id = match self.topics.get_mut(&message.topic) {
                Some((id, used)) => {
                    *used = message.offset;
                    *id
                }
                None => {
                    let add = self.connection.prepare_cached("INSERT INTO topics (name) VALUES (?1)");
                    let id = add.map_err(Failure::from)?.insert([message.topic.as_str()]).map_err(Failure::from)?;
                    self.topics.insert(message.topic.clone(), (id, message.offset));
                    id
                }
            };
            let row = params![
                int(message.offset.0),
                topic_id,
                int(message.time.0),
                message.hops,
                message.key.as_ref().map(|key| key.as_str()),
                message.id.as_deref(),
                rows::headers_blob(&message.headers),
                &*message.body,
            ];
            append.execute(row).map_err(Failure::from)?;
        }
        Ok(())
    }

    fn complete(mut self, end: End) -> Result<(), LogError> {
        self.last_rows(end)?;
        // Else the last connection gives the write-ahead log up with what found no room.
        if !checkpoint(&self.connection, "TRUNCATE")?.is_complete() {
            let reason = "what was imported does not fit the disk: make room, and import again".into();
            return Err(LogError::Full { reason });
        }
        self.crash.reach("import-before-sync");
        // The last one goes first: the lock is the last to go.
        let Self { connection, mut crash, _lock, _partial, directory, .. } = self;
        // The last connection: what is left of its write-ahead log goes with it.
        connection.close().map_err(|(_, error)| Failure::from(error))?;
        let database = partial(&directory);
        // DURABLE: everything, before it has the name that a host opens; then the name.
        let synced = File::open(&database).and_then(|file| file.sync_all());
        synced.map_err(|error| files(&directory, "sync what was imported in", &error))?;
        check_absent(&directory)?;
        crash.reach("import-before-rename");
        let named =
            fs::rename(&database, format::database(&directory)).and_then(|()| File::open(&directory)?.sync_all());
        named.map_err(|error| files(&directory, "name what was imported in", &error))?;
        crash.reach("import-after-rename");
        Ok(())
    }

    fn last_rows(&mut self, end: End) -> Result<(), Failure> {
        if self.connection.is_autocommit() {
            self.connection.execute_batch("BEGIN")?;
        }
        let End { end, time, letters_upto, .. } = end;
        self.connection.execute("UPDATE log_end SET offset = ?1, time = ?2", params![int(end.0), int(time.0)])?;
        {
            let mut used = self.connection.prepare_cached("UPDATE topics SET used_until = ?2 WHERE id = ?1")?;
            for (id, last) in self.topics.values() {
                used.execute(params![id, int(last.0)])?;
            }
            let mut marks = self
                .connection
                .prepare_cached("UPDATE shards SET marks = ?2, commit_number = max(commit_number, ?3) WHERE id = ?1")?;
            for known in self.shards.values() {
                marks.execute(params![known.id, int(known.marks), int(known.row)])?;
            }
        }
        let numbers = "DELETE FROM sqlite_sequence WHERE name = 'dead'";
        self.connection.execute(numbers, [])?;
        let numbers = "INSERT INTO sqlite_sequence VALUES ('dead', ?1)";
        self.connection.execute(numbers, [int(letters_upto)])?;
        self.gaps.write(&self.connection, end)?;
        self.commit()
    }
}

impl Restore for EmbeddedRestore {
    fn take(&mut self, piece: Piece) -> BoxFuture<'_, Result<(), LogError>> {
        let written = self.write(piece);
        Box::pin(async { written })
    }

    fn finish(self: Box<Self>, end: End) -> BoxFuture<'static, Result<(), LogError>> {
        let done = self.complete(end);
        Box::pin(async { done })
    }
}

/// What a crash loses is thrown away, so nothing is synced before all of it is there.
fn prepare(connection: &Connection) -> Result<(), Failure> {
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
    Ok(())
}

/// The database while it is not whole.
fn partial(directory: &Path) -> PathBuf {
    directory.join("sluicebox.db.import")
}

fn check_absent(directory: &Path) -> Result<(), LogError> {
    if !format::database(directory).exists() {
        return Ok(());
    }
    let directory = directory.display();
    Err(LogError::Refused {
        reason: format!(
            "there is a log in `{directory}`: import into a directory without one, or move `sluicebox.db` away"
        ),
    })
}

/// What an import left that did not end.
fn clear(directory: &Path) -> io::Result<()> {
    for end in ["", "-wal", "-shm", "-journal"] {
        let mut name = partial(directory).into_os_string();
        name.push(end);
        match fs::remove_file(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    Ok(())
}

fn files(directory: &Path, what: &str, error: &io::Error) -> LogError {
    LogError::Refused { reason: format!("failed to {what} `{}`: {error}", directory.display()) }
}
