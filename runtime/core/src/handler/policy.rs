//! How a handler's messages are treated, with the defaults of a careful operator.

use crate::topic::Pattern;
use std::time::Duration;

/// How a shard treats the handler's messages. Defaults are those of a careful operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// `None`: every message runs, whatever its id.
    pub dedup: Option<Dedup>,
    pub retry: Retry,
    pub on_failure: OnFailure,
    /// Most runs at a time over all shards of the handler on one host.
    pub concurrency: usize,
    /// Most runs begun in a time, over all shards of the handler on one host; `None`: as many as there are messages.
    pub rate: Option<RateLimit>,
    /// A larger body is a dead letter without a run. Bytes.
    pub body_bytes_max: usize,
    /// `None`: a handler that fails goes on trying.
    pub breaker: Option<BreakerSettings>,
    pub dead: DeadBox,
    pub delayed: DelayedBound,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            dedup: Some(Dedup::default()),
            retry: Retry::default(),
            on_failure: OnFailure::Park,
            concurrency: 64,
            rate: None,
            body_bytes_max: crate::message::BODY_BYTES_MAX,
            breaker: Some(BreakerSettings::default()),
            dead: DeadBox::default(),
            delayed: DelayedBound::default(),
        }
    }
}

/// Which ids are remembered, and how long.
#[derive(Clone, Debug, PartialEq)]
pub struct Dedup {
    /// A mark older than this, by the log's time, is forgotten.
    pub window: Duration,
    /// Most marks of the handler; each shard holds its share. Beyond it the oldest go, counted.
    pub marks_max: usize,
    /// Only messages on these topics are deduplicated; `None`: all.
    pub topics: Option<Vec<Pattern>>,
}

impl Default for Dedup {
    fn default() -> Self {
        Self { window: Duration::from_secs(24 * 3600), marks_max: 1_000_000, topics: None }
    }
}

/// Full-jitter exponential backoff.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Runs in all, the first included, before the message is a dead letter. At least 1.
    pub attempts: u32,
    /// Upper bound of the first wait; doubles each attempt.
    pub min: Duration,
    /// No wait is longer.
    pub max: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 8, min: Duration::from_millis(100), max: Duration::from_secs(60) }
    }
}

/// How many dead letters of a handler are kept, and what happens beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadBox {
    pub letters_max: u64,
    pub full: DeadFull,
}

impl Default for DeadBox {
    fn default() -> Self {
        Self { letters_max: 10_000, full: DeadFull::DropOldest }
    }
}

/// How many messages of a handler are held back until they are due, over all its shards on one host: they are in memory.
/// Beyond it a publish with a delay is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DelayedBound {
    pub messages_max: usize,
    pub bytes_max: usize,
}

impl Default for DelayedBound {
    fn default() -> Self {
        Self { messages_max: 100_000, bytes_max: 64 * 1024 * 1024 }
    }
}

/// What a full box of dead letters means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadFull {
    /// The oldest go, counted and logged.
    DropOldest,
    /// The handler runs nothing more until an operator retried or dropped some.
    Stop,
}

/// What a message that waits for its retry does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// Later messages of the key wait, so order holds.
    Park,
    /// Later messages of the key go on; the failed one is retried when due and loses its place.
    Skip,
}

/// When a breaker trips, and how long it stays open.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerSettings {
    pub trip: Trip,
    /// About how long it stays open the first time (± 50 %).
    pub wait: Duration,
    /// It never stays open longer than this before it probes.
    pub max_wait: Duration,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        let trip = Trip::Consecutive { failures: 5 };
        Self { trip, wait: Duration::from_millis(500), max_wait: Duration::from_secs(60) }
    }
}

/// What trips a breaker. A threshold of zero failures is one of one: it trips at a failure, never before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trip {
    /// So many failures with no success between them.
    Consecutive { failures: u32 },
    /// So many failures within a window.
    Count { failures: u32, window: Duration },
    /// Such a part of at least so many results within a window. Looked at when a run fails: a success never trips it.
    Rate { percent: u8, samples: u32, window: Duration },
}

/// So many runs in such a time. None at all, or in no time, is not a limit: settings refuse it, and here it counts as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub runs: u32,
    pub per: Duration,
}
