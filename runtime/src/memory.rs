//! The memory of messages that wait: one budget for the host, shared by all shards and all inboxes.
//!
//! A part takes bytes before it uses them and gives them back when what waited is gone; nobody waits for bytes, so nobody
//! waits for another in a circle. Who finds none left goes on with what it may always have: a shard with one message and one
//! read from the log, an inbox with one message. That, for each shard that holds something, is all by which the sum may be
//! above the bound. Inboxes have half of it at most, so that what a slow handler has not taken up leaves room for those
//! that work.

use crate::message::MESSAGE_BYTES_MAX;
use crate::shard::Allowance;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a shard takes ahead for the messages of its next turn.
const AHEAD_BYTES: usize = 2 * 1024 * 1024;
/// An inbox takes such a part of what is left for inboxes: many that fill leave something to each that comes later.
const INBOX_PART: usize = 8;

/// Bytes that all messages in memory may take together.
#[derive(Debug)]
pub struct Budget {
    bytes_max: usize,
    used: AtomicUsize,
    /// Of `used`, those in inboxes.
    inboxes: AtomicUsize,
}

impl Budget {
    /// The default of the setting: 256 MiB.
    pub const BYTES_DEFAULT: u64 = 256 * 1024 * 1024;

    pub fn new(bytes_max: u64) -> Arc<Self> {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        Arc::new(Self { bytes_max, used: AtomicUsize::new(0), inboxes: AtomicUsize::new(0) })
    }

    pub fn used_bytes(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Less than a quarter is left: what begins to wait gives its memory back at once.
    fn is_tight(&self) -> bool {
        self.used_bytes() > self.bytes_max / 4 * 3
    }

    /// Bytes that one more inbox, or one that grows, may take now.
    pub fn inbox_room(&self) -> usize {
        let of_inboxes = (self.bytes_max / 2).saturating_sub(self.inboxes.load(Ordering::Relaxed));
        let of_all = self.bytes_max.saturating_sub(self.used_bytes());
        of_inboxes.min(of_all) / INBOX_PART
    }

    /// As many of so many bytes as there are.
    fn take(&self, bytes: usize) -> usize {
        let mut taken = 0;
        let _ = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            taken = bytes.min(self.bytes_max.saturating_sub(used));
            Some(used + taken)
        });
        taken
    }
}

/// What one part holds of the budget; it goes back when this is dropped.
#[derive(Debug)]
pub struct Lease {
    budget: Arc<Budget>,
    bytes: usize,
    of: Of,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Of {
    Shard,
    Inbox,
}

impl Lease {
    pub fn of_shard(budget: Arc<Budget>) -> Self {
        Self { budget, bytes: 0, of: Of::Shard }
    }

    pub fn of_inbox(budget: Arc<Budget>) -> Self {
        Self { budget, bytes: 0, of: Of::Inbox }
    }

    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Covers what is there, whether there was room for it or not, and no more.
    pub fn cover(&mut self, bytes: usize) {
        let counters = [Some(&self.budget.used), (self.of == Of::Inbox).then_some(&self.budget.inboxes)];
        for counter in counters.into_iter().flatten() {
            match bytes.checked_sub(self.bytes) {
                Some(0) => {}
                Some(more) => drop(counter.fetch_add(more, Ordering::Relaxed)),
                None => drop(counter.fetch_sub(self.bytes - bytes, Ordering::Relaxed)),
            }
        }
        self.bytes = bytes;
    }

    /// Covers so much more, whether there was room for it or not.
    pub fn add(&mut self, bytes: usize) {
        self.cover(self.bytes + bytes);
    }

    /// Covers what a shard holds and takes some ahead, if there is some: what the shard may hold until it asks again.
    /// `other`: bytes that the lease covers besides.
    pub fn allow(&mut self, held: usize, other: usize) -> Allowance {
        let wanted = held + other + AHEAD_BYTES;
        if self.bytes < held + other {
            self.cover(held + other);
        }
        if self.bytes < wanted {
            self.bytes += self.budget.take(wanted - self.bytes);
        }
        // The shard looks before it takes a message: with the largest it is still within what was taken.
        let bytes_max = (self.bytes - other).saturating_sub(MESSAGE_BYTES_MAX);
        Allowance { bytes_max, is_tight: self.budget.is_tight() }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.cover(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn shards_together_take_no_more_than_there_is_and_each_may_hold_a_message() {
        let budget = Budget::new(5 * MIB as u64);
        let mut leases: Vec<Lease> = (0..10).map(|_| Lease::of_shard(budget.clone())).collect();
        let allowed: Vec<usize> = leases.iter_mut().map(|lease| lease.allow(0, 0).bytes_max).collect();
        let first = AHEAD_BYTES - MESSAGE_BYTES_MAX;
        assert_eq!(&allowed[..4], [first, first, MIB - MESSAGE_BYTES_MAX, 0]);
        assert_eq!(budget.used_bytes(), 5 * MIB);
        // One message each, where nothing was left.
        leases.iter_mut().for_each(|lease| lease.cover(MESSAGE_BYTES_MAX));
        assert_eq!(budget.used_bytes(), 10 * MESSAGE_BYTES_MAX);
        drop(leases);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn inboxes_leave_half_to_shards_and_something_to_each_other() {
        let budget = Budget::new(64 * MIB as u64);
        let mut leases = vec![];
        for _ in 0..20 {
            let room = budget.inbox_room();
            assert!(room > 0);
            let mut lease = Lease::of_inbox(budget.clone());
            lease.cover(room.min(4 * MIB));
            leases.push(lease);
        }
        assert!(budget.used_bytes() <= 32 * MIB && !budget.is_tight());
        assert_eq!(Lease::of_shard(budget.clone()).allow(0, 0).bytes_max, AHEAD_BYTES - MESSAGE_BYTES_MAX);
    }
}
