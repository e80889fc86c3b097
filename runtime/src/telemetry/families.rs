//! Every metric of the host, declared once.

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
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
    pub(super) open_heads: IntGaugeVec,
    pub(super) dead: IntCounterVec,
    pub(super) dead_letters: IntGaugeVec,
    pub(super) dead_dropped: IntCounterVec,
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
    pub(super) guest_counters_refused: IntCounterVec,
    pub(super) diagnostics_dropped: IntCounter,
    pub(super) sandboxes_in_use: IntGauge,
    pub(super) waiting_bytes: IntGauge,
    pub(super) commits: CommitMetrics,
    pub(super) retention: RetentionMetrics,
    pub(super) http: HttpMetrics,
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
}

impl RetentionMetrics {
    /// A step that deleted `messages` left the log with `bytes`.
    pub fn trimmed(&self, bytes: u64, messages: u64) {
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.messages.inc_by(messages);
    }

    pub(super) fn show_held(&self, is_held: bool) {
        self.held.set(i64::from(is_held));
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
                "messages_total",
                "Messages a handler settled or failed, by topic and outcome",
                &["handler", "topic", "outcome"],
            ),
            attempts: r.counters(
                "attempts_total",
                "Runs of a handler by result: ok or the kind of failure",
                &["handler", "result"],
            ),
            call_seconds: r.histograms("call_duration_seconds", "Duration of one run", CALL_SECONDS, &["handler"]),
            age_seconds: r.histograms(
                "message_age_seconds",
                "From the log's time of a message to its settlement",
                AGE_SECONDS,
                &["handler"],
            ),
            open_heads: r.gauges("open_heads", "Unsettled messages that stand for their keys", &["handler"]),
            dead: r.counters("dead_letters_total", "Messages given up, by kind of failure", &["handler", "kind"]),
            dead_letters: r.gauges("dead_letters", "Dead letters kept", &["handler"]),
            dead_dropped: r.counters(
                "dead_letters_dropped_total",
                "Dead letters that left a full box, because of dead.max",
                &["handler"],
            ),
            breaker_state: r.gauges(
                "breaker_state",
                "0 closed or none, 1 half-open, 2 open, 3 tripped by hand",
                &["handler"],
            ),
            breaker_events: r.counters(
                "breaker_events_total",
                "What happened to breakers: tripped, ready, reset, fail",
                &["handler", "event"],
            ),
            running: r.gauges("running", "Runs under way", &["handler"]),
            delayed: r.gauges("delayed_messages", "Messages held back until they are due", &["handler"]),
            delayed_refused: r.counters(
                "delayed_refused_total",
                "Runs that wait because no more messages may be delayed",
                &["handler"],
            ),
            queued: r.gauges("queued_messages", "Messages delivered to shards and not yet taken up", &["handler"]),
            commands: r.counters(
                "commands_applied_total",
                "Operators' commands by result, counted once by each shard: applied, refused",
                &["handler", "result"],
            ),
            marks: r.gauges("marks", "Ids remembered as done", &["handler"]),
            marks_evicted: r.counters(
                "marks_evicted_total",
                "Ids forgotten before their window ended, because of dedup.max",
                &["handler"],
            ),
            module: r.gauges("module_info", "1 for the module in force", &["handler", "digest"]),
            reloads: r.counters(
                "reloads_total",
                "Changes of settings, modules and versions while running, by result: ok or refused",
                &["result"],
            ),
            guest_counters_refused: r.counters(
                "guest_counters_refused_total",
                "Increments of counters that a handler may not have: a bad or taken name, or too many",
                &["handler"],
            ),
            sandboxes_in_use: r.gauge("sandboxes_in_use", "Sandboxes that run a message now"),
            waiting_bytes: r.gauge(
                "waiting_bytes",
                "Bytes of messages that wait in memory, over all handlers; at most host.waiting and a message for each shard",
            ),
            diagnostics_dropped: r.counter("diagnostics_dropped_total", "Lines of diagnostics that were dropped"),
            commits: CommitMetrics {
                seconds: r.histogram(
                    "commit_duration_seconds",
                    "From handing over a shard's commit to the answer of the log",
                    COMMIT_SECONDS,
                ),
                messages: r.histogram("commit_messages", "Messages settled by one commit of a shard", COMMIT_MESSAGES),
                shard_commits: r.counters("shard_commits_total", "Commits of shards by the log's answer", &["result"]),
            },
            retention: RetentionMetrics {
                bytes: r.gauge("retained_bytes", "Bytes that the log takes"),
                messages: r.counter("trimmed_messages_total", "Old messages deleted from the log"),
                held: r.gauge("retention_held", "1 while a shard keeps messages that should go"),
            },
            http: HttpMetrics {
                requests: r.counters("http_requests_total", "HTTP requests by route and code", &["route", "code"]),
                appended: r.counter("http_messages_appended_total", "Messages appended for HTTP clients"),
                commands: r.counters("commands_total", "Commands of operators taken into the log", &["command"]),
                connections: r.gauge("http_connections", "Open HTTP connections"),
                connections_cut: r.counters(
                    "http_connections_cut_total",
                    "HTTP connections ended because the client was waited for too long",
                    &["reason"],
                ),
                tails: r.gauge("http_tails", "Open HTTP tails"),
            },
        };
        let build = r.gauges("build_info", "1 for the version that runs", &["version"]);
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

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
    }

    fn histograms(&self, name: &str, help: &str, buckets: &[f64], labels: &[&str]) -> HistogramVec {
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels))
    }
}
