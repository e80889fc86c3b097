//! The box of a handler's dead letters: how full it is, and what a full one means for the handler.
//!
//! The log keeps the letters and their bound; here they are only counted, for all shards of the handler on this host.

use crate::handler::{DeadBox, DeadFull};
use crate::log::DeadUsage;
use crate::telemetry::{HandlerMetrics, events};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts the letters of one handler. Shared by its shards.
pub struct Counter {
    inner: Mutex<Inner>,
    /// As `Inner::is_full` said last: asked before every run, so without a lock.
    full: AtomicBool,
    metrics: Arc<HandlerMetrics>,
}

struct Inner {
    settings: DeadBox,
    /// Those that are durable.
    letters: u64,
    /// What they take, about.
    bytes: u64,
    /// What they may take; `None`: whatever they like.
    bytes_max: Option<u64>,
    /// How many the log let go for their bytes, as it said last.
    dropped_for_bytes: u64,
    /// Whether the full box was said.
    full_said: bool,
}

impl Counter {
    /// Of a handler that has so many letters already.
    pub fn new(settings: DeadBox, letters: u64, metrics: Arc<HandlerMetrics>) -> Self {
        let inner = Inner { settings, letters, bytes: 0, bytes_max: None, dropped_for_bytes: 0, full_said: false };
        let counter = Self { full: AtomicBool::new(inner.is_full()), inner: Mutex::new(inner), metrics };
        counter.show(&counter.lock());
        counter
    }

    /// Takes changed settings; what was counted stays.
    pub fn configure(&self, settings: DeadBox) {
        let mut inner = self.lock();
        inner.settings = settings;
        if settings.full == DeadFull::DropOldest {
            // The log lets the rest go with the next commits.
            inner.letters = inner.letters.min(settings.letters_max);
        }
        self.show(&inner);
    }

    /// Whether the handler may run nothing more until letters go.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// Tells people that it is full: once, until there was room again.
    pub fn say_full(&self) {
        let mut inner = self.lock();
        if inner.is_full() && !std::mem::replace(&mut inner.full_said, true) {
            match inner.bytes_max.filter(|max| inner.letters < inner.settings.letters_max && inner.bytes >= *max) {
                Some(bytes_max) => events::dead_box_out_of_bytes(&self.metrics, bytes_max),
                None => events::dead_box_full(&self.metrics, inner.settings.letters_max),
            }
        }
    }

    /// A durable commit added and removed letters. Whether there is room now.
    pub fn changed(&self, added: u64, removed: u64) -> bool {
        let mut inner = self.lock();
        inner.letters = (inner.letters + added).saturating_sub(removed);
        if inner.settings.full == DeadFull::DropOldest {
            let beyond = inner.letters.saturating_sub(inner.settings.letters_max);
            if beyond > 0 {
                // The log deletes them in the commit that brings the newer ones.
                inner.letters -= beyond;
                events::dead_letters_dropped(&self.metrics, beyond);
            }
        }
        self.show(&inner);
        inner.full_said &= inner.is_full();
        !inner.is_full()
    }

    /// A durable commit added letters of so many bytes; how many letters is told next.
    pub fn grew(&self, bytes: u64) {
        self.lock().bytes += bytes;
    }

    /// What the log says before anything was counted here.
    pub fn begins(&self, usage: DeadUsage, bytes_max: Option<u64>) {
        self.lock().dropped_for_bytes = usage.dropped_for_bytes;
        self.counted(Some(usage), bytes_max);
    }

    /// What the log says of the letters, and how many bytes they may take. Whether that made room.
    pub fn counted(&self, usage: Option<DeadUsage>, bytes_max: Option<u64>) -> bool {
        let mut inner = self.lock();
        let was_full = inner.is_full();
        inner.bytes_max = bytes_max;
        if let Some(usage) = usage {
            // How many letters there are is counted here: a commit that the log has may not have been told yet.
            inner.bytes = usage.bytes;
            let dropped = usage.dropped_for_bytes.saturating_sub(inner.dropped_for_bytes);
            if dropped > 0 {
                inner.dropped_for_bytes = usage.dropped_for_bytes;
                inner.letters = inner.letters.saturating_sub(dropped);
                events::dead_letters_dropped_for_bytes(&self.metrics, dropped);
            }
        }
        self.show(&inner);
        inner.full_said &= inner.is_full();
        was_full && !inner.is_full()
    }

    fn show(&self, inner: &Inner) {
        self.full.store(inner.is_full(), Ordering::Release);
        self.metrics.dead_letters.set(i64::try_from(inner.letters).unwrap_or(i64::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn is_full(&self) -> bool {
        let out_of_bytes = self.bytes_max.is_some_and(|max| self.bytes >= max);
        self.settings.full == DeadFull::Stop && (self.letters >= self.settings.letters_max || out_of_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::HandlerName;
    use crate::telemetry::Metrics;

    fn counter(letters_max: u64, full: DeadFull, letters: u64) -> Counter {
        let metrics = Metrics::new().handler(&HandlerName::parse("order").unwrap());
        Counter::new(DeadBox { letters_max, full }, letters, metrics)
    }

    #[test]
    fn what_a_lowered_bound_let_go_does_not_keep_a_handler_shut() {
        let counter = counter(10_000, DeadFull::DropOldest, 5000);
        counter.configure(DeadBox { letters_max: 100, full: DeadFull::DropOldest });
        counter.configure(DeadBox { letters_max: 1000, full: DeadFull::Stop });
        assert!(!counter.is_full());
    }

    #[test]
    fn a_full_box_that_stops_has_room_when_letters_go() {
        let counter = counter(3, DeadFull::Stop, 2);
        assert!(!counter.is_full());
        assert!(!counter.changed(1, 0) && counter.is_full());
        assert!(counter.changed(0, 1) && !counter.is_full());
    }

    #[test]
    fn a_box_that_stops_is_full_when_its_letters_take_their_share_of_the_log() {
        let counter = counter(100, DeadFull::Stop, 2);
        let usage = |bytes| Some(DeadUsage { letters: 2, bytes, dropped_for_bytes: 0 });
        counter.counted(usage(500), Some(1000));
        assert!(!counter.is_full());
        counter.grew(500);
        assert!(!counter.changed(1, 0) && counter.is_full());
        assert!(counter.counted(usage(400), Some(1000)) && !counter.is_full());
    }

    #[test]
    fn a_box_that_drops_the_oldest_is_never_full() {
        let counter = counter(3, DeadFull::DropOldest, 3);
        assert!(counter.changed(2, 0) && !counter.is_full());
        assert_eq!(counter.lock().letters, 3);
    }
}
