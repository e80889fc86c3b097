//! Counters that handlers make up while they run: one family with the names of handler and counter as labels, bounded in
//! number.

use super::events;
use super::families::Families;
use crate::effects::COUNTERS_MAX;
use crate::handler::HandlerName;
use prometheus::{IntCounter, IntCounterVec};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

/// Most bytes in the name of one.
const NAME_BYTES_MAX: usize = 64;

/// The counters of one handler.
pub(super) struct OwnCounters {
    handler: HandlerName,
    counts: IntCounterVec,
    refused: IntCounter,
    /// That there are too many names was said.
    full_said: AtomicBool,
    /// By the guest's name, cut; `None`: refused, remembered so that it is cheap and said once.
    known: RwLock<HashMap<Box<str>, Option<IntCounter>>>,
}

impl OwnCounters {
    pub(super) fn new(handler: &HandlerName, families: &Families) -> Self {
        let refused = families.guest_counts_refused.with_label_values(&[handler.as_str()]);
        let (counts, full_said) = (families.guest_counts.clone(), AtomicBool::new(false));
        Self { handler: handler.clone(), counts, refused, full_said, known: RwLock::default() }
    }

    pub(super) fn add(&self, name: &str, by: u64) {
        let name = cut(name);
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let found = match known.get(name) {
            Some(found) => found.clone(),
            None => {
                drop(known);
                self.make(name)
            }
        };
        match found {
            Some(counter) => counter.inc_by(by),
            None => self.refused.inc(),
        }
    }

    fn make(&self, name: &str) -> Option<IntCounter> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(name) {
            return found.clone();
        }
        // Refused names take up room in the table too, so they count against the bound.
        if known.len() >= COUNTERS_MAX {
            if !self.full_said.swap(true, Ordering::Relaxed) {
                let reason = format!("it has {COUNTERS_MAX} names already, and later ones are not said");
                events::guest_count_refused(&self.handler, name, &reason);
            }
            return None;
        }
        if !is_name(name) {
            let reason = format!("a name is 1 to {NAME_BYTES_MAX} of a-z A-Z 0-9 _");
            events::guest_count_refused(&self.handler, name, &reason);
            known.insert(name.into(), None);
            return None;
        }
        let made = self.counts.with_label_values(&[self.handler.as_str(), name]);
        known.insert(name.into(), Some(made.clone()));
        Some(made)
    }
}

/// What is remembered of a name: no more than shows that it is too long.
fn cut(name: &str) -> &str {
    if name.len() <= NAME_BYTES_MAX {
        return name;
    }
    name.char_indices().nth(NAME_BYTES_MAX + 1).map_or(name, |(end, _)| &name[..end])
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
