//! Telemetry: metrics that others scrape and diagnostics that people read.
//!
//! [`families`] declares every metric. A part asks [`Metrics`] once for the handles it needs ([`HandlerMetrics`],
//! [`CommitMetrics`], …) and then only adds to atomics. What a batch did is gathered in a [`Tally`] and counted when its
//! commit is durable, so that an aborted run counts nothing.
//!
//! Labels are bounded: a handler gets [`TOPICS_MAX`] topics and [`GUEST_COUNTERS_MAX`] counters of its own, whatever
//! messages arrive. Neither metrics nor diagnostics ever wait: a full buffer drops lines and counts them.

mod calls;
pub mod diagnostics;
pub mod events;
mod families;
mod guest;
mod handler;
mod tally;

pub use calls::Calls;
pub use families::{CommitMetrics, HttpMetrics, RetentionMetrics};
pub use guest::GUEST_COUNTERS_MAX;
pub use handler::{HandlerMetrics, TOPIC_OTHER, TOPICS_MAX};
pub use tally::Tally;

use crate::handler::HandlerName;
use families::Families;
use guest::GuestCounters;
use prometheus::{IntCounter, Registry, TextEncoder};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// All metrics of one host.
pub struct Metrics {
    registry: Registry,
    families: Families,
    guest: Arc<GuestCounters>,
    handlers: Mutex<HashMap<HandlerName, Arc<HandlerMetrics>>>,
    sandboxes: OnceLock<Box<dyn Fn() -> usize + Send + Sync>>,
}

impl Metrics {
    pub fn new() -> Self {
        let registry = Registry::new();
        let families = Families::register(&registry);
        let guest = Arc::new(GuestCounters::new(registry.clone(), families.guest_counters_refused.clone()));
        Self { registry, families, guest, handlers: Mutex::default(), sandboxes: OnceLock::new() }
    }

    /// The handles of one handler; the same ones at every call.
    pub fn handler(&self, name: &HandlerName) -> Arc<HandlerMetrics> {
        let mut handlers = self.handlers.lock().unwrap_or_else(PoisonError::into_inner);
        handlers
            .entry(name.clone())
            .or_insert_with(|| Arc::new(HandlerMetrics::new(name, &self.families, self.guest.clone())))
            .clone()
    }

    pub fn commits(&self) -> CommitMetrics {
        self.families.commits.clone()
    }

    pub fn retention(&self) -> RetentionMetrics {
        self.families.retention.clone()
    }

    pub fn http(&self) -> HttpMetrics {
        self.families.http.clone()
    }

    /// Changes while running, by result.
    fn reloads(&self, result: &str) -> IntCounter {
        self.families.reloads.with_label_values(&[result])
    }

    /// Lines of diagnostics that found the buffer full.
    pub fn diagnostics_dropped(&self) -> IntCounter {
        self.families.diagnostics_dropped.clone()
    }

    /// Who knows how many sandboxes are in use; asked at each look. The first one counts.
    pub fn count_sandboxes(&self, in_use: impl Fn() -> usize + Send + Sync + 'static) {
        let _ = self.sandboxes.set(Box::new(in_use));
    }

    /// Everything in the text format of Prometheus.
    pub fn render(&self) -> String {
        if let Some(in_use) = self.sandboxes.get() {
            self.families.sandboxes_in_use.set(i64::try_from(in_use()).unwrap_or(i64::MAX));
        }
        // The encoder fails on a family without a name or samples; such cannot be registered.
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|error| format!("# {error}\n"))
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
