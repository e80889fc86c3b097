//! Times in JSON: RFC 3339 in UTC with milliseconds.

use crate::clock::Timestamp;
use serde::{Deserialize as _, Deserializer, Serializer};

pub fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

pub fn deserialize<'d, D: Deserializer<'d>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(deserializer)?;
    let time: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
    let milliseconds = u64::try_from(time.as_millisecond());
    milliseconds.map(Timestamp).map_err(|_| serde::de::Error::custom("the time is before 1970"))
}

/// A time that is not before 1970.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok().map(Timestamp)
}
