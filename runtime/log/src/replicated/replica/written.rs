//! State that commits wrote and that is not yet in the engine: the newest value of each entry, and since when.

use super::kept_keys::KeptKeys;
use bytes::Bytes;
use sluicebox_core::commit::KeyWrites;
use sluicebox_core::effects::StateWrite;
use sluicebox_core::handler::HandlerName;
use sluicebox_core::message::Key;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What an entry takes beside its texts, roughly.
const ENTRY_BYTES: usize = 160;

/// The newest value of an entry.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::replicated) struct Latest {
    /// The sequence of the commit that wrote it: of two values the one with the higher sequence is right.
    pub(in crate::replicated) version: u64,
    /// `None`: it was deleted.
    pub(in crate::replicated) value: Option<Bytes>,
}

pub(in crate::replicated) type Entries = BTreeMap<Arc<str>, Latest>;

/// An entry of a snapshot.
pub(in crate::replicated) type Restored = (HandlerName, Key, Arc<str>, Latest);

#[derive(Clone, Debug, Default)]
pub(in crate::replicated) struct Written {
    /// Commits write keys in no order, so a tree would compare texts all over memory.
    handlers: BTreeMap<HandlerName, hashbrown::HashMap<Key, Entries>>,
    bytes: usize,
    /// What is older, in the engine, is of a handler that was forgotten.
    forgotten: HashMap<HandlerName, u64>,
    /// Keys of which something went from here: only of these does the engine have what is not here.
    kept: KeptKeys,
}

impl Written {
    pub(in crate::replicated) fn write(&mut self, version: u64, handler: &HandlerName, state: Vec<KeyWrites>) {
        if state.is_empty() {
            return;
        }
        let keys = self.handlers.entry(handler.clone()).or_default();
        for KeyWrites { key, writes } in state {
            let entries = keys.entry(key).or_default();
            for StateWrite { entry, value } in writes {
                self.bytes += bytes(&entry, value.as_ref());
                let name_bytes = bytes(&entry, None);
                if let Some(older) = entries.insert(entry, Latest { version, value }) {
                    self.bytes -= name_bytes + older.value.as_ref().map_or(0, Bytes::len);
                }
            }
        }
    }

    /// What was written up to this sequence is in the engine.
    pub(in crate::replicated) fn flushed(&mut self, upto: u64) {
        let (left, kept) = (&mut self.bytes, &mut self.kept);
        self.handlers.retain(|handler, keys| {
            keys.retain(|key, entries| {
                let held = entries.len();
                entries.retain(|entry, latest| {
                    let stays = latest.version > upto;
                    *left -= if stays { 0 } else { bytes(entry, latest.value.as_ref()) };
                    stays
                });
                if entries.len() < held {
                    kept.add(handler, key);
                }
                !entries.is_empty()
            });
            !keys.is_empty()
        });
    }

    pub(in crate::replicated) fn forget_at(&mut self, handler: &HandlerName, sequence: u64) {
        self.forgotten.insert(handler.clone(), sequence);
        for (_, entries) in self.handlers.remove(handler).into_iter().flatten() {
            self.bytes -= entries.iter().map(|(entry, latest)| bytes(entry, latest.value.as_ref())).sum::<usize>();
        }
    }

    /// Nothing was ever written.
    pub(in crate::replicated) fn clear(&mut self) {
        self.handlers.clear();
        self.bytes = 0;
    }

    pub(in crate::replicated) fn forgotten_before(&self, handler: &HandlerName) -> u64 {
        self.forgotten.get(handler).copied().unwrap_or(0)
    }

    /// As a snapshot had it.
    pub(in crate::replicated) fn restore(
        &mut self,
        forgotten: HashMap<HandlerName, u64>,
        written: Vec<Restored>,
        kept: KeptKeys,
    ) {
        (self.forgotten, self.kept) = (forgotten, kept);
        for (handler, key, entry, latest) in written {
            self.bytes += bytes(&entry, latest.value.as_ref());
            self.handlers.entry(handler).or_default().entry(key).or_default().insert(entry, latest);
        }
    }

    pub(in crate::replicated) fn forgotten(&self) -> &HashMap<HandlerName, u64> {
        &self.forgotten
    }

    pub(in crate::replicated) fn kept(&self) -> &KeptKeys {
        &self.kept
    }

    /// Whether the engine may have state of this key that is not here.
    pub(in crate::replicated) fn may_be_kept(&self, handler: &HandlerName, key: &Key) -> bool {
        self.kept.may_have(handler, key)
    }

    /// Roughly, in memory.
    pub(in crate::replicated) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Of one key.
    pub(in crate::replicated) fn of(&self, handler: &HandlerName, key: &Key) -> Option<&Entries> {
        self.handlers.get(handler)?.get(key)
    }

    /// Of a handler, in any order.
    pub(in crate::replicated) fn keys(&self, handler: &HandlerName) -> impl Iterator<Item = (&Key, &Entries)> {
        self.handlers.get(handler).into_iter().flatten()
    }

    pub(in crate::replicated) fn all(&self) -> impl Iterator<Item = (&HandlerName, &Key, &Arc<str>, &Latest)> {
        self.handlers.iter().flat_map(|(handler, keys)| {
            keys.iter().flat_map(move |(key, entries)| {
                entries.iter().map(move |(entry, latest)| (handler, key, entry, latest))
            })
        })
    }
}

fn bytes(entry: &str, value: Option<&Bytes>) -> usize {
    ENTRY_BYTES + entry.len() + value.map_or(0, Bytes::len)
}
