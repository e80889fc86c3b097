//! State of keys: what commits wrote goes from memory into the engine now and then, and is read from both.
//!
//! Of two values of an entry the one with the higher version, the sequence of the commit that wrote it, is right. So it does
//! not matter who writes one down, how often, or when: a host that was asleep meanwhile finds the newer one there and leaves
//! it. Only once all are there does an entry of the log say so, and then hosts let what they have in memory go.

use super::engine::{Engine, Subject, Value, ValueSize};
use super::entry::Entry;
use super::replica::Latest;
use super::shared::Shared;
use crate::error::LogError;
use crate::inspect::{Smallest, StateKey, StateQuery};
use sluicebox_core::clock;
use sluicebox_core::effects::Entries;
use sluicebox_core::handler::HandlerName;
use sluicebox_core::message::Key;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Keys asked for, and values written, at once.
const KEYS_MAX: usize = 64;
const TOGETHER_MAX: usize = 128;
/// Above this many bytes beyond those at which it is written down, nothing more is committed until it is (256 MiB).
pub(super) const BEHIND_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Of each entry of a key, since when it is so and how large its value is; `None`: it was deleted.
type Sizes = BTreeMap<Arc<str>, (u64, Option<u64>)>;

pub(super) async fn load<E: Engine>(
    shared: &Shared<E>,
    handler: &HandlerName,
    keys: Vec<Key>,
) -> Result<Vec<Entries>, LogError> {
    // First what is in memory: what is no longer there a moment later is in the engine by then.
    let (mut loaded, wanted, forgotten, place) = {
        let replica = shared.replica();
        let written = |key: &Key| replica.written.of(handler, key).cloned().unwrap_or_default();
        let loaded: HashMap<Key, BTreeMap<Arc<str>, Latest>> =
            keys.iter().map(|key| (key.clone(), written(key))).collect();
        // Most keys that come for the first time, and those that were written a moment ago, cost no question.
        let wanted: Vec<Key> = loaded.keys().filter(|key| replica.written.may_be_kept(handler, key)).cloned().collect();
        (loaded, wanted, replica.forgotten_before(handler), replica.state_sequence)
    };
    for keys in wanted.chunks(KEYS_MAX) {
        for Value { version, key, entry, value } in shared.engine.values(handler, keys, place).await? {
            let Some(entries) = loaded.get_mut(&key).filter(|_| version > forgotten) else { continue };
            if entries.get(&entry).is_none_or(|latest| latest.version < version) {
                entries.insert(entry, Latest { version, value });
            }
        }
    }
    let entries = |key: &Key| -> Entries {
        let entries = loaded.get(key).into_iter().flatten();
        entries.filter_map(|(entry, latest)| Some((entry.clone(), latest.value.clone()?))).collect()
    };
    Ok(keys.iter().map(entries).collect())
}

/// Begins to write state down, when there is enough of it in memory.
pub(super) fn flush_when_due<E: Engine>(shared: &Arc<Shared<E>>) {
    if shared.replica().written.bytes() < shared.bounds.flush_bytes {
        return;
    }
    let Ok(one) = shared.housekeeping.clone().try_lock_owned() else { return };
    let shared = shared.clone();
    tokio::spawn(async move {
        let _one = one;
        if let Err(error) = flush(&shared).await {
            tracing::warn!(%error, "state is written down later");
        }
    });
}

/// Writes all state that is in memory now into the engine.
pub(super) async fn flush<E: Engine>(shared: &Shared<E>) -> Result<(), LogError> {
    let (upto, written) = {
        let replica = shared.replica();
        let copy = |(handler, key, entry, latest): (&HandlerName, &Key, &Arc<str>, &Latest)| {
            let Latest { version, value } = latest.clone();
            (handler.clone(), Value { version, key: key.clone(), entry: entry.clone(), value })
        };
        (replica.applied, replica.written.all().map(copy).collect::<Vec<_>>())
    };
    if written.is_empty() {
        return Ok(());
    }
    let begun = clock::since_boot();
    let mut place = 0;
    for values in written.chunks(TOGETHER_MAX) {
        place = place.max(shared.engine.write_values(values, begun).await?);
    }
    shared.write(Subject::Control, Entry::Flushed { upto, state_sequence: place }, None).await?;
    shared.engine.values_written(upto).await
}

/// Keys with state, by looking at the values in memory and in the engine.
pub(super) async fn keys<E: Engine>(shared: &Shared<E>, query: StateQuery) -> Result<Vec<StateKey>, LogError> {
    // Those of memory are looked at first, for the same reason as in a load.
    let StateQuery { handler, prefix, after, keys_max } = &query;
    let is_wanted = |key: &Key| key.as_str().starts_with(prefix) && after.as_ref().is_none_or(|after| key > after);
    let (mut found, forgotten) = {
        let replica = shared.replica();
        let mut found: BTreeMap<Key, Sizes> = BTreeMap::new();
        for (key, entries) in replica.written.keys(handler).filter(|(key, _)| is_wanted(key)) {
            let sizes = entries.iter().map(|(entry, latest)| {
                (entry.clone(), (latest.version, latest.value.as_ref().map(|value| value.len() as u64)))
            });
            found.insert(key.clone(), sizes.collect());
        }
        (found, replica.forgotten_before(handler))
    };
    // Only a key that is in memory can turn out to have nothing, so more keys than these are never needed.
    let keys_held_max = keys_max.saturating_add(found.len());
    let mut take = |size: ValueSize| {
        let ValueSize { version, key, entry, bytes } = size;
        if version <= forgotten || !is_wanted(&key) || (bytes.is_none() && !found.contains_key(&key)) {
            return;
        }
        let entries = found.entry(key).or_default();
        if entries.get(&entry).is_none_or(|(there, _)| *there < version) {
            entries.insert(entry, (version, bytes));
        }
        while found.len() > keys_held_max {
            found.pop_last();
        }
    };
    shared.engine.value_sizes(&query, keys_held_max, &mut take).await?;
    let mut first = Smallest::new(*keys_max);
    for (key, entries) in &found {
        let sizes: Vec<u64> =
            entries.iter().filter_map(|(entry, (_, size))| Some(entry.len() as u64 + (*size)?)).collect();
        if !sizes.is_empty() && first.wants(key) {
            let (entries, bytes) = (sizes.len() as u64, sizes.iter().sum());
            first.add(key, StateKey { key: key.clone(), entries, bytes });
        }
    }
    Ok(first.in_order())
}
