//! Says of a history whether each message came out once, in the order of its key, at every stage of the way. It knows nothing of
//! records and terms, and uses nothing of the product: what publishers were told, what is in the log, and what is in the state.

use std::collections::{BTreeMap, BTreeSet};

/// What was found at the end, and what publishers were told.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// By key the ids that a host said are durable, in the order in which they were sent: each when the one before was.
    pub published: BTreeMap<String, Vec<String>>,
    /// Where publishers write, and where each handler of the chain does.
    pub topics: Vec<String>,
    /// All that is in the log, in its order.
    pub entries: Vec<Entry>,
    /// What the last handler of the chain has counted, by key.
    pub state: BTreeMap<String, u64>,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub offset: u64,
    pub topic: String,
    pub key: String,
    /// Of what was published.
    pub id: String,
    /// Of what a handler made of it: the offset of the input, and what it had counted by then.
    pub fact: Option<(u64, u64)>,
    /// Of what a handler made of it: the version of its module.
    pub version: u64,
}

/// The first broken promise, in words.
pub fn check(account: &Account) -> Result<(), String> {
    // By offset the id and the key that a message of the stage before goes back to.
    let mut before: BTreeMap<u64, (&str, &str)> = BTreeMap::new();
    for entry in account.entries.iter().filter(|entry| entry.topic == account.topics[0]) {
        before.insert(entry.offset, (&entry.id, &entry.key));
    }
    for (key, ids) in &account.published {
        let known: BTreeSet<&str> = before.values().filter(|(_, of)| of == key).map(|(id, _)| *id).collect();
        if let Some(lost) = ids.iter().find(|id| !known.contains(id.as_str())) {
            return Err(format!("{lost} was acknowledged and is not in the log"));
        }
    }
    for topic in &account.topics[1..] {
        before = check_stage(account, topic, &before).map_err(|why| format!("{topic}: {why}"))?;
    }
    for (key, ids) in &account.published {
        let counted = account.state.get(key).copied().unwrap_or(0);
        if counted != ids.len() as u64 {
            return Err(format!("the state of {key} says {counted} of {}", ids.len()));
        }
    }
    Ok(())
}

/// What came out on a topic, by its offset.
fn check_stage<'a>(
    account: &'a Account,
    topic: &str,
    inputs: &BTreeMap<u64, (&'a str, &'a str)>,
) -> Result<BTreeMap<u64, (&'a str, &'a str)>, String> {
    let mut outputs = BTreeMap::new();
    let mut came: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut once = BTreeSet::new();
    for entry in account.entries.iter().filter(|entry| entry.topic == topic) {
        let Some((source, n)) = entry.fact else { return Err(format!("{} is no fact", entry.offset)) };
        let Some((id, key)) = inputs.get(&source) else {
            return Err(format!("something came out of {source}, which is no message"));
        };
        if *key != entry.key {
            return Err(format!("what came out of {id} has another key"));
        }
        if !once.insert(*id) {
            return Err(format!("{id} came out twice"));
        }
        let of_key = came.entry(key).or_default();
        of_key.push(id);
        if n != of_key.len() as u64 {
            return Err(format!("{key}: number {} says that it is {n}", of_key.len()));
        }
        outputs.insert(entry.offset, (*id, *key));
    }
    for (key, ids) in &account.published {
        let came = came.remove(key.as_str()).unwrap_or_default();
        if let Some(lost) = ids.iter().find(|id| !came.contains(&id.as_str())) {
            return Err(format!("{lost} was lost"));
        }
        if let Some(stray) = came.iter().find(|id| !ids.iter().any(|known| known == *id)) {
            return Err(format!("{stray} came out and was never acknowledged"));
        }
        if let Some((id, other)) = ids.iter().zip(&came).find(|(id, other)| id != *other) {
            return Err(format!("{key}: {other} came out of order, before {id}"));
        }
    }
    match came.into_keys().next() {
        Some(key) => Err(format!("something came out of {key}, which nobody published")),
        None => Ok(outputs),
    }
}
