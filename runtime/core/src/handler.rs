//! What a handler is to the host once its settings are valid: its names, and the policy it is run under.

mod policy;

pub use policy::{BreakerSettings, DeadBox, DeadFull, Dedup, DelayedBound, OnFailure, Policy, RateLimit, Retry, Trip};

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// A handler's name: `[a-z][a-z0-9_-]{0,62}`, or that of one of the host's own.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HandlerName(Arc<str>);

/// A text that is not a handler name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a handler name: use a-z, then up to 62 of a-z 0-9 _ -")]
pub struct BadHandlerName(pub String);

/// The names of the host's own handlers.
const DELAY: &str = "_delay";
const EGRESS: &str = "_egress";
const INGRESS: &str = "_ingress";
const INTAKE: &str = "_intake";
const OWN: [&str; 4] = [DELAY, EGRESS, INGRESS, INTAKE];

impl HandlerName {
    /// The host's own handler that holds what publishers delay.
    pub fn delay() -> Self {
        Self(DELAY.into())
    }

    /// The host's own handler that publishes committed messages to plain clients.
    pub fn egress() -> Self {
        Self(EGRESS.into())
    }

    /// The host's own handler that has what plain clients sent and no message can be.
    pub fn ingress() -> Self {
        Self(INGRESS.into())
    }

    /// Under this name stands how far the host has taken up what plain clients sent. No messages are routed to it.
    pub fn intake() -> Self {
        Self(INTAKE.into())
    }

    /// Whether it is that of [`HandlerName::delay`], which always runs.
    pub fn is_delay(&self) -> bool {
        &*self.0 == DELAY
    }

    /// Whether it is one of the host's own, which no settings name.
    pub fn is_reserved(&self) -> bool {
        OWN.contains(&&*self.0)
    }

    /// The name of any handler, the host's own included.
    pub fn parse(text: &str) -> Result<Self, BadHandlerName> {
        if OWN.contains(&text) { Ok(Self(text.into())) } else { Self::parse_public(text) }
    }

    /// A name that settings may give a handler.
    pub fn parse_public(text: &str) -> Result<Self, BadHandlerName> {
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

/// Most bytes of a module (64 MiB).
pub const MODULE_BYTES_MAX: usize = 64 * 1024 * 1024;

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
    fn the_hosts_own_handlers_are_known_and_no_settings_may_name_one_so() {
        for (text, name) in [("_delay", HandlerName::delay()), ("_egress", HandlerName::egress())] {
            assert_eq!(HandlerName::parse(text), Ok(name.clone()));
            assert!(name.is_reserved() && HandlerName::parse_public(text).is_err());
        }
        assert!(!HandlerName::parse("delay").unwrap().is_reserved());
    }

    #[test]
    fn digest_round_trips_as_text() {
        let digest = Digest::of(b"module");
        assert_eq!(Digest::parse(&digest.to_string()), Some(digest));
        assert_eq!(Digest::parse("zz"), None);
    }
}
