//! Which dead letters a handler has. Their bodies, headers and errors stay in the frames that brought them.

use crate::frame::Place;
use crate::rerouting::MovedLetter;
use bytes::Bytes;
use sluicebox_core::commit::{DeadLetter, ShardCommit};
use sluicebox_core::handler::ShardId;
use sluicebox_core::message::{Headers, IdHash, Message};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

#[derive(Clone, Debug, Default)]
pub(in crate::replicated) struct DeadBox {
    /// By number, which names the frame and the place in it.
    letters: BTreeMap<u64, Indexed>,
    same: HashMap<(ShardId, IdHash), BTreeSet<u64>>,
}

/// What is known of a letter without reading it.
#[derive(Clone, Debug)]
pub(in crate::replicated) struct Indexed {
    /// Without body, headers and error.
    pub(in crate::replicated) letter: DeadLetter,
    /// Of its message.
    pub(in crate::replicated) bytes: usize,
}

impl DeadBox {
    /// What a commit does to it; how many letters took the place of another.
    pub(super) fn apply(&mut self, sequence: u64, commit: &mut ShardCommit) -> u64 {
        for number in &commit.dead_drop {
            if self.letters.get(number).is_some_and(|dead| dead.letter.shard == commit.shard) {
                self.remove(*number);
            }
        }
        let mut joined = 0;
        for (index, mut letter) in (0_u16..).zip(std::mem::take(&mut commit.dead)) {
            let same = letter.identity.and_then(|identity| self.same.get(&(letter.shard.clone(), identity)));
            let older = same.into_iter().flatten().rev().copied();
            let older = older.into_iter().find(|number| {
                self.letters.get(number).is_some_and(|older| letter.joins(&older.letter, commit.dead_window))
            });
            if let Some(older) = older.and_then(|number| self.remove(number)) {
                letter.deaths = letter.deaths.joined(older.letter.deaths);
                joined += 1;
            }
            let bytes = letter.message.bytes();
            self.insert(Place { sequence, index }.offset().0, Indexed { letter: without_content(letter), bytes });
        }
        while self.letters.len() as u64 > commit.dead_max
            && let Some(oldest) = self.letters.keys().next().copied()
        {
            self.remove(oldest);
        }
        joined
    }

    /// Letters go where they are moved, and to the first shard when their own is gone.
    pub(super) fn reroute(&mut self, shards: u16, moved: impl Fn(u64) -> Option<MovedLetter>) {
        for (number, mut dead) in std::mem::take(self).letters {
            match moved(number) {
                Some(moved) => (dead.letter.shard.index, dead.letter.identity) = (moved.shard, moved.identity),
                None if dead.letter.shard.index >= shards => dead.letter.shard.index = 0,
                None => {}
            }
            self.insert(number, dead);
        }
    }

    pub(in crate::replicated) fn insert(&mut self, number: u64, dead: Indexed) {
        if let Some(identity) = dead.letter.identity {
            self.same.entry((dead.letter.shard.clone(), identity)).or_default().insert(number);
        }
        self.letters.insert(number, dead);
    }

    fn remove(&mut self, number: u64) -> Option<Indexed> {
        let dead = self.letters.remove(&number)?;
        if let Some(identity) = dead.letter.identity {
            let same = (dead.letter.shard.clone(), identity);
            if let Some(numbers) = self.same.get_mut(&same) {
                numbers.remove(&number);
                if numbers.is_empty() {
                    self.same.remove(&same);
                }
            }
        }
        Some(dead)
    }

    /// By number.
    pub(in crate::replicated) fn letters(&self) -> &BTreeMap<u64, Indexed> {
        &self.letters
    }
}

pub(in crate::replicated) fn without_content(letter: DeadLetter) -> DeadLetter {
    let message = Message { body: Bytes::new(), headers: Headers::default(), ..(*letter.message).clone() };
    DeadLetter { message: Arc::new(message), error: String::new(), ..letter }
}
