//! The host's limits, as the native stand-in keeps them. The host checks its own; these are the same numbers.

/// Most bytes in a body (512 KiB).
pub const BODY_BYTES_MAX: usize = 512 * 1024;
/// Most bytes in the names and values of all headers together (16 KiB).
pub const HEADERS_BYTES_MAX: usize = 16 * 1024;
/// Most headers.
pub const HEADERS_MAX: usize = 256;
/// Most bytes in a key.
pub const KEY_BYTES_MAX: usize = 256;
/// Most bytes in an id.
pub const ID_BYTES_MAX: usize = 256;
/// Most messages published plus entries written by one run.
pub const EFFECTS_MAX: usize = 256;
/// Most bytes of all effects of one run (4 MiB).
pub const EFFECTS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most bytes in one state value (512 KiB).
pub const VALUE_BYTES_MAX: usize = 512 * 1024;
/// Most entries of one key.
pub const ENTRIES_MAX: usize = 256;
/// Most bytes of all entries of one key, names included (1 MiB).
pub const ENTRIES_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes in the name of an entry.
pub const ENTRY_NAME_BYTES_MAX: usize = 256;
/// Longest delay of a message, in milliseconds (30 days).
pub const DELAY_MS_MAX: u64 = 30 * 24 * 3600 * 1000;
/// Most names one run may count under.
pub const COUNTERS_MAX: usize = 64;
/// Most tokens in a topic.
pub const TOPIC_TOKENS_MAX: usize = 16;
/// Most bytes in one token of a topic.
pub const TOPIC_TOKEN_BYTES_MAX: usize = 64;
