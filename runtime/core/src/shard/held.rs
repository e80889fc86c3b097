//! The bytes of messages that wait in a shard's memory.

use super::items::Item;
use crate::routing::Routed;

#[derive(Debug)]
pub struct Held {
    bytes: usize,
    bytes_max: usize,
}

impl Held {
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes: 0, bytes_max }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_full(&self) -> bool {
        self.bytes >= self.bytes_max
    }

    pub fn take(&mut self, item: &Item) {
        self.bytes += item.held_bytes();
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
        self.bytes -= bytes;
    }
}
