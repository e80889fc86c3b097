//! What all entries of the log, applied in their order, add up to: records, routings, the index of dead letters,
//! what is let go, and the state that is not yet in the engine. No IO, no clock: every host that applied the same
//! entries has the same.
//!
//! So nothing needs more than one entry: what concerns several shards (the bound on dead letters, a rerouting, a handler
//! that is forgotten) is decided here, by each host alike, at the place that the entry has in the stream. Messages, dead
//! letters' bodies and state that was flushed are not held.

mod dead_box;
mod imported;
mod kept_keys;
mod shards;
mod written;

pub(super) use self::dead_box::{DeadBox, Indexed, without_content};
pub(super) use self::imported::{Imported, ImportedEntry};
pub(super) use self::kept_keys::KeptKeys;
pub(super) use self::shards::Shard;
pub(super) use self::written::{Latest, Written};

use super::entry::{Entry, Import};
use crate::contract::Routings;
use crate::error::LogError;
use crate::frame::{Frame, Place};
use crate::portable::{About, Piece, ShardPart};
use crate::records::ShardRecord;
use crate::rerouting::{MovedLetter, Rerouting};
use sluicebox_core::clock::Timestamp;
use sluicebox_core::commit::{Claim, Committed, LogId, NumberedDeadLetter, Record, ShardCommit, Term};
use sluicebox_core::handler::{HandlerName, ShardId};
use sluicebox_core::message::{Message, NewMessage, Offset};
use sluicebox_core::routing::Routing;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Steps of letting go that are kept apart, to say how much went after an offset.
const TRIMS_MAX: usize = 256;
/// After this nobody makes an entry of a part any more.
const LOOSE: Duration = Duration::from_secs(10 * 60);

#[derive(Clone, Debug, Default)]
pub(super) struct Replica {
    pub(super) id: Option<LogId>,
    /// Every entry up to this sequence is applied.
    pub(super) applied: u64,
    /// Of the last message.
    pub(super) end: Offset,
    /// A copy shares these, and those of the dead letters, until they change.
    pub(super) shards: BTreeMap<ShardId, Arc<Shard>>,
    pub(super) dead: BTreeMap<HandlerName, Arc<DeadBox>>,
    pub(super) routings: Routings,
    /// Sequences at which all that a handler had ended: it was forgotten or rerouted. Terms of before are no longer.
    pub(super) ends: BTreeMap<HandlerName, Vec<u64>>,
    /// Messages up to here are gone.
    pub(super) trimmed: Offset,
    /// Up to which offset went how many in all, oldest step first.
    pub(super) trims: VecDeque<(Offset, u64)>,
    pub(super) written: Written,
    /// The place in the engine at which what was flushed is.
    pub(super) state_sequence: u64,
    pub(super) parts: Parts,
    pub(super) imported: Imported,
    /// The last entry on the subject of what concerns more than one shard, if one came since the snapshot.
    pub(super) control: Option<u64>,
}

/// Entries that others are made of: they stay as long as these.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    /// By the sequence of an entry, that of its first part.
    pub(super) first: BTreeMap<u64, u64>,
    /// Nothing is made of them yet: their sequences and times.
    pub(super) loose: BTreeMap<u64, Timestamp>,
}

impl Parts {
    /// A part came.
    pub(super) fn came(&mut self, sequence: u64, time: Timestamp) {
        self.loose.retain(|_, came| came.after(LOOSE) > time);
        self.loose.insert(sequence, time);
    }

    /// An entry is made of these parts.
    pub(super) fn joined(&mut self, sequence: u64, parts: &[u64]) {
        self.loose.retain(|part, _| !parts.contains(part));
        if let Some(first) = parts.first() {
            self.first.insert(sequence, *first);
        }
    }

    /// The first part without which an entry at or after `sequence` would be incomplete.
    pub(super) fn needed_from(&self, sequence: u64) -> u64 {
        let of_entries = self.first.range(sequence..).map(|(_, first)| *first);
        of_entries.chain(self.loose.keys().copied()).min().unwrap_or(u64::MAX)
    }
}

/// What an entry did.
#[derive(Debug)]
pub(super) enum Outcome {
    Appended(Vec<Offset>),
    Committed(Committed),
    Claimed(Box<Claim>),
    /// An import, of this name.
    Began(u64),
    Done,
    /// By this term or number nothing is written.
    Fenced(ShardId),
    Conflict,
}

impl Outcome {
    /// Of an entry that only could be done or lose against another.
    pub(super) fn done(self) -> Result<(), LogError> {
        match self {
            Outcome::Fenced(shard) => Err(LogError::Fenced { shard }),
            Outcome::Conflict => Err(LogError::Conflict),
            _ => Ok(()),
        }
    }
}

impl Replica {
    /// Applies the entry with this sequence; the messages that it brings, and what came of it. `wanted`: somebody on this
    /// host waits for what came of it.
    pub(super) fn apply(
        &mut self,
        sequence: u64,
        time: Timestamp,
        entry: Entry,
        wanted: bool,
    ) -> (Vec<Arc<Message>>, Outcome) {
        self.applied = sequence;
        if !matches!(entry, Entry::Frame(_) | Entry::Parts(_) | Entry::Claim { .. }) {
            self.control = Some(sequence);
        }
        if self.imported.is_under_way() {
            // Nobody works on it, so these are of a host that has yet to hear of it.
            match entry {
                Entry::Frame(Frame::Commit(commit)) => return (vec![], Outcome::Fenced(commit.shard)),
                Entry::Import(_) | Entry::Flushed { .. } | Entry::Parts(_) => {}
                _ => return (vec![], Outcome::Conflict),
            }
        }
        let outcome = match entry {
            Entry::Frame(Frame::Messages(messages)) => {
                let messages = self.number(sequence, time, messages);
                let offsets = messages.iter().map(|message| message.offset).collect();
                return (messages, Outcome::Appended(offsets));
            }
            Entry::Frame(Frame::Commit(commit)) => return self.commit(sequence, time, *commit),
            Entry::Parts(_) => Outcome::Done,
            Entry::Begin(id) => {
                self.id.get_or_insert(id);
                Outcome::Done
            }
            Entry::Claim { shard, start, controlled } => self.claim(sequence, shard, start, controlled, wanted),
            Entry::Routings { version, routings } => self.put_routings(version, routings),
            Entry::Reroute(rerouting) => self.reroute(sequence, *rerouting),
            Entry::Forget { handler, upto, version } => self.forget(sequence, &handler, upto, version),
            Entry::Trim { from, upto, messages } => self.trim(from, upto, messages),
            Entry::Flushed { upto, state_sequence } => {
                self.written.flushed(upto);
                self.state_sequence = self.state_sequence.max(state_sequence);
                Outcome::Done
            }
            Entry::Import(import) => self.import(sequence, import),
        };
        (vec![], outcome)
    }

    fn import(&mut self, sequence: u64, import: Import) -> Outcome {
        match import {
            Import::Begin(about) => self.begin_import(sequence, &about),
            Import::Piece { import, .. } | Import::Done { import, .. }
                if !self.imported.is_under_way() || self.imported.begun != import =>
            {
                Outcome::Conflict
            }
            Import::Piece { piece, .. } => {
                self.import_piece(sequence, *piece);
                Outcome::Done
            }
            Import::Done { end, upto, .. } => {
                let Imported { after, gone, .. } = self.imported;
                (self.end, self.trimmed) = (end, after);
                if gone > 0 {
                    self.trims.push_back((after, gone));
                }
                self.imported.finish(sequence, upto.max(end.0));
                Outcome::Done
            }
        }
    }

    fn begin_import(&mut self, sequence: u64, about: &About) -> Outcome {
        let has_messages = self.end > Offset::START || self.trimmed > Offset::START;
        let is_empty =
            !has_messages && self.shards.is_empty() && self.dead.is_empty() && self.routings.routings.is_empty();
        if !is_empty && !self.imported.is_under_way() {
            return Outcome::Conflict;
        }
        // What came of one that was given up is as if it had never been.
        self.shards.clear();
        self.dead.clear();
        self.routings.routings.clear();
        self.written.clear();
        self.imported = Imported::begin(sequence, about);
        Outcome::Began(sequence)
    }

    fn import_piece(&mut self, sequence: u64, piece: Piece) {
        match piece {
            Piece::Routings(routings) => {
                let version = self.routings.version.max(routings.version) + 1;
                self.routings = Routings { version, ..routings };
            }
            Piece::Shard(ShardPart { shard, record, .. }) => {
                let known = self.shards.entry(shard).or_insert_with(|| {
                    // Nobody has it.
                    let lists = Record { open: vec![], marks: vec![], delayed: vec![], ..record.clone() };
                    Arc::new(Shard::new(Term(sequence), sequence, lists))
                });
                Arc::make_mut(known).record.add(record);
            }
            Piece::State { handler, keys } => self.written.write(sequence, &handler, keys),
            Piece::Letters(letters) => {
                for NumberedDeadLetter { number, letter } in letters {
                    let bytes = letter.message.bytes();
                    let dead = self.dead.entry(letter.shard.handler.clone()).or_default();
                    Arc::make_mut(dead).insert(number, Indexed { letter: without_content(letter), bytes });
                }
            }
            Piece::Messages(messages) => {
                if let Some(first) = messages.first() {
                    self.imported.add(sequence, first);
                }
            }
            // They are beside the entries, or come as entries of their own.
            Piece::Module(_) | Piece::About(_) | Piece::End(_) => {}
        }
    }

    /// The entry that has the message with this offset, or where it would be.
    pub(super) fn sequence_of(&self, offset: Offset) -> u64 {
        self.imported.sequence_of(offset)
    }

    /// Every message of the entries up to this one is at or before it.
    pub(super) fn last_offset(&self, sequence: u64) -> Offset {
        self.imported.last_offset(sequence)
    }

    /// The commit that brought the dead letter with this number, and its place there; `None`: the engine has it.
    pub(super) fn letter_at(&self, number: u64) -> Option<Place> {
        self.imported.letter_at(number)
    }

    fn number(&mut self, sequence: u64, time: Timestamp, messages: Vec<NewMessage>) -> Vec<Arc<Message>> {
        let messages = number(sequence + self.imported.shift, time, messages);
        self.end = messages.last().map_or(self.end, |message| message.offset);
        messages
    }

    fn claim(&mut self, sequence: u64, id: ShardId, start: Offset, controlled: Offset, wanted: bool) -> Outcome {
        let shard = self.shards.entry(id).or_insert_with(|| {
            // Nobody has it yet.
            Arc::new(Shard::new(Term(0), 0, Record { read: start, controlled, ..Record::default() }))
        });
        let shard = Arc::make_mut(shard);
        shard.record.term = Term(sequence);
        shard.last = sequence;
        if !wanted {
            return Outcome::Done;
        }
        let log = self.id.unwrap_or_default();
        Outcome::Claimed(Box::new(Claim { log, term: shard.record.term, record: shard.record.record() }))
    }

    fn commit(&mut self, sequence: u64, time: Timestamp, mut commit: ShardCommit) -> (Vec<Arc<Message>>, Outcome) {
        let found = self.shards.get_mut(&commit.shard);
        let Some(shard) = found.filter(|shard| shard.takes(commit.term, commit.number)) else {
            return (vec![], Outcome::Fenced(commit.shard));
        };
        let shard = Arc::make_mut(shard);
        shard.record.apply(&commit);
        shard.last = sequence;
        let handler = &commit.shard.handler;
        self.written.write(sequence, handler, std::mem::take(&mut commit.state));
        let has_box = self.dead.contains_key(handler);
        let mut committed = Committed::default();
        if has_box || !commit.dead.is_empty() {
            let dead = Arc::make_mut(self.dead.entry(handler.clone()).or_default());
            committed.dead_joined = dead.apply(sequence + self.imported.shift, &mut commit);
        }
        (self.number(sequence, time, commit.outputs), Outcome::Committed(committed))
    }

    fn put_routings(&mut self, version: u64, routings: Vec<Routing>) -> Outcome {
        if self.routings.version != version {
            return Outcome::Conflict;
        }
        self.routings = Routings { version: version + 1, routings };
        Outcome::Done
    }

    fn reroute(&mut self, sequence: u64, rerouting: Rerouting) -> Outcome {
        let number = rerouting.commit_number();
        let Rerouting { version, routing, from, records, letters } = rerouting;
        if self.routings.version != version {
            return Outcome::Conflict;
        }
        let id = |index| ShardId { handler: routing.handler.clone(), index };
        for (index, from) in (0_u16..).zip(from) {
            if self.shards.get(&id(index)).map(|shard| (shard.record.term, shard.record.commit_number)) != Some(from) {
                return Outcome::Fenced(id(index));
            }
        }
        self.shards.retain(|id, _| id.handler != routing.handler);
        for (index, record) in (0_u16..).zip(records) {
            // A term higher than any there was, and nobody has it: whoever worked on the old shards is fenced.
            let shard = Shard::new(Term(sequence), sequence, Record { commit_number: number, ..record });
            self.shards.insert(id(index), Arc::new(shard));
        }
        if let Some(dead) = self.dead.get_mut(&routing.handler) {
            Arc::make_mut(dead).reroute(routing.shards, |number| {
                letters.binary_search_by_key(&number, |moved: &MovedLetter| moved.number).ok().map(|at| letters[at])
            });
        }
        self.ends.entry(routing.handler.clone()).or_default().push(sequence);
        let own = self.routings.routings.iter_mut().find(|own| own.handler == routing.handler);
        own.into_iter().for_each(|own| *own = routing.clone());
        self.routings.version = version + 1;
        Outcome::Done
    }

    fn forget(&mut self, sequence: u64, handler: &HandlerName, upto: u64, version: u64) -> Outcome {
        let mut mine = self.shards.iter().filter(|(id, _)| id.handler == *handler);
        if mine.any(|(_, shard)| shard.last > upto) || self.routings.version != version {
            return Outcome::Conflict;
        }
        self.shards.retain(|id, _| id.handler != *handler);
        self.dead.remove(handler);
        self.written.forget_at(handler, sequence);
        self.ends.entry(handler.clone()).or_default().push(sequence);
        let before = self.routings.routings.len();
        self.routings.routings.retain(|routing| routing.handler != *handler);
        self.routings.version += u64::from(self.routings.routings.len() != before);
        Outcome::Done
    }

    fn trim(&mut self, from: Offset, upto: Offset, messages: u64) -> Outcome {
        if from != self.trimmed || upto <= from {
            return Outcome::Conflict;
        }
        self.trimmed = upto;
        self.parts.first = self.parts.first.split_off(&self.sequence_of(upto));
        self.imported.trim(upto);
        let before = self.trims.back().map_or(0, |(_, gone)| *gone);
        self.trims.push_back((upto, before + messages));
        if self.trims.len() > TRIMS_MAX {
            // Of the older half every second one: what went long ago nobody asks for exactly.
            let mut at = 0;
            self.trims.retain(|_| {
                at += 1;
                at > TRIMS_MAX / 2 || at % 2 == 0
            });
        }
        Outcome::Done
    }

    /// How many messages after this offset are gone, by whole steps.
    pub(super) fn gone_after(&self, offset: Offset) -> u64 {
        let all = self.trims.back().map_or(0, |(_, gone)| *gone);
        let before = self.trims.iter().rev().find(|(upto, _)| *upto <= offset).map_or(0, |(_, gone)| *gone);
        all - before
    }

    /// Whether what a term wrote at this sequence counts: it does not when the handler that it was of had ended by then.
    /// What the engine's fence cannot say, because the handler ended in an entry on another subject.
    pub(super) fn counts(&self, handler: &HandlerName, term: Term, sequence: u64) -> bool {
        self.ends.get(handler).is_none_or(|ends| !ends.iter().any(|end| term.0 < *end && *end < sequence))
    }

    /// State of this handler that was written before this sequence is another's, of the same name.
    pub(super) fn forgotten_before(&self, handler: &HandlerName) -> u64 {
        self.written.forgotten_before(handler).max(self.imported.begun)
    }

    /// The records of all shards.
    pub(super) fn records(&self) -> impl Iterator<Item = (&ShardId, &ShardRecord)> + Clone {
        self.shards.iter().map(|(id, shard)| (id, &shard.record))
    }
}

/// Messages as they are in the log. The sequence is moved up as [`Imported::shift`] says.
pub(super) fn number(sequence: u64, time: Timestamp, messages: Vec<NewMessage>) -> Vec<Arc<Message>> {
    let numbered = (0_u16..)
        .zip(messages)
        .map(|(index, message)| Arc::new(Message::from_new(message, Place { sequence, index }.offset(), time)));
    numbered.collect()
}
