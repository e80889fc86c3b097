//! The log in memory as a plain value: no task, no lock, no clock. Times are handed in.

use super::modules::Kept;
use crate::contract::{Batch, ReadRequest, Routings, ShardStatus, Trim, Trimmed};
use crate::error::LogError;
use crate::limits::{check_commit, check_messages};
use crate::portable::{About, End, Module, Piece, ShardPart};
use crate::records::{self, ShardRecord};
use crate::rerouting::{MovedLetter, Rerouting};
use crate::routings::drop_settled_spans;
use sluicebox_core::clock::Timestamp;
use sluicebox_core::commit::{
    Claim, CommitError, Committed, DeadCount, DeadFilter, DeadOrder, DeadQuery, Delayed, Head, KeyWrites, LogId,
    NumberedDeadLetter, Record, ShardCommit, Term,
};
use sluicebox_core::effects::Entries;
use sluicebox_core::handler::{HandlerName, ShardId};
use sluicebox_core::message::{Key, Message, NewMessage, Offset};
use sluicebox_core::routing::Routing;
use sluicebox_core::skew::Redate;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Everything a log holds. A clone is a snapshot: bodies and state values are shared, not copied.
#[derive(Clone, Debug, Default)]
pub struct MemoryCore {
    id: LogId,
    /// Ascending by offset.
    messages: Vec<Arc<Message>>,
    /// Offset and time of the last message, which may be gone.
    last: (Offset, Timestamp),
    /// Messages ever appended.
    appended: u64,
    shards: BTreeMap<ShardId, ShardRecord>,
    state: BTreeMap<HandlerName, HashMap<Key, Entries>>,
    /// Ascending by number.
    dead: Vec<NumberedDeadLetter>,
    dead_last: u64,
    routings: Routings,
    /// Handlers that were forgotten had terms up to here: later ones begin beyond.
    terms_gone: Term,
    /// Those that were trimmed.
    gone: Vec<Offset>,
    pub(super) modules: Kept,
}

impl MemoryCore {
    /// An empty log with this identity; the default has that of number 0.
    pub fn new(id: LogId) -> Self {
        Self { id, ..Self::default() }
    }

    /// Appends all or, when one breaks a limit, none; returns them as stored.
    pub fn append(&mut self, messages: Vec<NewMessage>, now: Timestamp) -> Result<Batch, LogError> {
        check_messages(&messages)?;
        Ok(self.append_checked(messages, now))
    }

    fn append_checked(&mut self, messages: Vec<NewMessage>, now: Timestamp) -> Batch {
        let first = self.messages.len();
        for new in messages {
            let (last, time) = (self.last.0.0, self.last.1.max(now));
            // Offsets have gaps of 1 to 3, so that whoever adds one to an offset fails in the tests.
            let offset = Offset(last + 1 + self.appended % 3);
            self.last = (offset, time);
            self.appended += 1;
            self.messages.push(Arc::new(Message::from_new(new, offset, time)));
        }
        Batch { messages: self.messages[first..].to_vec(), upto: self.end() }
    }

    /// See [`Log::read`](crate::contract::Log::read).
    pub fn read(&self, request: &ReadRequest) -> Batch {
        let mut batch = Batch { messages: vec![], upto: request.upto.min(self.end()).max(request.after) };
        let mut bytes = 0;
        for message in &self.messages[self.index_after(request.after)..] {
            if message.offset > request.upto {
                break;
            }
            let wanted =
                request.patterns.is_empty() || request.patterns.iter().any(|pattern| pattern.matches(&message.topic));
            if !wanted {
                continue;
            }
            bytes += message.bytes();
            batch.messages.push(message.clone());
            if batch.messages.len() >= request.messages_max || bytes >= request.bytes_max {
                batch.upto = message.offset;
                break;
            }
        }
        batch
    }

    /// See [`Log::fetch`](crate::contract::Log::fetch).
    pub fn fetch(&self, offsets: &[Offset]) -> Vec<Option<Arc<Message>>> {
        let find = |offset| self.messages.binary_search_by_key(offset, |message| message.offset).ok();
        offsets.iter().map(|offset| find(offset).map(|at| self.messages[at].clone())).collect()
    }

    /// Time of the last message ever appended.
    pub fn last_time(&self) -> Timestamp {
        self.last.1
    }

    /// Offset of the last message.
    pub fn end(&self) -> Offset {
        self.last.0
    }

    /// Offset of the last message older than `time`.
    pub fn offset_before(&self, time: Timestamp) -> Offset {
        let older = self.messages.partition_point(|message| message.time < time);
        match older.checked_sub(1) {
            Some(at) => self.messages[at].offset,
            // Everything older is gone, so whatever is left is newer.
            None => Offset::START,
        }
    }

    /// Raises the shard's term and returns its record.
    pub fn claim(&mut self, shard: &ShardId, start: Offset) -> Claim {
        let (end, term) = (self.end(), self.terms_gone);
        let shard = self.shards.entry(shard.clone()).or_insert_with(|| ShardRecord::new(term, start, end));
        shard.term.0 += 1;
        Claim { log: self.id, term: shard.term, record: shard.record() }
    }

    /// The state of these keys, in the same order.
    pub fn load(&self, handler: &HandlerName, keys: &[Key]) -> Vec<Entries> {
        let state = self.state.get(handler);
        keys.iter().map(|key| state.and_then(|state| state.get(key)).cloned().unwrap_or_default()).collect()
    }

    /// Writes a commit whole or not at all; returns the outputs as stored and what it did.
    pub fn commit(&mut self, commit: ShardCommit, now: Timestamp) -> Result<(Batch, Committed), CommitError> {
        let fenced = || CommitError::Fenced { shard: commit.shard.clone() };
        let shard = self.shards.get_mut(&commit.shard).ok_or_else(fenced)?;
        if shard.term != commit.term || commit.number != shard.commit_number + 1 {
            return Err(fenced());
        }
        let refused = |reason| CommitError::Refused { shard: commit.shard.clone(), reason };
        check_commit(&commit, shard.read, shard.controlled).map_err(refused)?;

        // Nothing below can fail, so the commit is whole.
        shard.apply(&commit);
        for KeyWrites { key, writes } in &commit.state {
            let state = self.state.entry(commit.shard.handler.clone()).or_default();
            let entries = state.entry(key.clone()).or_default();
            writes.iter().for_each(|write| entries.apply(write));
            if entries.is_empty() {
                state.remove(key);
            }
        }
        let mine = |dead: &NumberedDeadLetter| dead.letter.shard == commit.shard;
        self.dead.retain(|dead| !(mine(dead) && commit.dead_drop.contains(&dead.number)));
        let mut committed = Committed::default();
        for mut letter in commit.dead {
            let older = self.dead.iter().rposition(|older| letter.joins(&older.letter, commit.dead_window));
            if let Some(at) = older {
                letter.deaths = letter.deaths.joined(self.dead.remove(at).letter.deaths);
                committed.dead_joined += 1;
            }
            // Numbers have gaps, as on the other kinds.
            self.dead_last += 2;
            self.dead.push(NumberedDeadLetter { number: self.dead_last, letter });
        }
        self.bound_dead(&commit.shard.handler, commit.dead_max);
        Ok((self.append_checked(commit.outputs, now), committed))
    }

    /// Moves its times, as the host's is set. No host may work on it.
    pub fn redate(&mut self, redate: &Redate) {
        for message in &mut self.messages {
            *message = Arc::new(Message { time: redate.time(message.time), ..(**message).clone() });
        }
        self.last.1 = redate.time(self.last.1);
        for shard in self.shards.values_mut() {
            shard.open.values_mut().for_each(|head| head.due = redate.due(head.due));
            shard.delayed.values_mut().for_each(|delayed| delayed.due = redate.due(delayed.due));
            shard.marks.iter_mut().for_each(|mark| mark.time = redate.time(mark.time));
        }
        for NumberedDeadLetter { letter, .. } in &mut self.dead {
            letter.time = redate.time(letter.time);
            letter.deaths.first_time = redate.time(letter.deaths.first_time);
            letter.message = Arc::new(Message { time: redate.time(letter.message.time), ..(*letter.message).clone() });
        }
        self.modules.redate(redate);
        for routing in &mut self.routings.routings {
            routing.identity.time = redate.time(routing.identity.time);
        }
    }

    /// Takes a piece of a log that is brought along from another place; see [`Restore`](crate::portable::Restore).
    pub(super) fn restore(&mut self, piece: Piece) -> Result<(), LogError> {
        match piece {
            Piece::About(About { after, gone, .. }) => self.begin_restored(after, gone),
            Piece::Routings(routings) => self.routings = routings,
            Piece::Module(Module { handler, time, bytes }) => {
                self.modules.put(&handler, bytes, &[], time)?;
            }
            Piece::Shard(ShardPart { shard, term, record }) => {
                let known = self.shards.entry(shard).or_insert_with(|| {
                    let lists = Record { open: vec![], marks: vec![], delayed: vec![], ..record.clone() };
                    ShardRecord::from_record(term, lists)
                });
                known.add(record);
            }
            Piece::State { handler, keys } => {
                let state = self.state.entry(handler).or_default();
                for KeyWrites { key, writes } in keys {
                    let entries = state.entry(key).or_default();
                    writes.iter().for_each(|write| entries.apply(write));
                }
            }
            Piece::Letters(letters) => self.dead.extend(letters),
            Piece::Messages(messages) => {
                self.appended += messages.len() as u64;
                self.messages.extend(messages);
            }
            Piece::End(End { end, time, letters_upto, .. }) => {
                (self.last, self.dead_last) = ((end, time), letters_upto);
            }
        }
        Ok(())
    }

    fn begin_restored(&mut self, after: Offset, gone: u64) {
        // Which ones they were nobody knows any more.
        let upto = after.0;
        self.gone = (0..gone).map(|back| Offset(upto.saturating_sub(back).max(1))).rev().collect();
    }

    /// All routings and their version.
    pub fn routings(&self) -> Routings {
        self.routings.clone()
    }

    /// Replaces all routings if their version is still `version`.
    pub fn put_routings(&mut self, version: u64, mut routings: Vec<Routing>) -> Result<(), LogError> {
        if self.routings.version != version {
            return Err(LogError::Conflict);
        }
        for routing in &mut routings {
            if let Some(settled) = records::settled(self.shards.iter(), routing) {
                drop_settled_spans(routing, settled);
            }
        }
        self.routings = Routings { version: version + 1, routings };
        Ok(())
    }

    /// See [`Log::reroute`](crate::contract::Log::reroute).
    pub fn reroute(&mut self, rerouting: Rerouting) -> Result<(), LogError> {
        let (term, number) = (rerouting.term(), rerouting.commit_number());
        let Rerouting { version, routing, from, records, letters } = rerouting;
        if self.routings.version != version {
            return Err(LogError::Conflict);
        }
        let id = |index| ShardId { handler: routing.handler.clone(), index };
        for (index, from) in (0_u16..).zip(from) {
            let found = self.shards.get(&id(index)).map(|shard| (shard.term, shard.commit_number));
            if found != Some(from) {
                return Err(LogError::Fenced { shard: id(index) });
            }
        }
        self.shards.retain(|id, _| id.handler != routing.handler);
        for (index, record) in (0_u16..).zip(records) {
            let shard = ShardRecord::from_record(term, Record { commit_number: number, ..record });
            self.shards.insert(id(index), shard);
        }
        for dead in self.dead.iter_mut().filter(|dead| dead.letter.shard.handler == routing.handler) {
            let moved = letters.binary_search_by_key(&dead.number, |moved: &MovedLetter| moved.number);
            match moved.map(|at| letters[at]) {
                Ok(moved) => (dead.letter.shard.index, dead.letter.identity) = (moved.shard, moved.identity),
                Err(_) if dead.letter.shard.index >= routing.shards => dead.letter.shard.index = 0,
                Err(_) => {}
            }
        }
        let own = self.routings.routings.iter_mut().find(|own| own.handler == routing.handler);
        own.into_iter().for_each(|own| *own = routing.clone());
        self.routings.version = version + 1;
        Ok(())
    }

    fn bound_dead(&mut self, handler: &HandlerName, letters_max: u64) {
        let count = self.dead.iter().filter(|dead| dead.letter.shard.handler == *handler).count() as u64;
        let mut beyond = count.saturating_sub(letters_max);
        self.dead.retain(|dead| {
            let goes = beyond > 0 && dead.letter.shard.handler == *handler;
            beyond -= u64::from(goes);
            !goes
        });
    }

    /// Dead letters of a filter, in the order asked for.
    pub fn dead(&self, query: &DeadQuery) -> Vec<NumberedDeadLetter> {
        let wanted = |dead: &&NumberedDeadLetter| query.filter.matches(dead.number, &dead.letter);
        let mut bytes = 0;
        let fits = |dead: &&NumberedDeadLetter| {
            let room = bytes < query.bytes_max;
            bytes = bytes.saturating_add(dead.letter.message.bytes());
            room
        };
        match query.order {
            DeadOrder::Newest { below } => {
                let from = self.dead.iter().rev().filter(|dead| below.is_none_or(|below| dead.number < below));
                from.filter(wanted).take(query.letters_max).take_while(fits).cloned().collect()
            }
            DeadOrder::Oldest { above } => {
                let from = self.dead.iter().filter(|dead| dead.number > above);
                from.filter(wanted).take(query.letters_max).take_while(fits).cloned().collect()
            }
        }
    }

    /// How many dead letters a filter means.
    pub fn dead_count(&self, filter: &DeadFilter) -> DeadCount {
        let found = self.dead.iter().filter(|dead| filter.matches(dead.number, &dead.letter));
        found.fold(DeadCount::default(), |count, dead| DeadCount {
            letters: count.letters + 1,
            bytes: count.bytes + dead.letter.message.bytes() as u64,
            newest: dead.number,
        })
    }

    /// How many messages after this offset are gone.
    pub fn gone_after(&self, offset: Offset) -> u64 {
        (self.gone.len() - self.gone.partition_point(|gone| *gone <= offset)) as u64
    }

    /// See [`Log::trim`](crate::contract::Log::trim). Bytes are those of the messages.
    pub fn trim(&mut self, trim: &Trim) -> Trimmed {
        let mut bytes: u64 = self.messages.iter().map(|message| message.bytes() as u64).sum();
        let (floor, holder) = records::floor(self.shards.iter(), &self.routings.routings, &trim.holders);
        let (mut going, mut held) = (0, None);
        for message in &self.messages {
            let old = trim.older_than.is_some_and(|time| message.time < time);
            if !old && trim.bytes_max.is_none_or(|max| bytes <= max) {
                break;
            }
            if message.offset >= floor {
                held = holder;
                break;
            }
            going += 1;
            bytes -= message.bytes() as u64;
        }
        let deleted = going.min(trim.messages_max);
        self.gone.extend(self.messages.drain(..deleted).map(|message| message.offset));
        Trimmed { deleted: deleted as u64, more: going > deleted, bytes, held }
    }

    /// See [`Log::forget`](crate::contract::Log::forget).
    pub fn forget(&mut self, handler: &HandlerName) {
        let mine = self.shards.iter().filter(|(id, _)| id.handler == *handler);
        self.terms_gone = mine.map(|(_, shard)| shard.term).fold(self.terms_gone, Term::max);
        self.shards.retain(|id, _| id.handler != *handler);
        self.state.remove(handler);
        self.modules.forget(handler);
        self.dead.retain(|dead| dead.letter.shard.handler != *handler);
        let before = self.routings.routings.len();
        self.routings.routings.retain(|routing| routing.handler != *handler);
        self.routings.version += u64::from(self.routings.routings.len() != before);
    }

    /// The position of every shard, by handler and index.
    pub fn status(&self) -> Vec<ShardStatus> {
        let status = |(id, shard): (&ShardId, &ShardRecord)| {
            let dead = self.dead.iter().filter(|dead| dead.letter.shard == *id).count();
            shard.status(id, dead, (self.messages.len() - self.index_after(shard.read)) as u64)
        };
        self.shards.iter().map(status).collect()
    }

    /// The open heads of a handler, each with the index of its shard.
    pub(super) fn open_of(&self, handler: &HandlerName) -> impl Iterator<Item = (u16, &Head)> {
        let mine = self.shards.iter().filter(move |(id, _)| id.handler == *handler);
        mine.flat_map(|(id, shard)| shard.open.values().map(|head| (id.index, head)))
    }

    /// The delayed messages of a handler, each with the index of its shard.
    pub(super) fn delayed_of(&self, handler: &HandlerName) -> impl Iterator<Item = (u16, &Delayed)> {
        let mine = self.shards.iter().filter(move |(id, _)| id.handler == *handler);
        mine.flat_map(|(id, shard)| shard.delayed.values().map(|delayed| (id.index, delayed)))
    }

    /// The state of a handler.
    pub(super) fn state_of(&self, handler: &HandlerName) -> impl Iterator<Item = (&Key, &Entries)> {
        self.state.get(handler).into_iter().flatten()
    }

    fn index_after(&self, offset: Offset) -> usize {
        self.messages.partition_point(|message| message.offset <= offset)
    }
}

// `tests/it/conformance.rs` holds the log to its contract; here is only what the in-memory kind adds to it.
#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_core::topic::Topic;

    fn messages(count: usize) -> Vec<NewMessage> {
        vec![NewMessage::new(Topic::parse("a.b").unwrap(), "body"); count]
    }

    #[test]
    fn offsets_have_gaps() {
        let mut core = MemoryCore::default();
        let batch = core.append(messages(6), Timestamp(1)).unwrap();
        let offsets: Vec<u64> = batch.messages.iter().map(|message| message.offset.0).collect();
        assert_eq!(offsets, [1, 3, 6, 7, 9, 12]);
    }

    #[test]
    fn a_clone_does_not_see_what_comes_later() {
        let mut core = MemoryCore::default();
        core.append(messages(1), Timestamp(1)).unwrap();
        let snapshot = core.clone();
        core.append(messages(1), Timestamp(2)).unwrap();
        assert_eq!((snapshot.end(), core.end()), (Offset(1), Offset(3)));
    }

    #[test]
    fn a_clock_that_falls_does_not_turn_time_back() {
        let mut core = MemoryCore::default();
        core.append(messages(1), Timestamp(9)).unwrap();
        assert_eq!(core.append(messages(1), Timestamp(5)).unwrap().messages[0].time, Timestamp(9));
    }
}
