//! The bytes of messages in a shard's memory: those that wait there, and those on their way from the log.
//!
//! Two bounds hold: the shard's own, and the share that the host gave it of what all shards have together. A shard that holds
//! nothing may always take one message, so that none starves and none waits for another.

use super::items::Item;
use super::rest::Keep;
use crate::message::MESSAGE_BYTES_MAX;
use crate::routing::Routed;

/// Most bytes of one read of a scan.
const SCAN_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A scan asks for so much even where there is less room: one message at a time it would read the log again and again.
const SCAN_BYTES_MIN: usize = 64 * 1024;

/// What the host lets a shard hold, until it says something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Bytes of messages.
    pub bytes_max: usize,
    /// The host has little left: what begins to wait gives its memory back at once.
    pub is_tight: bool,
}

#[derive(Debug)]
pub struct Held {
    /// Of messages in lanes and of those that gave up their place.
    waiting: usize,
    /// Kept free for messages that were asked for.
    expected: usize,
    /// The shard's own bound.
    bytes_max: usize,
    allowed: Allowance,
    /// Something came since what waits was last looked through for memory to give back.
    grew: bool,
    is_at_rest: bool,
    /// What was kept when memory was last given back for a rest, unless something came since.
    kept: Option<Keep>,
}

impl Held {
    pub fn new(bytes_max: usize) -> Self {
        let allowed = Allowance { bytes_max, is_tight: false };
        Self { waiting: 0, expected: 0, bytes_max, allowed, grew: false, is_at_rest: false, kept: None }
    }

    pub fn allow(&mut self, allowed: Allowance) {
        (self.allowed, self.is_at_rest) = (allowed, false);
    }

    /// One message, until it is allowed more.
    pub fn rest(&mut self) {
        (self.allowed, self.is_at_rest) = (Allowance { bytes_max: 0, is_tight: true }, true);
    }

    pub fn is_at_rest(&self) -> bool {
        self.is_at_rest
    }

    /// Of messages that are there.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting
    }

    /// Of messages that are there or on their way.
    pub fn bytes(&self) -> usize {
        self.waiting + self.expected
    }

    pub fn is_full(&self) -> bool {
        self.bytes() > 0 && self.bytes() >= self.limit()
    }

    /// Half of it is left to those that are to be fetched: neither they nor what is new may starve the other.
    pub fn is_full_beside_fetches(&self) -> bool {
        self.waiting > 0 && self.waiting >= self.limit() / 2
    }

    /// What begins to wait gives its memory back at once, and lanes that hold something are not filled.
    pub fn is_tight(&self) -> bool {
        self.allowed.is_tight || self.bytes() >= self.wide_limit() / 2
    }

    pub fn take(&mut self, item: &Item) {
        self.waiting += item.held_bytes();
        (self.grew, self.kept) = (true, None);
    }

    /// A message came back from the log for an item, unless it came before: it may have been asked for twice.
    pub fn take_back(&mut self, item: &mut Item, routed: impl FnOnce() -> Routed) {
        if item.routed.is_none() {
            let mut routed = routed();
            routed.hash_id();
            item.routed = Some(routed);
            self.take(item);
        }
    }

    pub fn give(&mut self, bytes: usize) {
        self.waiting -= bytes;
    }

    /// Whether looking for memory to give back may find some; asked once, the answer is no until something comes.
    pub fn take_grew(&mut self) -> bool {
        std::mem::take(&mut self.grew)
    }

    /// Whether there is something that could be given back which was not when last looked: for who changes places.
    pub fn changed_places(&mut self) {
        self.grew = true;
    }

    /// Whether there may be anything to give back: there may be many lanes to look through.
    pub fn keeps_more_than(&mut self, keep: Keep) -> bool {
        self.kept.replace(keep) != Some(keep)
    }

    /// What was kept for a rest may not be what is to be kept any more.
    pub fn keeps_another(&mut self) {
        self.kept = None;
    }

    /// Room for a message of so many bytes that is to be fetched; 0: nobody knows how many. `None` when there is none.
    pub fn expect_message(&mut self, bytes: usize, at_any_rate: bool) -> Option<usize> {
        let bytes = match bytes {
            // An eighth of a bound that is smaller than any in use.
            0 => MESSAGE_BYTES_MAX.min(self.bytes_max / 8),
            bytes => bytes,
        };
        let fits = !self.is_full() && (self.expected == 0 || self.expected + bytes <= self.wide_limit() / 2);
        (fits || at_any_rate).then(|| {
            self.expected += bytes;
            bytes
        })
    }

    /// Room for the messages of a scan: so many bytes are to be read.
    pub fn expect_scan(&mut self) -> usize {
        let room = self.limit().saturating_sub(self.bytes());
        let bytes = room.clamp(SCAN_BYTES_MIN, SCAN_BYTES_MAX);
        self.expected += bytes;
        bytes
    }

    /// What room was kept for came.
    pub fn came(&mut self, expected: usize) {
        self.expected -= expected;
    }

    fn limit(&self) -> usize {
        self.bytes_max.min(self.allowed.bytes_max)
    }

    /// What there will be while the host has plenty: what it allows at a time is only taken ahead for a turn.
    fn wide_limit(&self) -> usize {
        if self.allowed.is_tight { self.limit() } else { self.bytes_max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::message::{Message, NewMessage, Offset};
    use crate::topic::Topic;
    use std::sync::Arc;

    fn item() -> Item {
        let new = NewMessage::new(Topic::parse("in").unwrap(), "body");
        let message = Arc::new(Message::from_new(new, Offset(1), Timestamp(1)));
        Item::new(Routed { message, hash: 0, key: None, id: None, unroutable: None, deaths: None })
    }

    #[test]
    fn half_of_the_room_is_left_to_what_is_fetched_and_all_of_it_is_full() {
        let one = item().held_bytes();
        let mut held = Held::new(4 * one);
        let is = |held: &Held| (held.is_full_beside_fetches(), held.is_tight(), held.is_full());
        let mut seen = vec![is(&held)];
        for _ in 0..4 {
            held.take(&item());
            seen.push(is(&held));
        }
        let (free, half, full) = ((false, false, false), (true, true, false), (true, true, true));
        assert_eq!(seen, [free, free, half, half, full]);
        held.give(3 * one);
        assert_eq!(is(&held), free);
    }

    #[test]
    fn a_host_that_allows_little_makes_it_tight_at_once() {
        let one = item().held_bytes();
        let mut held = Held::new(100 * one);
        held.allow(Allowance { bytes_max: 4 * one, is_tight: false });
        (0..2).for_each(|_| held.take(&item()));
        assert!(held.is_full_beside_fetches() && !held.is_tight(), "it is allowed more in its turn");
        held.allow(Allowance { bytes_max: 4 * one, is_tight: true });
        assert!(held.is_tight());
    }

    #[test]
    fn lanes_are_looked_through_for_memory_once_for_each_that_is_to_be_kept() {
        let mut held = Held::new(1 << 20);
        let looks =
            [Keep::Nothing, Keep::Nothing, Keep::FirstTry, Keep::FirstTry].map(|keep| held.keeps_more_than(keep));
        assert_eq!(looks, [true, false, true, false]);
        held.take(&item());
        assert!(held.keeps_more_than(Keep::FirstTry), "something came");
        held.keeps_another();
        assert!(held.keeps_more_than(Keep::FirstTry), "another is to be kept");
    }

    #[test]
    fn memory_to_give_back_is_looked_for_once_after_something_came_or_changed_places() {
        let mut held = Held::new(1 << 20);
        assert!(!held.take_grew());
        held.take(&item());
        assert_eq!([held.take_grew(), held.take_grew()], [true, false]);
        held.changed_places();
        assert_eq!([held.take_grew(), held.take_grew()], [true, false]);
    }

    #[test]
    fn who_holds_nothing_has_room_for_one_message_however_little_is_allowed() {
        let mut held = Held::new(1 << 20);
        held.rest();
        assert!(!held.is_full() && !held.is_full_beside_fetches());
        held.take(&item());
        assert!(held.is_full() && held.is_full_beside_fetches());
    }

    #[test]
    fn room_is_kept_for_what_was_asked_for_until_it_came() {
        let mut held = Held::new(800_000);
        let message = held.expect_message(0, false);
        assert_eq!(message, Some(100_000), "a message whose size nobody knows takes no more than its share");
        let scan = held.expect_scan();
        assert_eq!((scan, held.bytes()), (700_000, 800_000));
        assert_eq!(held.expect_message(1, false), None);
        let least = held.expect_scan();
        assert!((32 * 1024..=SCAN_BYTES_MIN).contains(&least), "{least}: a scan that begins brings many messages");
        held.came(least + scan);
        assert_eq!(held.bytes(), 100_000);
    }
}
