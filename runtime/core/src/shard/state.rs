//! The state of the keys a shard works on: what the log holds plus what the shard has written and not yet committed.
//!
//! A key with an uncommitted write is never evicted, so a load can never bring back an older value.

use crate::effects::{Entries, StateWrite};
use crate::message::Key;
use hashbrown::HashMap;
use std::collections::VecDeque;

/// A bounded cache of states by key (second-chance eviction).
#[derive(Debug)]
pub struct StateCache {
    keys: HashMap<Key, Cached>,
    /// Every cached key once, in the order they came or were given their second chance.
    queue: VecDeque<Key>,
    bytes: usize,
    bytes_max: usize,
    /// The largest state that was loaded of late, decaying.
    large: usize,
}

/// Most states loaded at a time, and about how many bytes of them: a key's state may have 1 MiB.
const LOADS_MAX: usize = 1024;
const LOAD_BYTES_MAX: usize = 16 * 1024 * 1024;

#[derive(Debug)]
struct Cached {
    entries: Entries,
    bytes: usize,
    /// The number of the commit that carries the last write.
    written_in: u64,
    used: bool,
}

impl StateCache {
    pub fn new(bytes_max: usize) -> Self {
        Self { keys: HashMap::new(), queue: VecDeque::new(), bytes: 0, bytes_max, large: 0 }
    }

    /// The state of a key, if it is here.
    pub fn get(&mut self, key: &Key) -> Option<&Entries> {
        let cached = self.keys.get_mut(key)?;
        cached.used = true;
        Some(&cached.entries)
    }

    /// How many states may be on their way at a time.
    pub fn loads_max(&self) -> usize {
        (LOAD_BYTES_MAX / self.large.max(1)).clamp(8, LOADS_MAX)
    }

    /// Takes what the log loaded. What is here already is newer and stays.
    pub fn loaded(&mut self, key: Key, entries: Entries) {
        self.large = entries.bytes().max(self.large - self.large / 64);
        if !self.keys.contains_key(&key) {
            self.insert(key, entries, 0);
        }
    }

    /// Applies writes that the commit with this number will carry.
    pub fn write(&mut self, key: &Key, writes: &[StateWrite], commit_number: u64) {
        if !self.keys.contains_key(key) {
            self.insert(key.clone(), Entries::default(), commit_number);
        }
        let Some(cached) = self.keys.get_mut(key) else { return };
        writes.iter().for_each(|write| cached.entries.apply(write));
        let bytes = weight(key, &cached.entries);
        self.bytes = self.bytes - cached.bytes + bytes;
        cached.bytes = bytes;
        cached.written_in = commit_number;
    }

    /// Commits up to this number are durable: keys last written by them may go when room is needed.
    pub fn trim(&mut self, committed: u64) {
        // Each key is looked at twice at most: once to take its second chance, once to go.
        let mut looks = self.queue.len() * 2;
        while self.bytes > self.bytes_max && looks > 0 {
            looks -= 1;
            let Some(key) = self.queue.pop_front() else { return };
            let Some(cached) = self.keys.get_mut(&key) else { continue };
            if cached.used || cached.written_in > committed {
                cached.used = false;
                self.queue.push_back(key);
            } else {
                self.bytes -= cached.bytes;
                self.keys.remove(&key);
            }
        }
    }

    fn insert(&mut self, key: Key, entries: Entries, written_in: u64) {
        let bytes = weight(&key, &entries);
        self.bytes += bytes;
        self.queue.push_back(key.clone());
        self.keys.insert(key, Cached { entries, bytes, written_in, used: true });
    }
}

fn weight(key: &Key, entries: &Entries) -> usize {
    160 + key.as_str().len() + entries.bytes() + 64 * entries.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        Key::parse(&format!("k{number}")).unwrap().unwrap()
    }

    fn write(value: &'static str) -> Vec<StateWrite> {
        vec![StateWrite { entry: "e".into(), value: Some(value.into()) }]
    }

    #[test]
    fn a_key_with_an_uncommitted_write_stays_however_full_the_cache_is() {
        let mut cache = StateCache::new(1000);
        for number in 0..100 {
            cache.write(&key(number), &write("v"), number as u64 + 1);
        }
        cache.trim(50);
        assert!(cache.bytes <= 50 * 300, "{}", cache.bytes);
        for number in 50..100 {
            assert!(cache.get(&key(number)).is_some(), "{number}");
        }
        cache.trim(100);
        cache.trim(100);
        assert!(cache.bytes <= 1000);
    }

    #[test]
    fn a_load_never_replaces_a_newer_write() {
        let mut cache = StateCache::new(1000);
        cache.write(&key(1), &write("new"), 1);
        cache.loaded(key(1), Entries::default());
        assert_eq!(cache.get(&key(1)).unwrap().get("e").unwrap(), "new");
    }
}
