//! What one shard adds to the gauges that all shards of its handler share.

use crate::telemetry::HandlerMetrics;
use std::sync::Arc;

/// Taken back when it is dropped.
pub(super) struct Gauges {
    metrics: Arc<HandlerMetrics>,
    /// Open heads, marks, delayed and queued messages as shown.
    shown: [i64; 4],
}

impl Gauges {
    pub(super) fn new(metrics: Arc<HandlerMetrics>) -> Self {
        Self { metrics, shown: [0; 4] }
    }

    pub(super) fn show(&mut self, now: [usize; 4]) {
        let HandlerMetrics { open_heads, marks, delayed, queued, .. } = &*self.metrics;
        for ((gauge, shown), now) in [open_heads, marks, delayed, queued].into_iter().zip(&mut self.shown).zip(now) {
            let now = i64::try_from(now).unwrap_or(i64::MAX);
            if now != *shown {
                gauge.add(now - *shown);
                *shown = now;
            }
        }
    }
}

impl Drop for Gauges {
    fn drop(&mut self) {
        self.show([0; 4]);
    }
}
