//! The settings of a handler: how its messages are treated.

use crate::config::kinds::{Form, Rate, Size, Span, Table, Whole, Word};
use crate::config::setting::{Is, Means, Setting, settings};
use crate::handler::{DeadFull, OnFailure};
use crate::message::BODY_BYTES_MAX;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

settings! {
    DEDUP: Form, Means = Setting {
        path: "handlers.*.dedup",
        kind: Form("false, or a table such as { window = \"24h\", max = 1_000_000 }"),
        default: Means("on, with the defaults of what is in it"),
        effect: "A message whose id was done within the window is skipped. `false` runs every message.",
        example: "dedup = false",
        above: None,
    };
    DEDUP_WINDOW: Span, Is<Duration> = Setting {
        path: "handlers.*.dedup.window",
        kind: Span(SECOND..=YEAR),
        default: Is(DAY),
        effect: "How long an id is remembered, by the log's time.",
        example: "dedup = { window = \"1h\" }",
        above: None,
    };
    DEDUP_MAX: Whole<usize>, Is<usize> = Setting {
        path: "handlers.*.dedup.max",
        kind: Whole(1..=100_000_000),
        default: Is(1_000_000),
        effect: "How many ids are remembered, over all shards together, however unevenly keys spread over them. Beyond it \
                 shards with more than an equal share forget their oldest. While the load moves from shard to shard there \
                 may be up to twice as many. Each takes some 60 bytes of memory.",
        example: "dedup = { max = 5_000_000 }",
        above: None,
    };
    DEDUP_TOPICS: Form, Means = Setting {
        path: "handlers.*.dedup.topics",
        kind: Form("a list of patterns, such as [\"orders.*\"]"),
        default: Means("all subscribed topics"),
        effect: "Only messages on these topics are looked at.",
        example: "dedup = { topics = [\"events.new_order\"] }",
        above: None,
    };
    RETRY: Table, Means = Setting {
        path: "handlers.*.retry",
        kind: Table("a table, retry = { … }"),
        default: Means("the defaults of what is in it"),
        effect: "What happens after a failed run: it is tried again after a wait that doubles each time, with jitter.",
        example: "retry = { attempts = 3 }",
        above: None,
    };
    RETRY_ATTEMPTS: Whole<u32>, Is<u32> = Setting {
        path: "handlers.*.retry.attempts",
        kind: Whole(1..=1_000_000),
        default: Is(8),
        effect: "Runs in all, the first included; then the message is a dead letter.",
        example: "retry = { attempts = 20 }",
        above: None,
    };
    RETRY_MIN: Span, Is<Duration> = Setting {
        path: "handlers.*.retry.min",
        kind: Span(Duration::from_millis(1)..=WEEK),
        default: Is(Duration::from_millis(100)),
        effect: "The longest that the first wait may be.",
        example: "retry = { min = \"1s\" }",
        above: None,
    };
    RETRY_MAX: Span, Means = Setting {
        path: "handlers.*.retry.max",
        kind: Span(Duration::from_millis(1)..=WEEK),
        default: Means("\"1m\", or `min` if that is longer"),
        effect: "The longest that any wait may be. Not below `min`.",
        example: "retry = { max = \"10m\" }",
        above: None,
    };
    ON_FAILURE: Word<OnFailure>, Is<OnFailure> = Setting {
        path: "handlers.*.on_failure",
        kind: Word(&[("park", OnFailure::Park), ("skip", OnFailure::Skip)]),
        default: Is(OnFailure::Park),
        effect: "`park`: while a message waits for its retry, later ones of its key wait too, so order holds. `skip`: they \
                 go on, and the failed one loses its place.",
        example: "on_failure = \"skip\"",
        above: None,
    };
    LIMIT: Table, Means = Setting {
        path: "handlers.*.limit",
        kind: Table("a table, limit = { … }"),
        default: Means("the defaults of what is in it"),
        effect: "What the handler may take of the host. At a limit messages wait in the log.",
        example: "limit = { concurrency = 8 }",
        above: None,
    };
    LIMIT_CONCURRENCY: Whole<usize>, Is<usize> = Setting {
        path: "handlers.*.limit.concurrency",
        kind: Whole(1..=100_000),
        default: Is(64),
        effect: "Most runs at a time, over all shards of the handler on one host.",
        example: "limit = { concurrency = 8 }",
        above: None,
    };
    LIMIT_RATE: Rate, Means = Setting {
        path: "handlers.*.limit.rate",
        kind: Rate,
        default: Means("none: as many as there are messages"),
        effect: "Most runs begun in a second, minute or hour, over all shards of the handler on one host.",
        example: "limit = { rate = \"1000/s\" }",
        above: None,
    };
    LIMIT_BODY: Size, Is<u64> = Setting {
        path: "handlers.*.limit.body",
        kind: Size(1..=BODY_BYTES_MAX as u64),
        default: Is(BODY_BYTES_MAX as u64),
        effect: "A message with a larger body is a dead letter without a run.",
        example: "limit = { body = \"64KiB\" }",
        above: None,
    };
    DEAD: Table, Means = Setting {
        path: "handlers.*.dead",
        kind: Table("a table, dead = { … }"),
        default: Means("the defaults of what is in it"),
        effect: "The box of messages that were given up.",
        example: "dead = { max = 100 }",
        above: None,
    };
    DEAD_MAX: Whole<u64>, Is<u64> = Setting {
        path: "handlers.*.dead.max",
        kind: Whole(1..=10_000_000),
        default: Is(10_000),
        effect: "How many dead letters of the handler are kept.",
        example: "dead = { max = 100_000 }",
        above: None,
    };
    DEAD_FULL: Word<DeadFull>, Is<DeadFull> = Setting {
        path: "handlers.*.dead.full",
        kind: Word(&[("drop-oldest", DeadFull::DropOldest), ("stop", DeadFull::Stop)]),
        default: Is(DeadFull::DropOldest),
        effect: "What a full box means. `drop-oldest`: the oldest dead letter goes, counted and logged. `stop`: the handler \
                 runs nothing more until an operator retried or dropped some.",
        example: "dead = { full = \"stop\" }",
        above: None,
    };
    DELAYED: Table, Means = Setting {
        path: "handlers.*.delayed",
        kind: Table("a table, delayed = { … }"),
        default: Means("the defaults of what is in it"),
        effect: "How much that the handler publishes with a delay is held back at a time, over all shards on one host: it is \
                 in memory. Beyond it such a publish is refused; a run that fails for that waits and is tried again, and \
                 the try does not count.",
        example: "delayed = { max = 10_000 }",
        above: None,
    };
    DELAYED_MAX: Whole<usize>, Is<usize> = Setting {
        path: "handlers.*.delayed.max",
        kind: Whole(1..=10_000_000),
        default: Is(100_000),
        effect: "Most messages.",
        example: "delayed = { max = 1_000_000 }",
        above: None,
    };
    DELAYED_BYTES: Size, Is<u64> = Setting {
        path: "handlers.*.delayed.max_bytes",
        // One message of any size has room.
        kind: Size(1 << 20..=1 << 36),
        default: Is(64 << 20),
        effect: "Most memory of these messages.",
        example: "delayed = { max_bytes = \"1GiB\" }",
        above: None,
    };
}
