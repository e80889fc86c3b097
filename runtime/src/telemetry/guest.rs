//! Counters that handlers make up while they run: `<handler>_<name>`, bounded in number, never in the way of others.

use crate::config::metric_prefix;
use crate::handler::HandlerName;
use prometheus::proto::MetricType;
use prometheus::{IntCounter, IntCounterVec, Registry};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Most counters of one handler: each costs memory and a line in every scrape, for good.
pub const GUEST_COUNTERS_MAX: usize = 100;
/// Most bytes in the name of one.
const NAME_BYTES_MAX: usize = 64;

/// Where the counters of all handlers are registered.
pub(super) struct GuestCounters {
    registry: Registry,
    refused: IntCounterVec,
}

impl GuestCounters {
    pub(super) fn new(registry: Registry, refused: IntCounterVec) -> Self {
        Self { registry, refused }
    }
}

/// The counters of one handler.
pub(super) struct OwnCounters {
    handler: HandlerName,
    guest: Arc<GuestCounters>,
    refused: IntCounter,
    /// By the guest's name; `None`: refused, remembered so that it is cheap.
    known: RwLock<HashMap<Box<str>, Option<IntCounter>>>,
}

impl OwnCounters {
    pub(super) fn new(handler: &HandlerName, guest: Arc<GuestCounters>) -> Self {
        let refused = guest.refused.with_label_values(&[handler.as_str()]);
        Self { handler: handler.clone(), guest, refused, known: RwLock::default() }
    }

    pub(super) fn add(&self, name: &str, by: u64) {
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
        if known.len() >= GUEST_COUNTERS_MAX || name.len() > NAME_BYTES_MAX {
            return None;
        }
        let made = self.register(name);
        known.insert(name.into(), made.clone());
        made
    }

    fn register(&self, name: &str) -> Option<IntCounter> {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return None;
        }
        let full = format!("{}_{name}", metric_prefix(&self.handler));
        // The series of histograms are not names of their own in the registry, yet a scrape would take them for these.
        if ["_bucket", "_sum", "_count"].iter().any(|suffix| full.ends_with(suffix)) && self.is_histogram(&full) {
            return None;
        }
        let counter = IntCounter::new(full, format!("Counted by the handler {}", self.handler)).ok()?;
        // Refused when the name is one of the host's, or of another handler's.
        self.guest.registry.register(Box::new(counter.clone())).ok()?;
        Some(counter)
    }

    fn is_histogram(&self, full: &str) -> bool {
        let family = full.rsplit_once('_').map_or(full, |(family, _)| family);
        let families = self.guest.registry.gather();
        families.iter().any(|known| known.name() == family && known.get_field_type() == MetricType::HISTOGRAM)
    }
}
