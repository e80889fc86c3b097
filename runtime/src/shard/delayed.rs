//! Messages held back until they are due.

use crate::clock::Timestamp;
use crate::commit::Delayed;
use crate::message::NewMessage;
use std::collections::BTreeMap;

/// Most delayed messages a shard holds; a run that would exceed it fails and is retried.
pub const DELAYED_MAX: usize = 10_000;

/// The delayed messages of a shard by due time.
#[derive(Debug, Default)]
pub struct DelayedQueue {
    by_due: BTreeMap<(Timestamp, u64), NewMessage>,
    last_number: u64,
}

impl DelayedQueue {
    pub fn new(recorded: Vec<Delayed>) -> Self {
        let last_number = recorded.iter().map(|delayed| delayed.number).max().unwrap_or(0);
        let by_due = recorded.into_iter().map(|delayed| ((delayed.due, delayed.number), delayed.message)).collect();
        Self { by_due, last_number }
    }

    pub fn has_room_for(&self, messages: usize) -> bool {
        self.by_due.len() + messages <= DELAYED_MAX
    }

    /// Holds a message and says how it is recorded.
    pub fn hold(&mut self, due: Timestamp, message: NewMessage) -> Delayed {
        self.last_number += 1;
        self.by_due.insert((due, self.last_number), message.clone());
        Delayed { number: self.last_number, due, message }
    }

    /// The next message that is due, and its number.
    pub fn take_due(&mut self, now: Timestamp) -> Option<(u64, NewMessage)> {
        let entry = self.by_due.first_entry().filter(|entry| entry.key().0 <= now)?;
        let number = entry.key().1;
        Some((number, entry.remove()))
    }

    pub fn next_due(&self) -> Option<Timestamp> {
        self.by_due.keys().next().map(|(due, _)| *due)
    }
}
