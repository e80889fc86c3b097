//! What was brought along from another log: where its messages are, which kept the offsets that they had there.
//!
//! Of each entry with such messages the first offset is known; the messages of entries that came after the import have
//! offsets made of sequence and place, moved up so far that they are higher than all of those.

use crate::frame::Place;
use crate::portable::About;
use sluicebox_core::clock::Timestamp;
use sluicebox_core::message::{Message, Offset};

#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::replicated) struct Imported {
    /// The sequence of the entry that began it, by which its entries name it.
    pub(in crate::replicated) begun: u64,
    /// That of the entry that put it in force; 0: it is under way.
    pub(in crate::replicated) done: u64,
    /// Messages after this one were brought along, and so many before it are gone.
    pub(in crate::replicated) after: Offset,
    pub(in crate::replicated) gone: u64,
    /// Every offset and number of a dead letter that was brought along is at or before it.
    pub(in crate::replicated) upto: u64,
    /// Added to the sequences of entries that come later.
    pub(in crate::replicated) shift: u64,
    /// Ascending.
    pub(in crate::replicated) entries: Vec<ImportedEntry>,
}

/// An entry with messages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::replicated) struct ImportedEntry {
    pub(in crate::replicated) first: Offset,
    pub(in crate::replicated) time: Timestamp,
    pub(in crate::replicated) sequence: u64,
}

impl Imported {
    pub(super) fn begin(begun: u64, about: &About) -> Self {
        Self { begun, after: about.after, gone: about.gone, ..Self::default() }
    }

    pub(in crate::replicated) fn is_under_way(&self) -> bool {
        self.begun > 0 && self.done == 0
    }

    /// Nothing that an entry with this sequence did counts, unless it is of the import itself.
    pub(in crate::replicated) fn voids(&self, sequence: u64) -> bool {
        self.begun > 0 && (self.done == 0 || sequence <= self.done)
    }

    pub(super) fn add(&mut self, sequence: u64, first: &Message) {
        self.entries.push(ImportedEntry { first: first.offset, time: first.time, sequence });
    }

    /// In force with this entry: whatever is new is after `upto`.
    pub(super) fn finish(&mut self, done: u64, upto: u64) {
        let highest = Place::of(Offset(upto)).sequence;
        (self.done, self.upto, self.shift) = (done, upto, highest.saturating_sub(done));
    }

    /// The entry that has the message with this offset, or where it would be.
    pub(super) fn sequence_of(&self, offset: Offset) -> u64 {
        if offset.0 > self.upto || self.begun == 0 {
            return Place::of(offset).sequence.saturating_sub(self.shift).max(self.done);
        }
        let later = self.entries.partition_point(|entry| entry.first <= offset);
        // Before all of them the first is where to begin.
        let entry = self.entries.get(later.saturating_sub(1));
        entry.map_or(self.done.max(self.begun), |entry| entry.sequence)
    }

    /// Every message of the entries up to this one is at or before it.
    pub(super) fn last_offset(&self, sequence: u64) -> Offset {
        if sequence >= self.done {
            return Place::last_of(sequence + self.shift).offset();
        }
        let later = self.entries.partition_point(|entry| entry.sequence <= sequence);
        match self.entries.get(later) {
            Some(next) => Offset(next.first.0.saturating_sub(1)),
            None => Offset(self.upto),
        }
    }

    /// The last entry that begins with a message older than `time`.
    pub(in crate::replicated) fn before(&self, time: Timestamp) -> Option<u64> {
        let later = self.entries.partition_point(|entry| entry.time < time);
        later.checked_sub(1).map(|at| self.entries[at].sequence)
    }

    /// The commit that brought the dead letter with this number, and its place there; `None`: it was brought along from another
    /// log, and the engine has it.
    pub(in crate::replicated) fn letter_at(&self, number: u64) -> Option<Place> {
        let Place { sequence, index } = Place::of(Offset(number));
        let is_imported = self.begun > 0 && number <= self.upto;
        (!is_imported).then(|| Place { sequence: sequence.saturating_sub(self.shift), index })
    }

    /// Messages up to this one are gone.
    pub(super) fn trim(&mut self, upto: Offset) {
        let needed = self.entries.partition_point(|entry| entry.first <= upto).saturating_sub(1);
        self.entries.drain(..needed);
    }
}
