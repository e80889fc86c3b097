//! What is in a log, counted: said to people, and compared at the end of an import.

use super::Piece;

/// How much of each there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub routings: u64,
    pub modules: u64,
    pub shards: u64,
    pub heads: u64,
    pub marks: u64,
    pub delayed: u64,
    /// Keys with state.
    pub keys: u64,
    pub letters: u64,
    pub messages: u64,
}

impl Counts {
    /// Counts a piece; `starts_shard`: it is the first of its shard.
    pub fn add(&mut self, piece: &Piece, starts_shard: bool) {
        match piece {
            Piece::About(_) | Piece::End(_) => {}
            Piece::Routings(routings) => self.routings += routings.routings.len() as u64,
            Piece::Module(_) => self.modules += 1,
            Piece::Shard(part) => {
                self.shards += u64::from(starts_shard);
                self.heads += part.record.open.len() as u64;
                self.marks += part.record.marks.len() as u64;
                self.delayed += part.record.delayed.len() as u64;
            }
            Piece::State { keys, .. } => self.keys += keys.len() as u64,
            Piece::Letters(letters) => self.letters += letters.len() as u64,
            Piece::Messages(messages) => self.messages += messages.len() as u64,
        }
    }

    /// In the order in which they are written.
    pub(super) fn numbers(&self) -> [u64; 9] {
        let Self { routings, modules, shards, heads, marks, delayed, keys, letters, messages } = *self;
        [routings, modules, shards, heads, marks, delayed, keys, letters, messages]
    }

    pub(super) fn from_numbers(numbers: [u64; 9]) -> Self {
        let [routings, modules, shards, heads, marks, delayed, keys, letters, messages] = numbers;
        Self { routings, modules, shards, heads, marks, delayed, keys, letters, messages }
    }
}
