//! How much a handler holds back until it is due, over all its shards on this host: their bound is one.

use crate::shard::Amount;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Shared by the shards of a handler.
#[derive(Debug, Default)]
pub struct Delayed {
    messages: AtomicUsize,
    bytes: AtomicUsize,
    all_tried: AtomicBool,
}

impl Delayed {
    /// Of a handler with one shard: whether each message that was delivered to it was tried, and what is not settled waits
    /// for another try.
    pub fn are_all_tried(&self) -> bool {
        self.all_tried.load(Ordering::Acquire)
    }

    pub fn set_all_tried(&self, all_tried: bool) {
        self.all_tried.store(all_tried, Ordering::Release);
    }

    /// What all shards hold.
    pub fn total(&self) -> Amount {
        let [messages, bytes] = [&self.messages, &self.bytes].map(|total| total.load(Ordering::Relaxed));
        Amount { messages, bytes }
    }
}

/// What one shard adds; taken back when it is dropped. It outlives a claim: what the shard held is counted until it has read
/// what its record holds.
#[derive(Debug)]
pub struct DelayedShare {
    of: Arc<Delayed>,
    own: Amount,
}

impl DelayedShare {
    pub fn of(delayed: Arc<Delayed>) -> Self {
        Self { of: delayed, own: Amount::default() }
    }

    /// Says what the shard holds, and is told what the others do.
    pub fn exchange(&mut self, own: Amount) -> Amount {
        let exchange = |total: &AtomicUsize, before: usize, now: usize| {
            let total = match now.checked_sub(before) {
                Some(0) => total.load(Ordering::Relaxed),
                Some(more) => total.fetch_add(more, Ordering::Relaxed) + more,
                None => total.fetch_sub(before - now, Ordering::Relaxed) - (before - now),
            };
            total.saturating_sub(now)
        };
        let others = Amount {
            messages: exchange(&self.of.messages, self.own.messages, own.messages),
            bytes: exchange(&self.of.bytes, self.own.bytes, own.bytes),
        };
        self.own = own;
        others
    }
}

impl Drop for DelayedShare {
    fn drop(&mut self) {
        self.exchange(Amount::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shard_is_told_what_the_others_hold() {
        let all = Arc::new(Delayed::default());
        let (mut one, mut other) = (DelayedShare::of(all.clone()), DelayedShare::of(all.clone()));
        let amount = |messages, bytes| Amount { messages, bytes };
        assert_eq!(one.exchange(amount(3, 300)), amount(0, 0));
        assert_eq!(other.exchange(amount(2, 50)), amount(3, 300));
        assert_eq!(one.exchange(amount(1, 100)), amount(2, 50));
        assert_eq!(all.total(), amount(3, 150));
        drop(other);
        assert_eq!(one.exchange(amount(1, 100)), amount(0, 0));
    }
}
