//! The state of the keys a shard works on: what the log holds plus what the shard has written and not yet committed.
//!
//! A key with an uncommitted write is never evicted, so a load can never bring back an older value.

use super::lanes::spread;
use crate::effects::{Entries, StateWrite};
use crate::message::Key;
use hashbrown::HashTable;
use std::collections::VecDeque;

/// A bounded cache of states by key (second-chance eviction). Who asks has the hash of the key already: it comes along.
#[derive(Debug)]
pub struct StateCache {
    keys: HashTable<Cached>,
    /// Every cached key once, in the order they came or were given their second chance.
    queue: VecDeque<(u64, Key)>,
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
    hash: u64,
    key: Key,
    entries: Entries,
    bytes: usize,
    /// The number of the commit that carries the last write.
    written_in: u64,
    /// Where in that commit they are.
    staged_at: usize,
    used: bool,
}

impl StateCache {
    pub fn new(bytes_max: usize) -> Self {
        Self { keys: HashTable::new(), queue: VecDeque::new(), bytes: 0, bytes_max, large: 0 }
    }

    /// The state of a key, if it is here.
    pub fn get(&mut self, hash: u64, key: &Key) -> Option<&Entries> {
        let cached = self.find(hash, key)?;
        cached.used = true;
        Some(&cached.entries)
    }

    /// How many states may be on their way at a time.
    pub fn loads_max(&self) -> usize {
        (LOAD_BYTES_MAX / self.large.max(1)).clamp(8, LOADS_MAX)
    }

    /// Takes what the log loaded. What is here already is newer and stays.
    pub fn loaded(&mut self, hash: u64, key: Key, entries: Entries) {
        self.large = entries.bytes().max(self.large - self.large / 64);
        if self.find(hash, &key).is_none() {
            self.insert(hash, key, entries);
        }
    }

    /// Applies writes that the commit with this number will carry. Returns where in it the writes of the key are: at
    /// `next`, if these are the first.
    pub fn write(&mut self, hash: u64, key: &Key, writes: &[StateWrite], commit_number: u64, next: usize) -> usize {
        if self.find(hash, key).is_none() {
            self.insert(hash, key.clone(), Entries::default());
        }
        let Some(cached) = self.keys.find_mut(spread(hash), |cached| cached.key == *key) else { return next };
        writes.iter().for_each(|write| cached.entries.apply(write));
        let bytes = weight(key, &cached.entries);
        self.bytes = self.bytes - cached.bytes + bytes;
        cached.bytes = bytes;
        if cached.written_in != commit_number {
            (cached.written_in, cached.staged_at) = (commit_number, next);
        }
        cached.staged_at
    }

    /// Commits up to this number are durable: keys last written by them may go when room is needed.
    pub fn trim(&mut self, committed: u64) {
        // Each key is looked at twice at most: once to take its second chance, once to go.
        let mut looks = self.queue.len() * 2;
        while self.bytes > self.bytes_max && looks > 0 {
            looks -= 1;
            let Some((hash, key)) = self.queue.pop_front() else { return };
            let Ok(mut entry) = self.keys.find_entry(spread(hash), |cached| cached.key == key) else { continue };
            let cached = entry.get_mut();
            if cached.used || cached.written_in > committed {
                cached.used = false;
                self.queue.push_back((hash, key));
            } else {
                self.bytes -= cached.bytes;
                entry.remove();
            }
        }
    }

    fn find(&mut self, hash: u64, key: &Key) -> Option<&mut Cached> {
        self.keys.find_mut(spread(hash), |cached| cached.key == *key)
    }

    fn insert(&mut self, hash: u64, key: Key, entries: Entries) {
        let bytes = weight(&key, &entries);
        self.bytes += bytes;
        self.queue.push_back((hash, key.clone()));
        let cached = Cached { hash, key, entries, bytes, written_in: 0, staged_at: 0, used: true };
        self.keys.insert_unique(spread(hash), cached, |cached| spread(cached.hash));
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
            cache.write(number as u64, &key(number), &write("v"), number as u64 + 1, 0);
        }
        cache.trim(50);
        assert!(cache.bytes <= 50 * 300, "{}", cache.bytes);
        for number in 50..100 {
            assert!(cache.get(number as u64, &key(number)).is_some(), "{number}");
        }
        cache.trim(100);
        cache.trim(100);
        assert!(cache.bytes <= 1000);
    }

    #[test]
    fn a_load_never_replaces_a_newer_write() {
        let mut cache = StateCache::new(1000);
        cache.write(1, &key(1), &write("new"), 1, 0);
        cache.loaded(1, key(1), Entries::default());
        assert_eq!(cache.get(1, &key(1)).unwrap().get("e").unwrap(), "new");
    }

    #[test]
    fn the_writes_of_a_key_have_one_place_in_each_commit() {
        let mut cache = StateCache::new(1000);
        let mut at = |hash, number, next| cache.write(hash, &key(7), &write("v"), number, next);
        assert_eq!((at(5, 1, 0), at(5, 1, 3), at(5, 2, 4)), (0, 0, 4));
    }

    fn entries(bytes: usize) -> Entries {
        [("e".into(), vec![0; bytes].into())].into_iter().collect()
    }

    #[test]
    fn the_bytes_of_what_is_cached_add_up_and_follow_what_it_takes() {
        let mut cache = StateCache::new(30_000);
        for round in 1..5_u64 {
            for number in 0..20 {
                cache.loaded(number as u64, key(number), entries(100 * number));
                let value = vec![0; 1000 * round as usize].into();
                let write = StateWrite { entry: "other".into(), value: (number % 3 > 0).then_some(value) };
                cache.write(number as u64, &key(number), &[write], round, 0);
                let weights = cache.keys.iter().map(|cached| weight(&cached.key, &cached.entries));
                assert_eq!(cache.bytes, weights.sum::<usize>());
            }
            let held: usize = cache.keys.iter().map(|cached| cached.entries.bytes()).sum();
            // Little besides the entries: some hundred bytes a key.
            assert!(cache.bytes > held && cache.bytes < held + 20 * 500, "{} for {held}", cache.bytes);
            cache.trim(round);
            assert!(cache.bytes <= 30_000 && cache.bytes > 0, "{}", cache.bytes);
        }
    }

    #[test]
    fn many_small_entries_and_many_keys_without_any_take_room_too() {
        let small: Entries = (0..100).map(|number| (format!("{number}").into(), "v".into())).collect();
        let (none, one) = (weight(&key(0), &Entries::default()), weight(&key(0), &entries(0)));
        assert!(weight(&key(1_000_000), &Entries::default()) > none, "a long key takes more than a short one");
        assert!(none > 100 && one > none + 50 && weight(&key(0), &small) > 100 * (one - none), "{none} {one}");
    }

    #[test]
    fn as_many_states_are_loaded_at_a_time_as_there_is_memory_for() {
        let mut cache = StateCache::new(1 << 30);
        assert_eq!(cache.loads_max(), LOADS_MAX, "nobody knows how large they are");
        cache.loaded(0, key(0), entries(1 << 20));
        let few = cache.loads_max();
        assert!((8..=16).contains(&few), "{few} of 1 MiB");
        // It was a rare one: others are small.
        (1..1_000).for_each(|number| cache.loaded(number as u64, key(number), entries(100)));
        assert!(cache.loads_max() > 16 * few, "{}", cache.loads_max());
    }
}
