//! What operators asked of a shard, as its record keeps it.

use super::dead::DeadFilter;
use crate::handler::{Digest, HandlerName};
use crate::message::Key;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What operators asked of a shard and is in force or under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Control {
    pub paused: bool,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub paused_keys: BTreeSet<Key>,
    /// The breaker was opened by hand.
    pub tripped: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// Offset of the command that set or ended the pin; 0: there was none. Of several shards the newest is right.
    #[serde(skip_serializing_if = "is_zero")]
    pub pin_command: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub jobs: Vec<DeadJob>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The module version that an operator deployed or went back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WrittenPin", into = "WrittenPin")]
pub struct Pin {
    /// The version to run.
    pub digest: Digest,
    pub over: Over,
}

/// What a pinned version stands in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The version in the file at that time. Another one in the file ends the pin.
    File(Digest),
    /// Whatever is in the file of any host, until an operator says otherwise: the version was deployed, so the log has it.
    AnyFile,
}

impl Pin {
    /// A version that the log has, on every host.
    pub fn deployed(digest: Digest) -> Self {
        Self { digest, over: Over::AnyFile }
    }
}

/// A pin in records and commands. A version over itself stands for one over any file: nobody pins the version that is in the
/// file, so logs of before have none such, and a host of before that reads it keeps it as it is and runs its file.
#[derive(Serialize, Deserialize)]
struct WrittenPin {
    digest: Digest,
    over: Digest,
}

impl From<WrittenPin> for Pin {
    fn from(WrittenPin { digest, over }: WrittenPin) -> Self {
        Self { digest, over: if over == digest { Over::AnyFile } else { Over::File(over) } }
    }
}

impl From<Pin> for WrittenPin {
    fn from(Pin { digest, over }: Pin) -> Self {
        let over = match over {
            Over::File(over) => over,
            Over::AnyFile => digest,
        };
        Self { digest, over }
    }
}

/// A command about dead letters that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadJob {
    /// Offset of its command.
    pub command: u64,
    pub action: DeadAction,
    pub filter: DeadFilter,
    /// The handler that gets the letters which are retried; absent: the one that gave them up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<HandlerName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeadAction {
    Retry,
    Drop,
}
