//! The settings of a handler: what runs, on which messages, in what sandbox.

use crate::config::kinds::{Beginning, Form, Size, Span, Whole, Word};
use crate::config::setting::{Is, Means, Required, Setting, settings};
use crate::config::settings::{SandboxMode, ShowState, Start};
use std::time::Duration;

/// Enough to use every core of a common server, few enough that an idle handler costs little.
pub const SHARDS_DEFAULT: u16 = 8;
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);
pub const MEMORY_BYTES_DEFAULT: u64 = 64 << 20;

settings! {
    MODULE: Form, Required = Setting {
        path: "handlers.*.module",
        kind: Form("the path of a .wasm file"),
        default: Required,
        effect: "The WebAssembly component, relative to the settings file. `sluicebox build` builds the crates of a \
                 folder into it.",
        example: "module = \"order.wasm\"",
        above: None,
    };
    SUBSCRIBE: Form, Required = Setting {
        path: "handlers.*.subscribe",
        kind: Form("a list of patterns, such as [\"orders.*\"]"),
        default: Required,
        effect: "Which topics the handler gets. `*` is one token, a last `>` the rest.",
        example: "subscribe = [\"events.*\"]",
        above: None,
    };
    START: Beginning, Is<Start> = Setting {
        path: "handlers.*.start",
        kind: Beginning,
        default: Is(Start::Latest),
        effect: "Where a handler begins that the log does not know yet: with the next message, with the first one the log \
                 has, or with the first one of that time or later. A known handler goes on where it was.",
        example: "start = \"earliest\"",
        above: None,
    };
    PUBLISH: Form, Means = Setting {
        path: "handlers.*.publish",
        kind: Form("a list of patterns, such as [\"orders.*\"]"),
        default: Means("nothing"),
        effect: "The topics that the handler may publish to; anything else fails its run.",
        example: "publish = [\"orders.*\"]",
        above: None,
    };
    KEY: Form, Means = Setting {
        path: "handlers.*.key",
        kind: Form("a JSON pointer such as \"/user\", \"header:Name\" or \"topic:2\", a list of these, \"*\" or false"),
        default: Means("the message's own key"),
        effect: "What keeps messages in order: those of one key are handled one at a time, in the order of the log, and \
                 share their state. Of a list the first that yields is taken. `\"*\"` puts all into one row; `false` gives \
                 up order and state. Once the log knows the handler, a change is taken over by `sluicebox handlers reroute`.",
        example: "key = [\"/user\", \"header:User\"]",
        above: None,
    };
    ID: Form, Means = Setting {
        path: "handlers.*.id",
        kind: Form("a JSON pointer such as \"/user\", \"header:Name\" or \"topic:2\", or a list of these"),
        default: Means("the message's own id"),
        effect: "What tells that two messages are the same one, for `dedup`. A message without an id is never a duplicate. \
                 Once the log knows the handler, a change is taken over by `sluicebox handlers reroute`.",
        example: "id = \"/id\"",
        above: None,
    };
    SHARDS: Whole<u16>, Is<u16> = Setting {
        path: "handlers.*.shards",
        kind: Whole(1..=1024),
        default: Is(SHARDS_DEFAULT),
        effect: "Into how many parts the keys are divided; each part works for itself. Once the log knows the \
                 handler, a change is taken over by `sluicebox handlers reroute`.",
        example: "shards = 16",
        above: None,
    };
    SANDBOX: Word<SandboxMode>, Is<SandboxMode> = Setting {
        path: "handlers.*.sandbox",
        kind: Word(&[("fresh", SandboxMode::Fresh), ("warm", SandboxMode::Warm)]),
        default: Is(SandboxMode::Fresh),
        effect: "`fresh`: every message gets a sandbox of its own. `warm`: a sandbox serves many messages, which is faster; \
                 what the handler keeps in memory is not rolled back when a run fails.",
        example: "sandbox = \"warm\"",
        above: None,
    };
    TIMEOUT: Span, Is<Duration> = Setting {
        path: "handlers.*.timeout",
        kind: Span(Duration::from_millis(10)..=Duration::from_secs(3600)),
        default: Is(TIMEOUT_DEFAULT),
        effect: "A run that takes longer is stopped and counts as a failed attempt.",
        example: "timeout = \"500ms\"",
        above: None,
    };
    MEMORY: Size, Is<u64> = Setting {
        path: "handlers.*.memory",
        kind: Size(1 << 20..=4 << 30),
        default: Is(MEMORY_BYTES_DEFAULT),
        effect: "Most memory of one sandbox. A run that asks for more fails.",
        example: "memory = \"16MiB\"",
        above: None,
    };
    SHOW_STATE: Word<ShowState>, Is<ShowState> = Setting {
        path: "handlers.*.show_state",
        kind: Word(&[
            ("values", ShowState::Values),
            ("sizes", ShowState::Sizes),
            ("nothing", ShowState::Nothing),
        ]),
        default: Is(ShowState::Values),
        effect: "What `sluicebox state` and the API show of the handler's state: everything; or, for data that operators \
                 must not see, only keys, names of entries and sizes; or nothing at all. Of a handler that the settings \
                 do not name only sizes are shown.",
        example: "show_state = \"sizes\"",
        above: None,
    };
    CONFIG: Form, Means = Setting {
        path: "handlers.*.config",
        kind: Form("a table of names and values, such as { currency = \"EUR\" }"),
        default: Means("nothing"),
        effect: "What the handler reads through `wasi:config`. A value is a text, a number, a boolean, or comes from a \
                 variable or file. At most 256 values of at most 64 KiB. None is ever shown.",
        example: "config = { currency = \"EUR\", limit = 100 }",
        above: None,
    };
    CONFIG_ENV: Form, Means = Setting {
        path: "handlers.*.config.*.env",
        kind: Form("the name of an environment variable"),
        default: Means("the value stands in the file"),
        effect: "Takes the value from the environment of the host, as it is when the settings are read.",
        example: "config = { home = { env = \"HOME\" } }",
        above: None,
    };
    CONFIG_FILE: Form, Means = Setting {
        path: "handlers.*.config.*.file",
        kind: Form("the path of a file"),
        default: Means("the value stands in the file"),
        effect: "Takes the value from a file, relative to the settings file, without the line break at its end.",
        example: "config = { token = { file = \"token\" } }",
        above: None,
    };
}
