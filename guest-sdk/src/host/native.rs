//! The stand-in for the host outside Wasm: records what a run asks for, within the host's limits.

use super::Outgoing;
use crate::diagnostics::Level;
use crate::errors::{CountError, PublishError, StateError};
use crate::limits::*;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

thread_local! {
    /// Diagnostics have no context to go through, as on the real host.
    static LINES: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
}

pub(crate) fn diagnostic(level: Level, text: &str) {
    LINES.with_borrow_mut(|lines| lines.push((level, text.to_owned())));
}

/// The lines written on this thread since the last call.
pub(crate) fn take_diagnostics() -> Vec<(Level, String)> {
    LINES.take()
}

/// As on Wasm, its methods take it shared: a handler may ask for anything while it builds a message.
#[derive(Debug, Default)]
pub(crate) struct Host(pub(crate) RefCell<Recorded>);

impl Host {
    pub(crate) fn publish(&self, outgoing: Outgoing) -> Result<(), PublishError> {
        self.0.borrow_mut().publish(outgoing)
    }

    pub(crate) fn get(&self, entry: &str) -> Result<Option<Vec<u8>>, StateError> {
        self.0.borrow().get(entry)
    }

    pub(crate) fn set(&self, entry: &str, value: &[u8]) -> Result<(), StateError> {
        self.0.borrow_mut().set(entry, value)
    }

    pub(crate) fn delete(&self, entry: &str) -> Result<(), StateError> {
        self.0.borrow_mut().delete(entry)
    }

    pub(crate) fn names(&self) -> Result<Vec<String>, StateError> {
        self.0.borrow().names()
    }

    pub(crate) fn count(&self, name: &str, by: u64) -> Result<(), CountError> {
        self.0.borrow_mut().count(name, by)
    }

    pub(crate) fn config(&self, name: &str) -> Option<String> {
        self.0.borrow().config.get(name).cloned()
    }
}

/// What the run may do and what it asked for.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    /// Patterns that may be published to; `None`: any topic.
    pub(crate) grants: Option<Vec<String>>,
    pub(crate) has_key: bool,
    pub(crate) config: BTreeMap<String, String>,
    pub(crate) entries: BTreeMap<String, Vec<u8>>,
    pub(crate) published: Vec<Outgoing>,
    pub(crate) counts: BTreeMap<String, u64>,
    /// Names of entries written or deleted.
    pub(crate) written: BTreeSet<String>,
}

impl Recorded {
    fn publish(&mut self, outgoing: Outgoing) -> Result<(), PublishError> {
        topic_form(&outgoing.topic).map_err(PublishError::Invalid)?;
        if let Some(grants) = &self.grants
            && !grants.iter().any(|pattern| matches(pattern, &outgoing.topic))
        {
            let reason = format!("`{}` is not granted, only {}", outgoing.topic, grants.join(", "));
            return Err(PublishError::NotGranted(reason));
        }
        if outgoing.delay_ms.is_some_and(|delay| delay > DELAY_MS_MAX) {
            return Err(PublishError::Invalid(format!("the delay is longer than {DELAY_MS_MAX} ms")));
        }
        if outgoing.headers.len() > HEADERS_MAX {
            let reason = format!("{} headers, at most {HEADERS_MAX} are allowed", outgoing.headers.len());
            return Err(PublishError::TooLarge(reason));
        }
        let headers: usize = outgoing.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let key = outgoing.key.as_ref().map_or(0, String::len);
        let id = outgoing.id.as_ref().map_or(0, String::len);
        for (what, bytes, bytes_max) in [
            ("body", outgoing.body.len(), BODY_BYTES_MAX),
            ("headers", headers, HEADERS_BYTES_MAX),
            ("key", key, KEY_BYTES_MAX),
            ("id", id, ID_BYTES_MAX),
        ] {
            if bytes > bytes_max {
                let reason = format!("{what} of {bytes} bytes, at most {bytes_max} are allowed");
                return Err(PublishError::TooLarge(reason));
            }
        }
        self.room(1, outgoing_bytes(&outgoing)).map_err(PublishError::TooMany)?;
        self.published.push(outgoing);
        Ok(())
    }

    fn get(&self, entry: &str) -> Result<Option<Vec<u8>>, StateError> {
        self.keyed()?;
        Ok(self.entries.get(entry).cloned())
    }

    fn set(&mut self, entry: &str, value: &[u8]) -> Result<(), StateError> {
        self.keyed()?;
        if entry.is_empty() || entry.len() > ENTRY_NAME_BYTES_MAX {
            let reason = format!("the name of an entry has 1 to {ENTRY_NAME_BYTES_MAX} bytes, not {}", entry.len());
            return Err(StateError::Refused(reason));
        }
        if value.len() > VALUE_BYTES_MAX {
            let reason = format!("`{entry}` would have {} bytes, at most {VALUE_BYTES_MAX} are allowed", value.len());
            return Err(StateError::Refused(reason));
        }
        let old = self.entries.get(entry).map(Vec::len);
        if old.is_none() && self.entries.len() >= ENTRIES_MAX {
            return Err(StateError::Refused(format!("the key already has {ENTRIES_MAX} entries")));
        }
        let others: usize =
            self.entries.iter().filter(|(name, _)| *name != entry).map(|(name, value)| name.len() + value.len()).sum();
        if others + entry.len() + value.len() > ENTRIES_BYTES_MAX {
            let reason = format!("the key's entries would have more than {ENTRIES_BYTES_MAX} bytes");
            return Err(StateError::Refused(reason));
        }
        let (effects, freed) = match (self.written.contains(entry), old) {
            (false, _) => (1, 0),
            (true, old) => (0, entry.len() + old.unwrap_or(0)),
        };
        self.room(effects, (entry.len() + value.len()).saturating_sub(freed)).map_err(StateError::Refused)?;
        self.written.insert(entry.to_owned());
        self.entries.insert(entry.to_owned(), value.to_vec());
        Ok(())
    }

    fn delete(&mut self, entry: &str) -> Result<(), StateError> {
        self.keyed()?;
        if !self.entries.contains_key(entry) {
            return Ok(());
        }
        if !self.written.contains(entry) {
            self.room(1, entry.len()).map_err(StateError::Refused)?;
        }
        self.written.insert(entry.to_owned());
        self.entries.remove(entry);
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, StateError> {
        self.keyed()?;
        Ok(self.entries.keys().cloned().collect())
    }

    fn count(&mut self, name: &str, by: u64) -> Result<(), CountError> {
        let good = name.len() <= 63
            && name.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !good {
            let reason = format!("`{name}` is not a counter name: use a-z, then up to 62 of a-z 0-9 _");
            return Err(CountError::InvalidName(reason));
        }
        if !self.counts.contains_key(name) && self.counts.len() >= COUNTERS_MAX {
            return Err(CountError::TooMany(format!("a run may count under {COUNTERS_MAX} names")));
        }
        let sum = self.counts.entry(name.to_owned()).or_default();
        *sum = sum.saturating_add(by);
        Ok(())
    }

    fn keyed(&self) -> Result<(), StateError> {
        if self.has_key {
            return Ok(());
        }
        Err(StateError::Refused("the message is handled without a key, and state belongs to a key".to_owned()))
    }

    /// Whether the run may have this much more.
    fn room(&self, effects: usize, bytes: usize) -> Result<(), String> {
        if self.published.len() + self.written.len() + effects > EFFECTS_MAX {
            return Err(format!("a run may have at most {EFFECTS_MAX} effects"));
        }
        let published: usize = self.published.iter().map(outgoing_bytes).sum();
        let written: usize =
            self.written.iter().map(|name| name.len() + self.entries.get(name).map_or(0, Vec::len)).sum();
        if published + written + bytes > EFFECTS_BYTES_MAX {
            return Err(format!("the effects of a run may have at most {EFFECTS_BYTES_MAX} bytes"));
        }
        Ok(())
    }
}

fn outgoing_bytes(outgoing: &Outgoing) -> usize {
    let headers: usize = outgoing.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let names = outgoing.key.as_ref().map_or(0, String::len) + outgoing.id.as_ref().map_or(0, String::len);
    outgoing.topic.len() + names + headers + outgoing.body.len()
}

fn topic_form(topic: &str) -> Result<(), String> {
    let tokens = topic.split('.').count();
    if tokens > TOPIC_TOKENS_MAX {
        return Err(format!("`{topic}` has {tokens} tokens, at most {TOPIC_TOKENS_MAX} are allowed"));
    }
    if topic.starts_with('_') {
        return Err(format!("`{topic}` begins with `_`: such topics belong to the host"));
    }
    for token in topic.split('.') {
        let characters = token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if token.is_empty() || token.len() > TOPIC_TOKEN_BYTES_MAX || !characters {
            return Err(format!(
                "`{topic}` is not a topic: join tokens of 1 to {TOPIC_TOKEN_BYTES_MAX} A-Z a-z 0-9 _ - by dots"
            ));
        }
    }
    Ok(())
}

/// Whether a topic is one of those a pattern names: `*` stands for one token, a last `>` for one or more.
fn matches(pattern: &str, topic: &str) -> bool {
    let mut names = topic.split('.');
    for token in pattern.split('.') {
        match (token, names.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (token, Some(name)) if token == name => {}
            _ => return false,
        }
    }
    names.next().is_none()
}
