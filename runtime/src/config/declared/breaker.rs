//! The settings of a handler's breaker.

use crate::config::kinds::{Form, Span, Whole, Word};
use crate::config::setting::{Is, Means, Setting, settings};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What trips a breaker, without its numbers.
#[derive(Clone, Copy, PartialEq)]
pub(in crate::config) enum Trips {
    Consecutive,
    Count,
    Rate,
}

impl Trips {
    pub(in crate::config) const NAMES: &[(&str, Trips)] =
        &[("consecutive", Trips::Consecutive), ("count", Trips::Count), ("rate", Trips::Rate)];

    pub(in crate::config) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, trips)| *trips == self).map_or("", |(name, _)| name)
    }

    /// The numbers that this kind looks at.
    pub(in crate::config) fn uses(self) -> &'static [&'static str] {
        match self {
            Trips::Consecutive => &["failures"],
            Trips::Count => &["failures", "window"],
            Trips::Rate => &["percent", "samples", "window"],
        }
    }
}

settings! {
    BREAKER: Form, Means = Setting {
        path: "handlers.*.breaker",
        kind: Form("false, or a table such as { trip = \"consecutive\", failures = 5 }"),
        default: Means("on, with the defaults of what is in it"),
        effect: "Stops a handler that only fails: while the breaker is open nothing runs, messages wait in the log and lose \
                 no attempt; then runs probe one at a time. Only the first try of a message counts, one key alone trips \
                 nothing, and a rejected message is no failure. `false`: no breaker.",
        example: "breaker = false",
        above: None,
    };
    BREAKER_TRIP: Word<Trips>, Is<Trips> = Setting {
        path: "handlers.*.breaker.trip",
        kind: Word(Trips::NAMES),
        default: Is(Trips::Consecutive),
        effect: "What trips it: `failures` without a success between them; `failures` within `window`; or `percent` of at \
                 least `samples` runs within `window`.",
        example: "breaker = { trip = \"count\", failures = 10, window = \"30s\" }",
        above: None,
    };
    BREAKER_FAILURES: Whole<u32>, Is<u32> = Setting {
        path: "handlers.*.breaker.failures",
        kind: Whole(1..=1_000_000),
        default: Is(5),
        effect: "How many failures trip it; for trip = \"consecutive\" and \"count\".",
        example: "breaker = { failures = 10 }",
        above: None,
    };
    BREAKER_PERCENT: Whole<u8>, Is<u8> = Setting {
        path: "handlers.*.breaker.percent",
        kind: Whole(1..=100),
        default: Is(50),
        effect: "Which part of the runs must fail; for trip = \"rate\".",
        example: "breaker = { trip = \"rate\", percent = 20 }",
        above: None,
    };
    BREAKER_SAMPLES: Whole<u32>, Is<u32> = Setting {
        path: "handlers.*.breaker.samples",
        kind: Whole(1..=1_000_000),
        default: Is(20),
        effect: "With fewer runs than this in the window it does not trip; for trip = \"rate\".",
        example: "breaker = { trip = \"rate\", samples = 100 }",
        above: None,
    };
    BREAKER_WINDOW: Span, Is<Duration> = Setting {
        path: "handlers.*.breaker.window",
        kind: Span(SECOND..=Duration::from_secs(3600)),
        default: Is(Duration::from_secs(10)),
        effect: "How far back it looks; for trip = \"count\" and \"rate\".",
        example: "breaker = { trip = \"rate\", window = \"1m\" }",
        above: None,
    };
    BREAKER_WAIT: Span, Is<Duration> = Setting {
        path: "handlers.*.breaker.wait",
        kind: Span(Duration::from_millis(1)..=DAY),
        default: Is(Duration::from_millis(500)),
        effect: "About how long it stays open the first time; each failed probe makes the wait half as long again.",
        example: "breaker = { wait = \"5s\" }",
        above: None,
    };
    BREAKER_MAX_WAIT: Span, Means = Setting {
        path: "handlers.*.breaker.max_wait",
        kind: Span(Duration::from_millis(1)..=DAY),
        default: Means("\"1m\", or `wait` if that is longer"),
        effect: "The longest that it stays open before a probe. Not below `wait`.",
        example: "breaker = { max_wait = \"10m\" }",
        above: None,
    };
}
