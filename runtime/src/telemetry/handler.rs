//! The metrics of one handler, resolved once: adding to them is adding to atomics.

use super::families::Families;
use super::guest::{GuestCounters, OwnCounters};
use crate::handler::{Digest, HandlerName};
use crate::pipeline::Settled;
use crate::topic::Topic;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// Most topics of one handler that get a label of their own; the first to come.
pub const TOPICS_MAX: usize = 100;
/// The label of the others. Users cannot publish to such a topic.
pub const TOPIC_OTHER: &str = "_other";

/// The counters of one topic of a handler, by outcome.
pub(super) struct TopicCounters([IntCounter; Settled::ALL.len()]);

impl TopicCounters {
    fn new(messages: &IntCounterVec, handler: &HandlerName, topic: &str) -> Arc<Self> {
        let counter = |outcome: Settled| messages.with_label_values(&[handler.as_str(), topic, outcome.as_str()]);
        Arc::new(Self(Settled::ALL.map(counter)))
    }

    pub(super) fn add(&self, counts: [u64; Settled::ALL.len()]) {
        for (counter, count) in self.0.iter().zip(counts).filter(|(_, count)| *count > 0) {
            counter.inc_by(count);
        }
    }
}

/// Handles of one handler's metrics.
pub struct HandlerMetrics {
    name: HandlerName,
    /// Heads, all shards together: each shard adds and subtracts its own.
    pub open_heads: IntGauge,
    /// Marks, all shards together: each shard adds and subtracts its own.
    pub marks: IntGauge,
    pub marks_evicted: IntCounter,
    /// Runs under way.
    pub running: IntGauge,
    /// Messages held back until they are due, all shards together.
    pub delayed: IntGauge,
    pub(super) delayed_refused: IntCounter,
    /// Messages delivered to shards and not yet taken up.
    pub queued: IntGauge,
    /// Dead letters kept.
    pub dead_letters: IntGauge,
    pub(super) dead_dropped: IntCounter,
    /// 0 closed or none, 1 half-open, 2 open, 3 tripped by hand.
    pub breaker_state: IntGauge,
    breaker_events: IntCounterVec,
    commands: IntCounterVec,
    /// Counted by [`Calls`](super::Calls), like `attempts_ok`.
    pub(super) call_seconds: Histogram,
    age_seconds: Histogram,
    attempts: IntCounterVec,
    pub(super) attempts_ok: IntCounter,
    dead: IntCounterVec,
    module: IntGaugeVec,
    digest: Mutex<Option<Digest>>,
    messages: IntCounterVec,
    topics: RwLock<HashMap<Topic, Arc<TopicCounters>>>,
    other: Arc<TopicCounters>,
    own: OwnCounters,
}

impl HandlerMetrics {
    pub(super) fn new(name: &HandlerName, families: &Families, guest: Arc<GuestCounters>) -> Self {
        let label = &[name.as_str()];
        Self {
            name: name.clone(),
            open_heads: families.open_heads.with_label_values(label),
            marks: families.marks.with_label_values(label),
            marks_evicted: families.marks_evicted.with_label_values(label),
            running: families.running.with_label_values(label),
            delayed: families.delayed.with_label_values(label),
            delayed_refused: families.delayed_refused.with_label_values(label),
            queued: families.queued.with_label_values(label),
            dead_letters: families.dead_letters.with_label_values(label),
            dead_dropped: families.dead_dropped.with_label_values(label),
            breaker_state: families.breaker_state.with_label_values(label),
            breaker_events: families.breaker_events.clone(),
            commands: families.commands.clone(),
            call_seconds: families.call_seconds.with_label_values(label),
            age_seconds: families.age_seconds.with_label_values(label),
            attempts: families.attempts.clone(),
            attempts_ok: families.attempts.with_label_values(&[name.as_str(), "ok"]),
            dead: families.dead.clone(),
            module: families.module.clone(),
            digest: Mutex::default(),
            messages: families.messages.clone(),
            topics: RwLock::default(),
            other: TopicCounters::new(&families.messages, name, TOPIC_OTHER),
            own: OwnCounters::new(name, guest),
        }
    }

    pub fn name(&self) -> &HandlerName {
        &self.name
    }

    /// A run that failed with `kind`.
    pub(super) fn count_failed(&self, kind: &'static str) {
        self.attempts.with_label_values(&[self.name.as_str(), kind]).inc();
    }

    /// A message was settled this long after the log took it.
    pub fn settled_after(&self, age: Duration) {
        self.age_seconds.observe(age.as_secs_f64());
    }

    /// Counts a message at once; for batches there is [`StagedCounts`](super::StagedCounts).
    pub fn count_message(&self, topic: &Topic, outcome: Settled) {
        let counters = self.topic(topic).unwrap_or_else(|| self.other.clone());
        counters.0[outcome as usize].inc();
    }

    /// Adds to a counter of the guest: `<handler>_<name>`. A name that cannot be had is refused and counted.
    pub fn count_guest(&self, name: &str, by: u64) {
        self.own.add(name, by);
    }

    /// A breaker event: `tripped`, `ready`, `reset`, `fail`.
    pub(super) fn count_breaker(&self, event: &str) {
        self.breaker_events.with_label_values(&[self.name.as_str(), event]).inc();
    }

    /// An operator's command was applied by a shard, or refused.
    pub(super) fn count_command(&self, result: &str) {
        self.commands.with_label_values(&[self.name.as_str(), result]).inc();
    }

    /// A dead letter of this kind.
    pub(super) fn count_dead(&self, kind: &str) {
        self.dead.with_label_values(&[self.name.as_str(), kind]).inc();
    }

    /// Shows this module as the one in force.
    pub(super) fn show_module(&self, digest: Digest) {
        let mut shown = self.digest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = shown.replace(digest).filter(|old| *old != digest) {
            // Only an unknown label fails to be removed, and then there is nothing to remove.
            let _ = self.module.remove_label_values(&[self.name.as_str(), &old.to_string()]);
        }
        self.module.with_label_values(&[self.name.as_str(), &digest.to_string()]).set(1);
    }

    /// Shows no module: the handler does not run.
    pub(super) fn hide_module(&self) {
        let mut shown = self.digest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = shown.take() {
            // As above.
            let _ = self.module.remove_label_values(&[self.name.as_str(), &old.to_string()]);
        }
    }

    /// The counters of a topic; `None`: it shares those of [`HandlerMetrics::other`].
    pub(super) fn topic(&self, topic: &Topic) -> Option<Arc<TopicCounters>> {
        let known = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        if known.contains_key(topic) || known.len() >= TOPICS_MAX {
            return known.get(topic).cloned();
        }
        drop(known);
        let mut known = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        if !known.contains_key(topic) && known.len() >= TOPICS_MAX {
            return None;
        }
        let make = || TopicCounters::new(&self.messages, &self.name, topic.as_str());
        Some(known.entry(topic.clone()).or_insert_with(make).clone())
    }

    pub(super) fn other(&self) -> &TopicCounters {
        &self.other
    }
}
