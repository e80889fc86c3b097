//! What a shard waits for by the clock. Timers are never taken back: whoever is woken looks whether it still waits.

use crate::clock::Timestamp;
use crate::message::{Offset, WorkId};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Who is to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The lane, if this is still its first message.
    Lane(usize, WorkId),
    /// A message that gave up its place.
    Skipped(Offset),
}

#[derive(Debug, Default)]
pub struct Timers {
    by_due: BinaryHeap<Reverse<(Timestamp, Timer)>>,
}

impl Timers {
    pub fn set(&mut self, due: Timestamp, timer: Timer) {
        self.by_due.push(Reverse((due, timer)));
    }

    pub fn take_due(&mut self, now: Timestamp) -> Option<(Timestamp, Timer)> {
        self.next_due().filter(|due| *due <= now)?;
        self.by_due.pop().map(|Reverse(timer)| timer)
    }

    pub fn next_due(&self) -> Option<Timestamp> {
        self.by_due.peek().map(|Reverse((due, _))| *due)
    }
}
