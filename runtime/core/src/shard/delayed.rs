//! Messages held back until they are due.

use crate::clock::Timestamp;
use crate::commit::Delayed;
use crate::message::NewMessage;
use std::collections::BTreeMap;

/// With so many delayed messages, or bytes of them, a shard starts no run until some were due: they are all in memory.
/// Runs under way may still add theirs.
pub const DELAYED_MAX: usize = 10_000;
pub const DELAYED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The delayed messages of a shard by due time.
#[derive(Debug, Default)]
pub struct DelayedQueue {
    by_due: BTreeMap<(Timestamp, u64), NewMessage>,
    last_number: u64,
    bytes: usize,
}

impl DelayedQueue {
    pub fn new(recorded: Vec<Delayed>) -> Self {
        let last_number = recorded.iter().map(|delayed| delayed.number).max().unwrap_or(0);
        let bytes = recorded.iter().map(|delayed| delayed.message.bytes()).sum();
        let by_due = recorded.into_iter().map(|delayed| ((delayed.due, delayed.number), delayed.message)).collect();
        Self { by_due, last_number, bytes }
    }

    pub fn is_full(&self) -> bool {
        self.by_due.len() >= DELAYED_MAX || self.bytes >= DELAYED_BYTES_MAX
    }

    pub fn len(&self) -> usize {
        self.by_due.len()
    }

    /// Holds a message and says how it is recorded.
    pub fn hold(&mut self, due: Timestamp, message: NewMessage) -> Delayed {
        self.last_number += 1;
        self.bytes += message.bytes();
        self.by_due.insert((due, self.last_number), message.clone());
        Delayed { number: self.last_number, due, message }
    }

    /// The next message that is due, and its number.
    pub fn take_due(&mut self, now: Timestamp) -> Option<(u64, NewMessage)> {
        let entry = self.by_due.first_entry().filter(|entry| entry.key().0 <= now)?;
        let number = entry.key().1;
        let message = entry.remove();
        self.bytes -= message.bytes();
        Some((number, message))
    }

    /// Lets a message go before it is due; false: it is not held any more.
    pub fn cancel(&mut self, number: u64) -> bool {
        let Some(place) = self.by_due.keys().find(|(_, held)| *held == number).copied() else { return false };
        self.bytes -= self.by_due.remove(&place).map_or(0, |message| message.bytes());
        true
    }

    pub fn next_due(&self) -> Option<Timestamp> {
        self.by_due.keys().next().map(|(due, _)| *due)
    }
}
