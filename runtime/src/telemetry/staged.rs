//! What a batch will have done once its commit is durable.

use super::handler::{HandlerMetrics, TopicCounters};
use crate::pipeline::Settled;
use crate::topic::Topic;
use std::collections::HashMap;
use std::sync::Arc;

/// In the order of [`Settled::ALL`].
type Counts = [u64; Settled::ALL.len()];

/// Counts of one batch of one shard. Adding touches nothing shared; [`StagedCounts::count`] adds them up for all to see.
///
/// It may live as long as its shard: it keeps the handles of the topics it met, at most
/// [`TOPICS_MAX`](super::TOPICS_MAX).
pub struct StagedCounts {
    metrics: Arc<HandlerMetrics>,
    topics: HashMap<Topic, (Arc<TopicCounters>, Counts)>,
    other: Counts,
    guest: HashMap<Arc<str>, u64>,
}

impl StagedCounts {
    pub fn new(metrics: Arc<HandlerMetrics>) -> Self {
        Self { metrics, topics: HashMap::new(), other: Counts::default(), guest: HashMap::new() }
    }

    /// So many messages of a topic, by outcome.
    pub fn messages(&mut self, topic: &Topic, settled: Counts) {
        let counts = match self.topics.get_mut(topic) {
            Some((_, counts)) => counts,
            None => match self.metrics.topic(topic) {
                Some(counters) => &mut self.topics.entry(topic.clone()).or_insert((counters, Counts::default())).1,
                None => &mut self.other,
            },
        };
        counts.iter_mut().zip(settled).for_each(|(count, more)| *count += more);
    }

    /// What a run added to a counter of the guest.
    pub fn guest(&mut self, name: &Arc<str>, by: u64) {
        let sum = self.guest.entry(name.clone()).or_default();
        *sum = sum.saturating_add(by);
    }

    /// Counts everything and begins anew: the commit is durable.
    pub fn count(&mut self) {
        for (counters, counts) in self.topics.values_mut() {
            counters.add(std::mem::take(counts));
        }
        self.metrics.other().add(std::mem::take(&mut self.other));
        for (name, by) in self.guest.drain() {
            self.metrics.count_guest(&name, by);
        }
    }
}
