//! Every metric of the host, declared once.
//!
//! Names begin with `sluicebox_`, are in base units (seconds, bytes), and end with `_total` where they only rise. They begin
//! at 0 with the process, as those who scrape them expect: what rose before a restart is in their own records.

use crate::clock::Timestamp;
use crate::handler::ShardId;
use crate::log::Usage;
use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};
use std::time::Duration;

/// Seconds: a warm call takes microseconds, a slow handler its whole timeout.
const CALL_SECONDS: &[f64] = &[
    0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0,
    30.0,
];
/// Seconds: from a write that needs no fsync to a disk in trouble.
const COMMIT_SECONDS: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
const COMMIT_MESSAGES: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0];
/// Seconds between a message's time and its settlement: live, or a backlog of days.
const AGE_SECONDS: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0, 3600.0, 86400.0];

/// The metric families; handles are taken from them once per handler.
pub(super) struct Families {
    pub(super) messages: IntCounterVec,
    pub(super) attempts: IntCounterVec,
    pub(super) call_seconds: HistogramVec,
    pub(super) age_seconds: HistogramVec,
    pub(super) waiting: IntGaugeVec,
    pub(super) oldest_waiting: GaugeVec,
    pub(super) open_heads: IntGaugeVec,
    pub(super) dead: IntCounterVec,
    pub(super) dead_letters: IntGaugeVec,
    pub(super) dead_dropped: IntCounterVec,
    pub(super) missed: IntCounterVec,
    pub(super) breaker_state: IntGaugeVec,
    pub(super) breaker_events: IntCounterVec,
    pub(super) running: IntGaugeVec,
    pub(super) delayed: IntGaugeVec,
    pub(super) delayed_refused: IntCounterVec,
    pub(super) queued: IntGaugeVec,
    pub(super) commands: IntCounterVec,
    pub(super) marks: IntGaugeVec,
    pub(super) marks_evicted: IntCounterVec,
    pub(super) module: IntGaugeVec,
    pub(super) reloads: IntCounterVec,
    pub(super) guest_counts: IntCounterVec,
    pub(super) guest_counts_refused: IntCounterVec,
    pub(super) diagnostics_dropped: IntCounter,
    pub(super) sandboxes_in_use: IntGauge,
    pub(super) waiting_bytes: IntGauge,
    pub(super) commits: CommitMetrics,
    pub(super) retention: RetentionMetrics,
    pub(super) ingress: IngressMetrics,
    pub(super) http: HttpMetrics,
    pub(super) clock: ClockMetrics,
    pub(super) cluster: ClusterMetrics,
}

/// What is counted of commits.
#[derive(Clone)]
pub struct CommitMetrics {
    /// Seconds from handing a shard's commit over until the log answered.
    pub seconds: Histogram,
    /// Messages settled by one commit of a shard.
    pub messages: Histogram,
    /// Shard commits by answer: `ok`, `fenced`, `refused`, `unavailable`, `unknown`.
    pub shard_commits: IntCounterVec,
}

impl CommitMetrics {
    /// One durable commit of a shard that settled `messages`.
    pub fn observe(&self, took: Duration, messages: usize) {
        self.seconds.observe(took.as_secs_f64());
        self.messages.observe(messages as f64);
    }
}

/// What is counted of the log's size and of what was deleted from it.
#[derive(Clone)]
pub struct RetentionMetrics {
    bytes: IntGauge,
    messages: IntCounter,
    held: IntGauge,
    bytes_max: IntGauge,
    full: IntGauge,
    holder: IntGaugeVec,
}

impl RetentionMetrics {
    /// A step that deleted `messages` left the log with `bytes`.
    pub fn trimmed(&self, bytes: u64, messages: u64) {
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.messages.inc_by(messages);
    }

    /// Who keeps old messages.
    pub fn show_held(&self, holder: Option<&ShardId>) {
        self.held.set(i64::from(holder.is_some()));
        self.holder.reset();
        if let Some(shard) = holder {
            self.holder.with_label_values(&[shard.handler.as_str()]).set(1);
        }
    }

    /// How full the log is.
    pub fn room(&self, usage: &Usage) {
        self.bytes_max.set(i64::try_from(usage.bytes_max.unwrap_or(0)).unwrap_or(i64::MAX));
        self.full.set(i64::from(usage.full.is_some()));
    }
}

/// What is counted of what plain clients sent.
#[derive(Clone)]
pub struct IngressMetrics {
    messages: IntCounterVec,
    waiting: IntGauge,
}

impl IngressMetrics {
    /// A commit is durable that has so many messages, and words of so much that can be none; about so many wait after it.
    pub fn took(&self, fit: u64, unfit: u64, waiting: u64) {
        self.messages.with_label_values(&["taken"]).inc_by(fit);
        self.messages.with_label_values(&["unfit"]).inc_by(unfit);
        self.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    /// Of what came live so much could not be kept until it was taken, since the host began.
    pub fn lost(&self, messages: u64) {
        let lost = self.messages.with_label_values(&["lost"]);
        lost.inc_by(messages.saturating_sub(lost.get()));
    }
}

/// Hosts on one log, as this one sees them.
#[derive(Clone)]
pub struct ClusterMetrics {
    members: IntGauge,
    held: IntGauge,
    taken_over: IntCounter,
    features: IntGauge,
}

impl ClusterMetrics {
    /// How many hosts live, how many shards this one holds, and what all of the living understand.
    pub fn show(&self, members: usize, held: usize, features: u32) {
        self.members.set(i64::try_from(members).unwrap_or(i64::MAX));
        self.held.set(i64::try_from(held).unwrap_or(i64::MAX));
        self.features.set(i64::from(features));
    }

    /// Shards of hosts that are silent are this host's now.
    pub fn taken_over(&self, shards: usize) {
        self.taken_over.inc_by(shards as u64);
    }
}

/// The machine's clock, seen from the host's time.
#[derive(Clone)]
pub struct ClockMetrics {
    skew: Gauge,
}

impl ClockMetrics {
    pub fn show(&self, wall: Timestamp, host: Timestamp) {
        self.skew.set(wall.since(host).as_secs_f64() - host.since(wall).as_secs_f64());
    }
}

/// What the HTTP face counts.
#[derive(Clone)]
pub struct HttpMetrics {
    /// By route and status code.
    pub requests: IntCounterVec,
    /// Messages appended for clients.
    pub appended: IntCounter,
    /// What operators asked for and is durable.
    pub commands: IntCounterVec,
    pub connections: IntGauge,
    /// Connections that the host cut: `place` or `turn` for a client who waited for one, `unread` because this one did
    /// not read.
    pub connections_cut: IntCounterVec,
    /// Open tails.
    pub tails: IntGauge,
}

impl Families {
    pub(super) fn register(registry: &Registry) -> Self {
        let r = Registrar(registry);
        let families = Self {
            messages: r.counters(
                "sluicebox_messages_total",
                "Messages a handler settled or failed, by topic and outcome",
                &["handler", "topic", "outcome"],
            ),
            attempts: r.counters(
                "sluicebox_attempts_total",
                "Runs of a handler by result: ok or the kind of failure",
                &["handler", "result"],
            ),
            call_seconds: r.histograms(
                "sluicebox_call_duration_seconds",
                "Duration of one run",
                CALL_SECONDS,
                &["handler"],
            ),
            age_seconds: r.histograms(
                "sluicebox_message_age_seconds",
                "From the log's time of a message to its settlement",
                AGE_SECONDS,
                &["handler"],
            ),
            waiting: r.gauges(
                "sluicebox_waiting_messages",
                "Messages of a handler that are not settled; at least so many, where counting reaches its bound",
                &["handler"],
            ),
            oldest_waiting: r.seconds(
                "sluicebox_oldest_waiting_seconds",
                "For how long the oldest message of a handler that is not settled is in the log",
                &["handler"],
            ),
            open_heads: r.gauges("sluicebox_open_heads", "Unsettled messages that stand for their keys", &["handler"]),
            dead: r.counters(
                "sluicebox_dead_letters_total",
                "Messages given up, by kind of failure",
                &["handler", "kind"],
            ),
            dead_letters: r.gauges("sluicebox_dead_letters", "Dead letters kept", &["handler"]),
            dead_dropped: r.counters(
                "sluicebox_dead_letters_dropped_total",
                "Dead letters that left a full box, because of dead.max",
                &["handler"],
            ),
            missed: r.counters(
                "sluicebox_missed_messages_total",
                "Messages of any topic that were deleted after a handler's position while it was away",
                &["handler"],
            ),
            breaker_state: r.gauges(
                "sluicebox_breaker_state",
                "0 closed or none, 1 half-open, 2 open, 3 tripped by hand",
                &["handler"],
            ),
            breaker_events: r.counters(
                "sluicebox_breaker_events_total",
                "What happened to breakers: tripped, ready, reset, fail",
                &["handler", "event"],
            ),
            running: r.gauges("sluicebox_running", "Runs under way", &["handler"]),
            delayed: r.gauges("sluicebox_delayed_messages", "Messages held back until they are due", &["handler"]),
            delayed_refused: r.counters(
                "sluicebox_delayed_refused_total",
                "Runs that wait because no more messages may be delayed",
                &["handler"],
            ),
            queued: r.gauges("sluicebox_queued_messages", "Messages delivered to shards and not yet taken up", &["handler"]),
            commands: r.counters(
                "sluicebox_commands_applied_total",
                "Operators' commands by result, counted once by each shard: applied, refused",
                &["handler", "result"],
            ),
            marks: r.gauges("sluicebox_marks", "Ids remembered as done", &["handler"]),
            marks_evicted: r.counters(
                "sluicebox_marks_evicted_total",
                "Ids forgotten before their window ended, because of dedup.max",
                &["handler"],
            ),
            module: r.gauges("sluicebox_module_info", "1 for the module in force", &["handler", "digest"]),
            reloads: r.counters(
                "sluicebox_reloads_total",
                "Changes of settings, modules and versions while running, by result: ok or refused",
                &["result"],
            ),
            guest_counts: r.counters(
                "sluicebox_guest_count_total",
                "What handlers count, by the name that they give; from 0 at every start of the host",
                &["handler", "name"],
            ),
            guest_counts_refused: r.counters(
                "sluicebox_guest_counts_refused_total",
                "Increments under names that a handler may not have: a bad one, or one too many",
                &["handler"],
            ),
            sandboxes_in_use: r.gauge("sluicebox_sandboxes_in_use", "Sandboxes that run a message now"),
            waiting_bytes: r.gauge(
                "sluicebox_waiting_bytes",
                "Bytes of messages that wait in memory, over all handlers; at most host.waiting and a message for each shard",
            ),
            diagnostics_dropped: r.counter("sluicebox_diagnostics_dropped_total", "Lines of diagnostics that were dropped"),
            commits: CommitMetrics {
                seconds: r.histogram(
                    "sluicebox_commit_duration_seconds",
                    "From handing over a shard's commit to the answer of the log",
                    COMMIT_SECONDS,
                ),
                messages: r.histogram(
                    "sluicebox_commit_messages",
                    "Messages settled by one commit of a shard",
                    COMMIT_MESSAGES,
                ),
                shard_commits: r.counters(
                    "sluicebox_shard_commits_total",
                    "Commits of shards by the log's answer",
                    &["result"],
                ),
            },
            retention: RetentionMetrics {
                bytes: r.gauge("sluicebox_retained_bytes", "Bytes that the log takes"),
                messages: r.counter("sluicebox_trimmed_messages_total", "Old messages deleted from the log"),
                held: r.gauge("sluicebox_retention_held", "1 while a shard keeps messages that should go"),
                bytes_max: r
                    .gauge("sluicebox_retained_bytes_max", "Bytes at which the log takes nothing new; 0: the disk is the bound"),
                full: r.gauge("sluicebox_log_full", "1 while the log takes nothing new"),
                holder: r.gauges(
                    "sluicebox_retention_holder",
                    "1 for the handler that keeps messages which should go",
                    &["handler"],
                ),
            },
            ingress: IngressMetrics {
                messages: r.counters(
                    "sluicebox_ingress_messages_total",
                    "What plain clients sent, by result: taken into the log, unfit to be a message, or lost before it was taken (of what \
                     came live)",
                    &["result"],
                ),
                waiting: r.gauge(
                    "sluicebox_ingress_waiting_messages",
                    "What plain clients sent and was not taken up at the last look, about",
                ),
            },
            cluster: ClusterMetrics {
                members: r.gauge("sluicebox_hosts", "Hosts on the log that live, with this one; 0 where there can be one only"),
                held: r.gauge("sluicebox_shards_held", "Shards that this host holds; 0 where there can be one host only"),
                taken_over: r.counter("sluicebox_takeovers_total", "Shards taken over from hosts that were silent"),
                features: r.gauge("sluicebox_features", "What all hosts that live understand; 0 where there can be one only"),
            },
            http: HttpMetrics {
                requests: r.counters(
                    "sluicebox_http_requests_total",
                    "HTTP requests by route and code",
                    &["route", "code"],
                ),
                appended: r.counter("sluicebox_http_messages_appended_total", "Messages appended for HTTP clients"),
                commands: r.counters(
                    "sluicebox_commands_total",
                    "Commands of operators taken into the log",
                    &["command"],
                ),
                connections: r.gauge("sluicebox_http_connections", "Open HTTP connections"),
                connections_cut: r.counters(
                    "sluicebox_http_connections_cut_total",
                    "HTTP connections ended because the client was waited for too long",
                    &["reason"],
                ),
                tails: r.gauge("sluicebox_http_tails", "Open HTTP tails"),
            },
            clock: ClockMetrics {
                skew: r.fraction("sluicebox_clock_skew_seconds", "How far the machine's clock is ahead of the host's time"),
            },
        };
        let build = r.gauges("sluicebox_build_info", "1 for the version that runs", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        families
    }
}

/// Makes and registers families. Their names, helps and labels are constants of this file, so a mistake in them shows at
/// the first start, in every test.
struct Registrar<'r>(&'r Registry);

const CONSTANT: &str = "names and labels of metrics are valid and differ";

impl Registrar<'_> {
    fn add<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let collector = made.expect(CONSTANT);
        self.0.register(Box::new(collector.clone())).expect(CONSTANT);
        collector
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, help))
    }

    fn fraction(&self, name: &str, help: &str) -> Gauge {
        self.add(Gauge::new(name, help))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn seconds(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.add(GaugeVec::new(Opts::new(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
    }

    fn histograms(&self, name: &str, help: &str, buckets: &[f64], labels: &[&str]) -> HistogramVec {
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels))
    }
}
