//! The calls of one shard, counted by itself and added up for all to see once a turn: counters that all shards move at
//! every message would make their cores wait for each other.

use super::handler::HandlerMetrics;
use prometheus::local::LocalHistogram;
use std::sync::Arc;
use std::time::Duration;

pub struct Calls {
    metrics: Arc<HandlerMetrics>,
    ok: u64,
    seconds: LocalHistogram,
}

impl Calls {
    pub fn new(metrics: Arc<HandlerMetrics>) -> Self {
        Self { seconds: metrics.call_seconds.local(), metrics, ok: 0 }
    }

    /// A run that went well.
    pub fn ok(&mut self, took: Duration) {
        self.ok += 1;
        self.seconds.observe(took.as_secs_f64());
    }

    /// A run that failed with `kind`, a [`Failure::kind`](crate::invoke::Failure::kind).
    pub fn failed(&mut self, kind: &'static str, took: Duration) {
        self.metrics.count_failed(kind);
        self.seconds.observe(took.as_secs_f64());
    }

    /// Shows what was counted since the last time.
    pub fn show(&mut self) {
        self.metrics.attempts_ok.inc_by(std::mem::take(&mut self.ok));
        self.seconds.flush();
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.show();
    }
}
