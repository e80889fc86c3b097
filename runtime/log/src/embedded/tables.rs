//! What the writer does inside one transaction.
//!
//! Everything is decided before it is written: terms, numbers and limits are checked against what the writer remembers,
//! so a statement only fails when the disk does. Then the whole transaction is rolled back and what was remembered is
//! read again, but for what takes long to count: that is set back.

use super::dead_box::DeadBoxes;
use super::failure::Failure;
use super::forget;
use super::modules::{self, ModuleWrite};
use super::reroute;
use super::room::Room;
use super::rows::{self, int};
use super::shard::Shard;
use super::spans;
use super::statements::Statements;
use super::topics::Topics;
use super::trim::{self, Due};
use crate::contract::{Trim, Trimmed};
use crate::error::LogError;
use crate::limits::{check_commit, check_messages};
use crate::rerouting::Rerouting;
use crate::routings;
use rusqlite::{Connection, OptionalExtension as _, params};
use sluicebox_core::clock::Timestamp;
use sluicebox_core::commit::{CommitError, Committed, ShardCommit, Term};
use sluicebox_core::handler::{HandlerName, ShardId};
use sluicebox_core::message::{Message, NewMessage, Offset};
use sluicebox_core::routing::{Routing, reserved};
use std::collections::HashMap;

/// The tables as the transaction under way sees them.
pub(super) struct Tables<'c> {
    connection: &'c Connection,
    sql: Statements<'c>,
    end: Offset,
    time: Timestamp,
    topics: Topics,
    handlers: HashMap<HandlerName, i64>,
    shards: HashMap<ShardId, Shard>,
    /// Shards that the log does not know begin beyond it.
    terms_gone: Term,
    dead: DeadBoxes,
    /// The end before this transaction.
    before: Offset,
    room: Room,
}

/// A transaction that did not become durable.
#[derive(Debug)]
pub(super) enum Unwritten {
    /// Nothing was written.
    Nothing(Failure),
    /// It may be durable or not.
    Unknown(Failure),
}

/// Gives the messages of a durable transaction their offsets and time: after `last`, without gaps, all of one time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamper {
    pub(super) last: Offset,
    pub(super) time: Timestamp,
}

impl Stamper {
    /// The next message of the transaction, in the order in which they were written.
    pub(super) fn stamp(&mut self, message: NewMessage) -> Message {
        self.last.0 += 1;
        Message::from_new(message, self.last, self.time)
    }
}

impl<'c> Tables<'c> {
    pub(super) fn open(connection: &'c Connection, room: Room) -> Result<Self, Failure> {
        let mut tables = Self {
            connection,
            sql: Statements::prepare(connection)?,
            end: Offset::START,
            time: Timestamp(0),
            topics: Topics::default(),
            handlers: HashMap::new(),
            shards: HashMap::new(),
            terms_gone: Term::default(),
            dead: DeadBoxes::default(),
            before: Offset::START,
            room,
        };
        modules::delete_parts(connection)?;
        tables.remember()?;
        Ok(tables)
    }

    /// Reads what the transactions up to now have made durable.
    fn remember(&mut self) -> Result<(), Failure> {
        (self.end, self.time) = self.sql.end.query_row([], |row| {
            Ok((Offset(row.get::<_, i64>(0)?.cast_unsigned()), Timestamp(row.get::<_, i64>(1)?.cast_unsigned())))
        })?;
        self.terms_gone = Term(self.sql.terms.query_row([], |row| row.get::<_, i64>(0))?.cast_unsigned());
        Ok(())
    }

    /// Begins a transaction whose messages are stamped with `now`, or the last time if that is later.
    pub(super) fn begin(&mut self, now: Timestamp) -> Result<(), Failure> {
        self.sql.begin.execute([])?;
        self.time = self.time.max(now);
        self.before = self.end;
        self.room.look_again();
        Ok(())
    }

    /// Makes the transaction durable and returns what stamps its messages.
    pub(super) fn finish(&mut self) -> Result<Stamper, Unwritten> {
        if self.end > self.before {
            let end = params![int(self.end.0), int(self.time.0)];
            self.sql.end_set.execute(end).map_err(|error| Unwritten::Nothing(error.into()))?;
        }
        // DURABLE: SQLite writes and syncs the write-ahead log before this returns.
        self.sql.commit.execute([]).map_err(|error| match Failure::from(error) {
            // The frame that commits is the last one written: without room for it there is no commit to find.
            full @ Failure::Full(_) => Unwritten::Nothing(full),
            busy @ Failure::Busy(_) => Unwritten::Nothing(busy),
            broken @ Failure::Broken(_) => Unwritten::Unknown(broken),
        })?;
        self.topics.keep();
        self.dead.tell(&self.room.bounds);
        Ok(Stamper { last: self.before, time: self.time })
    }

    /// Undoes the transaction. After an error the log must stop.
    pub(super) fn undo(&mut self) -> Result<(), Failure> {
        // SQLite may have rolled back by itself.
        if !self.connection.is_autocommit() {
            self.sql.rollback.execute([])?;
        }
        self.topics.undo();
        self.dead.undo();
        self.handlers.clear();
        self.shards.clear();
        self.remember()
    }

    /// Appends all or, when one breaks a limit or there is no room, none. Commands are taken while commits are: they are
    /// what makes room when a handler waits for its operator.
    pub(super) fn append(&mut self, messages: &[NewMessage]) -> Result<Result<Vec<Offset>, LogError>, Failure> {
        if let Err(error) = check_messages(messages) {
            return Ok(Err(error.into()));
        }
        let pages = &mut self.sql.pages;
        let used_pages = || Ok(pages.query_row([], |row| row.get::<_, i64>(0))?.cast_unsigned());
        if !reserved::are_commands(messages)
            && let Some(reason) = self.room.refusal(used_pages)?
        {
            return Ok(Err(LogError::Full { reason }));
        }
        if let Some(bytes_max) = self.room.bounds.topics_bytes_max() {
            let topics = messages.iter().map(|message| &message.topic);
            // Commands are few, and on topics of handlers that there are.
            if !reserved::are_commands(messages)
                && let Some(reason) = self.topics.refusal(&mut self.sql, topics, bytes_max)?
            {
                return Ok(Err(LogError::Full { reason }));
            }
        }
        let before = self.end.0;
        self.append_checked(messages)?;
        Ok(Ok((before + 1..=self.end.0).map(Offset).collect()))
    }

    fn append_checked(&mut self, messages: &[NewMessage]) -> Result<(), Failure> {
        for message in messages {
            self.end.0 += 1;
            let topic_id = self.topics.number(&mut self.sql, &message.topic, self.end)?;
            self.sql.append.execute(params![
                int(self.end.0),
                topic_id,
                int(self.time.0),
                message.hops,
                message.key.as_ref().map(|key| key.as_str()),
                message.id.as_deref(),
                rows::headers_blob(&message.headers),
                &*message.body,
            ])?;
        }
        Ok(())
    }

    /// Raises the shard's term.
    pub(super) fn claim(&mut self, id: &ShardId, start: Offset) -> Result<Term, Failure> {
        if self.find(id)?.is_none() {
            let handler_id = match self.handler_id(&id.handler)? {
                Some(known) => known,
                None => self.sql.handler_add.insert([id.handler.as_str()])?,
            };
            let end = int(self.end.0);
            let (start, term) = (int(start.0), int(self.terms_gone.0));
            self.sql.shard_add.execute(params![handler_id, id.index, start, end, term])?;
        }
        let shard = self.find(id)?.ok_or_else(|| Failure::damaged("a shard just written is not there"))?;
        let (id, term) = (shard.id, Term(shard.term.0 + 1));
        shard.term = term;
        self.sql.shard_term.execute(params![id, int(term.0)])?;
        Ok(term)
    }

    /// Writes one shard's commit whole or not at all.
    pub(super) fn commit(&mut self, commit: &ShardCommit) -> Result<Result<Committed, CommitError>, Failure> {
        let fenced = Err(CommitError::Fenced { shard: commit.shard.clone() });
        let Some(shard) = self.find(&commit.shard)? else { return Ok(fenced) };
        if shard.term != commit.term || commit.number != shard.commit_number + 1 {
            return Ok(fenced);
        }
        if let Err(reason) = check_commit(commit, shard.read, shard.controlled) {
            return Ok(Err(CommitError::Refused { shard: commit.shard.clone(), reason }));
        }
        let shard_id = shard.id;
        // What was delayed had its topic looked at when it was taken: refused now it would be refused for ever.
        let releases = !commit.delayed_drop.is_empty();
        if let Some(bytes_max) = self.room.bounds.topics_bytes_max().filter(|_| !releases) {
            // The work under way has as much again.
            if let Some(reason) = self.names_refused(shard_id, commit, 2 * bytes_max)? {
                return Ok(Err(CommitError::Refused { shard: commit.shard.clone(), reason }));
            }
        }
        let shard = self.shards.get_mut(&commit.shard).expect("it was found above");
        shard.write(&mut self.sql, commit)?;
        let (handler_id, shard_id) = (shard.handler_id, shard.id);
        let bounds = &self.room.bounds;
        let dead_joined = self.dead.write(&mut self.sql, bounds, handler_id, shard_id, commit)?;
        self.append_checked(&commit.outputs)?;
        Ok(Ok(Committed { dead_joined }))
    }

    /// Why the topics of a commit may not be named, if so.
    fn names_refused(
        &mut self,
        shard_id: i64,
        commit: &ShardCommit,
        bytes_max: u64,
    ) -> Result<Option<String>, Failure> {
        let outputs = commit.outputs.iter().map(|output| &output.topic);
        let delayed = commit.delayed_put.iter().map(|delayed| &delayed.message.topic);
        let refused = self.topics.refusal(&mut self.sql, outputs.clone().chain(delayed), bytes_max)?;
        if refused.is_none() {
            return Ok(None);
        }
        // What the record holds already and is written with another due time was looked at too. Asked for here alone: mostly
        // there is room.
        let mut begin_to_wait = Vec::with_capacity(commit.delayed_put.len());
        for delayed in &commit.delayed_put {
            if !self.sql.delayed_has.exists(params![shard_id, int(delayed.number)])? {
                begin_to_wait.push(&delayed.message.topic);
            }
        }
        if begin_to_wait.len() == commit.delayed_put.len() {
            return Ok(refused);
        }
        self.topics.refusal(&mut self.sql, outputs.chain(begin_to_wait), bytes_max)
    }

    /// Replaces all routings if their version is still `version`.
    pub(super) fn put_routings(&mut self, version: u64, routings: &[Routing]) -> Result<Result<(), LogError>, Failure> {
        let current: i64 = self.sql.routings.query_row([], |row| row.get(0))?;
        if current.cast_unsigned() != version {
            return Ok(Err(LogError::Conflict));
        }
        let mut kept = routings.to_vec();
        for routing in &mut kept {
            spans::drop_settled(self.connection, routing)?;
        }
        self.sql.routings_set.execute(params![int(version + 1), routings::encode(&kept)])?;
        Ok(Ok(()))
    }

    /// Gives a handler another routing and all of its records anew.
    pub(super) fn reroute(&mut self, rerouting: &Rerouting) -> Result<Result<(), LogError>, Failure> {
        let current: i64 = self.sql.routings.query_row([], |row| row.get(0))?;
        if current.cast_unsigned() != rerouting.version {
            return Ok(Err(LogError::Conflict));
        }
        let handler = &rerouting.routing.handler;
        for (index, from) in (0_u16..).zip(&rerouting.from) {
            let id = ShardId { handler: handler.clone(), index };
            let found = self.find(&id)?.map(|shard| (shard.term, shard.commit_number));
            if found != Some(*from) {
                return Ok(Err(LogError::Fenced { shard: id }));
            }
        }
        let Some(handler_id) = self.handler_id(handler)? else { return Ok(Err(LogError::Conflict)) };
        reroute::write(self.connection, &mut self.sql, handler_id, rerouting)?;
        // What is remembered of them is no longer so.
        self.shards.retain(|id, _| id.handler != *handler);
        Ok(Ok(()))
    }

    /// Deletes old messages and unused topics, as many as one step may.
    pub(super) fn trim(&mut self, trim: &Trim, due: &Due) -> Result<Trimmed, Failure> {
        let topics = self.topics.delete(self.connection, &due.unused_topics)?;
        let mut trimmed = trim::step(self.connection, trim, &due.floor)?;
        trimmed.more |= topics > 0;
        self.room.trimmed(&trimmed);
        Ok(trimmed)
    }

    /// From here on nobody finds the handler; its rows are left to [`Tables::erase`].
    pub(super) fn forget(&mut self, handler: &HandlerName) -> Result<(), Failure> {
        if let Some(handler_id) = self.handler_id(handler)? {
            self.dead.forget(handler_id);
            self.sql.terms_set.execute([handler_id])?;
        }
        self.terms_gone = Term(self.sql.terms.query_row([], |row| row.get::<_, i64>(0))?.cast_unsigned());
        forget::hide(self.connection, handler)?;
        self.handlers.remove(handler);
        self.shards.retain(|id, _| id.handler != *handler);
        self.room.bounds.forget_dead(handler);
        Ok(())
    }

    /// Deletes some rows of forgotten handlers; true when nothing is left.
    pub(super) fn erase(&mut self) -> Result<bool, Failure> {
        self.dead.erase();
        forget::erase(self.connection)
    }

    /// Goes a step on with a module. Its pieces give way to the work under way as appends do.
    pub(super) fn write_module(&mut self, write: &ModuleWrite) -> Result<Result<(), LogError>, Failure> {
        let known = self.handler_id(write.handler())?;
        let incomplete =
            || LogError::Unavailable { reason: "the module went while it was put: deploy it again".into() };
        match write {
            ModuleWrite::Piece { handler, digest, index, bytes } => {
                let pages = &mut self.sql.pages;
                let used_pages = || Ok(pages.query_row([], |row| row.get::<_, i64>(0))?.cast_unsigned());
                if let Some(reason) = self.room.refusal(used_pages)? {
                    return Ok(Err(LogError::Full { reason }));
                }
                let handler_id = match known {
                    Some(known) => known,
                    None => self.sql.handler_add.insert([handler.as_str()])?,
                };
                modules::put_piece(self.connection, handler_id, *digest, *index, bytes)?;
            }
            ModuleWrite::Whole { digest, bytes, needed, .. } => {
                let Some(handler_id) = known else { return Ok(Err(incomplete())) };
                if !modules::make_whole(self.connection, handler_id, *digest, *bytes, needed, self.time)? {
                    return Ok(Err(incomplete()));
                }
            }
            ModuleWrite::Delete { digest, .. } => {
                if let Some(handler_id) = known {
                    modules::delete(self.connection, handler_id, *digest)?;
                }
            }
            ModuleWrite::Undo { digest, .. } => {
                if let Some(handler_id) = known {
                    modules::undo(self.connection, handler_id, *digest)?;
                }
            }
        }
        Ok(Ok(()))
    }

    /// The shard as last committed; `None` when it was never claimed.
    fn find(&mut self, id: &ShardId) -> Result<Option<&mut Shard>, Failure> {
        if !self.shards.contains_key(id) {
            let Some(shard) = self.read_shard(id)? else { return Ok(None) };
            self.shards.insert(id.clone(), shard);
        }
        Ok(self.shards.get_mut(id))
    }

    fn read_shard(&mut self, id: &ShardId) -> Result<Option<Shard>, Failure> {
        let Some(handler_id) = self.handler_id(&id.handler)? else { return Ok(None) };
        let shard = self.sql.shard.query_row(params![handler_id, id.index], |row| {
            Ok(Shard {
                id: row.get(0)?,
                handler_id,
                term: Term(row.get::<_, i64>(1)?.cast_unsigned()),
                commit_number: row.get::<_, i64>(2)?.cast_unsigned(),
                read: Offset(row.get::<_, i64>(3)?.cast_unsigned()),
                marks: row.get::<_, i64>(4)?.cast_unsigned(),
                controlled: Offset(row.get::<_, i64>(5)?.cast_unsigned()),
                oldest: Default::default(),
            })
        });
        Ok(shard.optional()?)
    }

    fn handler_id(&mut self, name: &HandlerName) -> Result<Option<i64>, Failure> {
        if let Some(known) = self.handlers.get(name) {
            return Ok(Some(*known));
        }
        let found = self.sql.handler.query_row([name.as_str()], |row| row.get(0)).optional()?;
        self.handlers.extend(found.map(|id| (name.clone(), id)));
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
