//! What the face asks a running host, because the log cannot tell: how far shards are that had nothing to write, and how
//! every handler of the settings fares.

use super::known_hosts::HostView;
use super::rfc3339;
use crate::clock::{self, Timestamp};
use crate::commit::DeadLetter;
use crate::config::ShowState;
use crate::delays::{Delaying, NoDelay};
use crate::gate::BreakerState;
use crate::handler::{Digest, HandlerName, ShardId};
use crate::log::{Log, LogError, OpenHead, StoredModule};
use crate::message::Offset;
use crate::shard::Amount;
use crate::telemetry::FailedRun;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A running host. Asked at every look, so answers come from memory.
pub trait Running: Send + Sync {
    /// How far a shard is that has nothing in hand; `None`: its record says it.
    fn passed(&self, shard: &ShardId) -> Option<Offset>;

    /// Every handler that the settings name, by name, and the host's own if it runs; also one that does not run because of a problem: a handler that is
    /// not here may be forgotten.
    fn handlers(&self) -> Vec<RunningHandler>;

    /// The hosts that were heard lately, by id; none where the log can have one only.
    fn hosts(&self) -> Vec<HostView> {
        vec![]
    }

    /// Room for messages that are to appear later.
    fn delay(&self, more: Amount) -> BoxFuture<'_, Result<Delaying, NoDelay>>;

    /// Compiles, links and tries a module out as it would run for a handler, and changes nothing.
    fn try_module(&self, handler: HandlerName, module: Bytes) -> BoxFuture<'_, Result<(), TryError>>;

    /// Deletes everything of a handler that the settings name no more, its module versions too.
    fn forget(&self, log: Arc<dyn Log>, handler: HandlerName) -> BoxFuture<'_, Result<(), ForgetError>>;
}

/// Why a module cannot run.
#[derive(Debug, thiserror::Error)]
pub enum TryError {
    #[error("handler `{handler}` is being started or changed: try again")]
    DoesNotRun { handler: HandlerName },
    #[error("the module cannot run for handler `{handler}`, so nothing was changed: {reason}")]
    Refused { handler: HandlerName, reason: String },
}

/// Why a handler was not forgotten.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    #[error("handler `{handler}` is being started or changed: take it out of the settings file first")]
    Runs { handler: HandlerName },
    #[error("handler `{handler}` is run by the host {host}: take it out of the settings file of every host first")]
    RunsElsewhere { handler: HandlerName, host: String },
    #[error("failed to delete the module versions of `{handler}`: {source}")]
    Versions { handler: HandlerName, source: std::io::Error },
    #[error(transparent)]
    Log(#[from] LogError),
}

/// A handler of the settings in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunningHandler {
    pub name: HandlerName,
    /// The module in force; absent: none could be loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The module in force was deployed: it is in force whatever is in the file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deployed: bool,
    /// The module in the file; another one than that in force after a deploy or a rollback, or when it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_digest: Option<Digest>,
    /// The versions that can be run.
    pub versions: Vec<VersionView>,
    pub breaker: BreakerView,
    /// The run that failed last since the host started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<FailureView>,
    /// What operators see of its state.
    pub show_state: ShowState,
    /// Runs under way, over all its shards on this host.
    pub running: usize,
    /// Most of them at a time.
    pub concurrency: usize,
    /// Why the last change of its file or module was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A module that the host has seen and keeps, or that the log has for all hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionView {
    pub digest: Digest,
    /// On this host; of one that it never had in force, when it was deployed.
    #[serde(with = "rfc3339")]
    pub first_seen: Timestamp,
    /// The log has it, so every host can run it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deployed: bool,
}

/// A run that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureView {
    /// Absent: only the record of its message tells of it, and that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// As metrics and dead letters name it. Absent as above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    pub error: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    pub offset: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Failed tries of the message, with this one.
    pub attempts: u32,
}

impl From<FailedRun> for FailureView {
    fn from(run: FailedRun) -> Self {
        Self {
            time: Some(run.time.to_string()),
            kind: Some(run.kind.to_owned()),
            error: run.error.to_string(),
            topic: Some(run.topic.to_string()),
            offset: run.offset.0,
            key: run.key.map(|key| key.to_string()),
            attempts: run.attempts,
        }
    }
}

impl From<&OpenHead> for FailureView {
    fn from(OpenHead { head, message, .. }: &OpenHead) -> Self {
        Self {
            time: None,
            kind: None,
            error: head.error.to_string(),
            topic: message.as_ref().map(|message| message.topic.to_string()),
            offset: head.offset.0,
            key: head.key.as_ref().map(ToString::to_string),
            attempts: head.attempt,
        }
    }
}

impl From<&DeadLetter> for FailureView {
    fn from(letter: &DeadLetter) -> Self {
        Self {
            time: Some(letter.time.to_string()),
            kind: Some(letter.kind.clone()),
            error: letter.error.clone(),
            topic: Some(letter.message.topic.to_string()),
            offset: letter.message.offset.0,
            key: letter.key.as_ref().map(ToString::to_string),
            attempts: letter.attempts,
        }
    }
}

/// A handler's breaker on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum BreakerView {
    Closed,
    /// Takes nothing up before this time.
    Open {
        #[serde(with = "rfc3339")]
        until: Timestamp,
    },
    /// One message tries whether it works again.
    HalfOpen,
    /// Opened by hand, until `reset`.
    Tripped,
    /// The handler has none: `breaker = false`.
    Off,
}

impl BreakerView {
    /// The breaker as a gate shows it; times of the monotonic clock become those of the wall.
    pub fn of(state: BreakerState) -> Self {
        match state {
            BreakerState::Off => Self::Off,
            BreakerState::Closed => Self::Closed,
            BreakerState::HalfOpen => Self::HalfOpen,
            BreakerState::Tripped => Self::Tripped,
            BreakerState::Open { until } => {
                Self::Open { until: clock::now().after(until.saturating_duration_since(clock::instant())) }
            }
        }
    }
}

impl RunningHandler {
    /// Adds the versions that the log has, in the order in which they came, each among those of this host by its time.
    pub(super) fn add_deployed(&mut self, stored: &[StoredModule]) {
        let mut at = 0;
        for StoredModule { digest, time, .. } in stored {
            let known = self.versions.iter().position(|version| version.digest == *digest);
            let first_seen = known.map_or(*time, |known| self.versions.remove(known).first_seen);
            let later =
                self.versions.iter().skip(at).position(|version| !version.deployed && version.first_seen > *time);
            at = later.map_or(self.versions.len(), |later| at + later);
            self.versions.insert(at, VersionView { digest: *digest, first_seen, deployed: true });
            at += 1;
        }
    }

    /// The version that was there before the one in force.
    pub(super) fn version_before(&self) -> Option<Digest> {
        // In the order in which they came.
        let versions = &self.versions;
        let at = versions.iter().position(|version| Some(version.digest) == self.digest)?;
        versions[..at].last().map(|version| version.digest)
    }
}
