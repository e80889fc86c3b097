//! What a run asked for and the commit has not yet performed.

use crate::message::{Headers, Key, NEW_MESSAGE_BYTES};
use crate::topic::Topic;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// Most messages published plus state writes of one run.
pub const EFFECTS_MAX: usize = 256;
/// Most bytes of all effects of one run (4 MiB).
pub const EFFECTS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most bytes in one state value (512 KiB).
pub const VALUE_BYTES_MAX: usize = 512 * 1024;
/// Most entries one key may have.
pub const ENTRIES_MAX: usize = 256;
/// Most bytes of all entries of one key, names included (1 MiB).
pub const ENTRIES_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes in the name of an entry.
pub const ENTRY_NAME_BYTES_MAX: usize = 256;
/// Most counters of one handler: each costs memory and a line in every scrape, for good.
pub const COUNTERS_MAX: usize = 100;
/// Longest delay of a message (30 days).
pub const DELAY_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// All a successful run asked for, within the limits above: whoever builds it checks them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// In call order.
    pub outputs: Vec<Outgoing>,
    /// At most one per entry: the last write wins.
    pub writes: Vec<StateWrite>,
    /// Counter name and increment, at most one per name.
    pub counts: Vec<(Arc<str>, u64)>,
}

/// A message to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub topic: Topic,
    pub key: Option<Key>,
    /// `None`: derived by the host from the input and the index, so that it is the same at every try.
    pub id: Option<Arc<str>>,
    pub headers: Headers,
    pub body: Bytes,
    /// Appended this long after the commit instead of with it.
    pub delay: Option<Duration>,
}

impl Outgoing {
    /// Bytes it takes as a message, roughly, but for what it inherits from its input.
    pub fn bytes(&self) -> usize {
        NEW_MESSAGE_BYTES + self.body.len() + self.headers.bytes() + self.topic.as_str().len()
    }
}

/// A write to one entry of the handled key's state; `None` deletes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateWrite {
    pub entry: Arc<str>,
    pub value: Option<Bytes>,
}

/// The state of one key: entries by name, sorted. Cheap to clone, copied on write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries(Arc<Vec<(Arc<str>, Bytes)>>);

impl Entries {
    pub fn get(&self, entry: &str) -> Option<&Bytes> {
        self.find(entry).ok().map(|at| &self.0[at].1)
    }

    /// Sets or deletes one entry.
    pub fn apply(&mut self, write: &StateWrite) {
        let found = self.find(&write.entry);
        let entries = Arc::make_mut(&mut self.0);
        match (found, &write.value) {
            (Ok(at), Some(value)) => entries[at].1 = value.clone(),
            (Ok(at), None) => {
                entries.remove(at);
            }
            (Err(at), Some(value)) => entries.insert(at, (write.entry.clone(), value.clone())),
            (Err(_), None) => {}
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Bytes)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of all names and values.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    fn find(&self, entry: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(name, _)| (**name).cmp(entry))
    }
}

impl FromIterator<(Arc<str>, Bytes)> for Entries {
    fn from_iter<I: IntoIterator<Item = (Arc<str>, Bytes)>>(entries: I) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        Self(Arc::new(entries))
    }
}
