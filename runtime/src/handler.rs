//! What a handler is to the host once its settings are valid: names, policies and bounds, with their defaults.

use crate::pipeline::{breaker, rate};
use crate::topic::Pattern;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A handler's name: `[a-z][a-z0-9_-]{0,62}`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HandlerName(Arc<str>);

/// A text that is not a handler name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a handler name: use a-z, then up to 62 of a-z 0-9 _ -")]
pub struct BadHandlerName(pub String);

impl HandlerName {
    pub fn parse(text: &str) -> Result<Self, BadHandlerName> {
        let mut bytes = text.bytes();
        let good = bytes.next().is_some_and(|b| b.is_ascii_lowercase())
            && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
            && text.len() <= 63;
        if good { Ok(Self(text.into())) } else { Err(BadHandlerName(text.chars().take(100).collect())) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HandlerName {
    type Error = BadHandlerName;

    fn try_from(text: String) -> Result<Self, BadHandlerName> {
        Self::parse(&text)
    }
}

impl From<HandlerName> for String {
    fn from(name: HandlerName) -> Self {
        name.as_str().to_owned()
    }
}

impl fmt::Display for HandlerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HandlerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// One shard of one handler.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId {
    pub handler: HandlerName,
    /// 0 to shards - 1.
    pub index: u16,
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.handler, self.index)
    }
}

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
    pub rate: Option<rate::Limit>,
    /// A larger body is a dead letter without a run. Bytes.
    pub body_bytes_max: usize,
    /// `None`: a handler that fails goes on trying.
    pub breaker: Option<breaker::Settings>,
    pub dead: DeadBox,
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
            breaker: Some(breaker::Settings::default()),
            dead: DeadBox::default(),
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

/// The sha-256 of a module's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of a module.
    pub fn of(module: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(module).into())
    }

    /// The digest written as 64 hexadecimal digits, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0u8; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| "a digest is 64 hexadecimal digits".to_owned())
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handler_names_are_checked() {
        for good in ["a", "order", "word-count", "a1_b"] {
            assert!(HandlerName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "Order", "1a", "_a", "a b", &"a".repeat(64)] {
            assert!(HandlerName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn digest_round_trips_as_text() {
        let digest = Digest::of(b"module");
        assert_eq!(Digest::parse(&digest.to_string()), Some(digest));
        assert_eq!(Digest::parse("zz"), None);
    }
}
