//! Telemetry: metrics that others scrape and diagnostics that people read.
//!
//! [`families`] declares every metric. A part asks [`Metrics`] once for the handles it needs ([`HandlerMetrics`],
//! [`CommitMetrics`], …) and then only adds to atomics. What a batch did is gathered in a [`StagedCounts`] and counted when its
//! commit is durable, so that an aborted run counts nothing.
//!
//! Labels are bounded: a handler gets [`TOPICS_MAX`] topics and [`COUNTERS_MAX`](crate::effects::COUNTERS_MAX) counters of
//! its own, whatever messages arrive. Neither metrics nor diagnostics ever wait: a full buffer drops lines and counts them.

mod calls;
pub mod diagnostics;
pub mod events;
mod failures;
mod families;
mod guest;
mod handler;
mod occasions;
pub mod spans;
mod staged;

pub use calls::Calls;
pub use failures::{FailedRun, TELL_EVERY, Told};
pub use families::{ClockMetrics, ClusterMetrics, CommitMetrics, HttpMetrics, IngressMetrics, RetentionMetrics};
pub use handler::{HandlerMetrics, TOPIC_OTHER, TOPICS_MAX};
pub use occasions::Occasions;
pub use staged::StagedCounts;

use crate::handler::HandlerName;
use families::Families;
use prometheus::{IntCounter, Registry, TextEncoder};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// All metrics of one host.
pub struct Metrics {
    registry: Registry,
    families: Families,
    handlers: Mutex<HashMap<HandlerName, Arc<HandlerMetrics>>>,
    sandboxes: OnceLock<Count>,
    waiting: OnceLock<Count>,
    diagnostics_dropped: OnceLock<Count>,
}

/// Who knows a number that is asked for at each look.
type Count = Box<dyn Fn() -> usize + Send + Sync>;

impl Metrics {
    pub fn new() -> Self {
        let registry = Registry::new();
        let families = Families::register(&registry);
        let (handlers, sandboxes, waiting) = (Mutex::default(), OnceLock::new(), OnceLock::new());
        let diagnostics_dropped = OnceLock::new();
        Self { registry, families, handlers, sandboxes, waiting, diagnostics_dropped }
    }

    /// The handles of one handler; the same ones at every call.
    pub fn handler(&self, name: &HandlerName) -> Arc<HandlerMetrics> {
        let mut handlers = self.handlers.lock().unwrap_or_else(PoisonError::into_inner);
        handlers.entry(name.clone()).or_insert_with(|| Arc::new(HandlerMetrics::new(name, &self.families))).clone()
    }

    /// Tells people how many runs failed, where that is due.
    pub fn tell_failures(&self, now: Instant) {
        let handlers: Vec<_> = self.handlers.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for handler in handlers {
            handler.failures.due(now).into_iter().for_each(|told| events::run_failed_told(&handler, told));
        }
    }

    /// What waits of each handler, as it was counted just now.
    pub fn show_waiting<'h>(&self, handlers: impl IntoIterator<Item = (&'h str, u64, Option<Duration>)>) {
        let Families { waiting, oldest_waiting, .. } = &self.families;
        // Of handlers that are gone nothing is to be left.
        waiting.reset();
        oldest_waiting.reset();
        for (handler, messages, oldest) in handlers {
            waiting.with_label_values(&[handler]).set(i64::try_from(messages).unwrap_or(i64::MAX));
            oldest_waiting.with_label_values(&[handler]).set(oldest.unwrap_or_default().as_secs_f64());
        }
    }

    pub fn commits(&self) -> CommitMetrics {
        self.families.commits.clone()
    }

    pub fn retention(&self) -> RetentionMetrics {
        self.families.retention.clone()
    }

    pub fn clock(&self) -> ClockMetrics {
        self.families.clock.clone()
    }

    pub fn ingress(&self) -> IngressMetrics {
        self.families.ingress.clone()
    }

    pub fn cluster(&self) -> ClusterMetrics {
        self.families.cluster.clone()
    }

    pub fn http(&self) -> HttpMetrics {
        self.families.http.clone()
    }

    /// Changes while running, by result.
    fn reloads(&self, result: &str) -> IntCounter {
        self.families.reloads.with_label_values(&[result])
    }

    /// Who knows how many lines of diagnostics found the buffer full; asked at each look. The first one counts.
    pub fn count_diagnostics_dropped(&self, dropped: impl Fn() -> usize + Send + Sync + 'static) {
        let _ = self.diagnostics_dropped.set(Box::new(dropped));
    }

    /// Who knows how many sandboxes are in use; asked at each look. The first one counts.
    pub fn count_sandboxes(&self, in_use: impl Fn() -> usize + Send + Sync + 'static) {
        let _ = self.sandboxes.set(Box::new(in_use));
    }

    /// Who knows how many bytes of messages wait in memory; asked at each look. The first one counts.
    pub fn count_waiting(&self, bytes: impl Fn() -> usize + Send + Sync + 'static) {
        let _ = self.waiting.set(Box::new(bytes));
    }

    /// Everything in the text format of Prometheus.
    pub fn render(&self) -> String {
        if let Some(in_use) = self.sandboxes.get() {
            self.families.sandboxes_in_use.set(i64::try_from(in_use()).unwrap_or(i64::MAX));
        }
        if let Some(bytes) = self.waiting.get() {
            self.families.waiting_bytes.set(i64::try_from(bytes()).unwrap_or(i64::MAX));
        }
        if let Some(dropped) = self.diagnostics_dropped.get() {
            let counter = &self.families.diagnostics_dropped;
            counter.inc_by((dropped() as u64).saturating_sub(counter.get()));
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
