//! What the settings are once nothing invalid is left in them.

use super::secret::Secret;
use crate::clock::Timestamp;
use crate::handler::{DelayedBound, HandlerName, Policy};
use crate::routing::{IdFrom, KeyFrom};
use crate::topic::Pattern;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that a host needs to know, valid.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub namespace: Namespace,
    pub log: LogSettings,
    pub host: HostSettings,
    pub http: HttpSettings,
    /// Ordered by name.
    pub handlers: Vec<HandlerSettings>,
}

/// The name of a log: `[a-z][a-z0-9_-]{0,62}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace(String);

impl Namespace {
    /// `None`: it is not a namespace.
    pub fn parse(text: &str) -> Option<Self> {
        // The same alphabet as a handler's name, so that either fits into subjects and file names.
        HandlerName::parse_public(text).ok().map(|name| Self(name.as_str().into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The kinds of logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKind {
    Embedded,
    Nats,
    Redis,
}

/// Which log, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogSettings {
    Embedded {
        /// The data directory.
        path: PathBuf,
        retain: Retain,
    },
    /// Streams of a NATS server.
    Nats {
        /// One or more addresses with commas between them, without names or passwords in them.
        url: String,
        login: NatsLogin,
        ca_file: Option<PathBuf>,
        /// Of the streams, when they are made.
        replicas: usize,
        retain: Retain,
        edges: Edges,
    },
    /// Keys of a Redis server.
    Redis {
        /// Its address, without a name or a password in it.
        url: String,
        login: RedisLogin,
        ca_file: Option<PathBuf>,
        retain: Retain,
        edges: Edges,
    },
}

/// Who connects to a Redis server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisLogin {
    None,
    Password(Secret),
    User { user: String, password: Secret },
}

/// Where plain clients of the log's engine reach it. No two of these patterns of different sides have a topic in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edges {
    /// What they publish there becomes messages.
    pub ingress: Vec<Pattern>,
    /// Channels of Redis: what is published there becomes messages, if somebody listens.
    pub channels: Vec<Pattern>,
    /// Messages on these topics are published to them.
    pub egress: Vec<Pattern>,
}

/// Who connects to a NATS server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NatsLogin {
    None,
    Credentials(Secret),
    Token(Secret),
    Nkey(Secret),
    User { user: String, password: Secret },
}

/// What may be deleted from the log: messages that every handler has settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retain {
    /// Older messages go, by the log's time; `None`: none goes for its age.
    pub age: Option<Duration>,
    /// The oldest go so that the data stays below; at it appends are refused. `None`: the disk is the bound.
    pub bytes_max: Option<u64>,
}

impl Default for Retain {
    fn default() -> Self {
        Self { age: Some(Duration::from_secs(7 * 24 * 3600)), bytes_max: None }
    }
}

/// What belongs to one host alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSettings {
    /// What people call it; absent: as the machine.
    pub name: Option<String>,
    /// Another host that was not heard for so long is taken for dead.
    pub lease: Duration,
    /// The directory of compiled modules and of the versions to go back to.
    pub data: PathBuf,
    /// How far the machine's clock may be from the host's time at a start.
    pub clock_skew_max: Duration,
    /// It is taken as it is, however far.
    pub accept_clock: bool,
    /// Most memory for messages that wait, over all handlers.
    pub waiting_bytes_max: u64,
    /// What publishers may delay.
    pub delayed: DelayedBound,
}

/// The HTTP face.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    pub listen: SocketAddr,
    /// Every request but the health checks must bear it. Always there unless `listen` is loopback.
    pub token: Option<Secret>,
}

/// One handler.
#[derive(Clone, Debug, PartialEq)]
pub struct HandlerSettings {
    pub name: HandlerName,
    /// The component; it existed when the settings were read.
    pub module: PathBuf,
    /// Never empty.
    pub subscribe: Vec<Pattern>,
    pub key: KeyFrom,
    pub id: IdFrom,
    /// At least 1.
    pub shards: u16,
    pub start: Start,
    /// Grants; anything else is refused.
    pub publish: Vec<Pattern>,
    pub sandbox: SandboxMode,
    /// Deadline of one run.
    pub timeout: Duration,
    /// Most memory of one sandbox.
    pub memory_bytes: u64,
    pub policy: Policy,
    pub show_state: ShowState,
    /// What the handler reads through `wasi:config`, by name.
    pub config: Vec<(String, Secret)>,
}

/// Where a handler begins that the log does not know yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the next message.
    Latest,
    /// With the first message the log has.
    Earliest,
    /// With the first message of this time or later.
    At(Timestamp),
}

/// What operators see of a handler's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShowState {
    /// Everything.
    Values,
    /// Keys and the names of their entries, and how large each is.
    Sizes,
    /// Not even which keys there are.
    Nothing,
}

/// How long a sandbox lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxMode {
    /// One message.
    Fresh,
    /// Many messages; its memory is not rolled back with the effects.
    Warm,
}

/// What flags and variables say instead of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--namespace`, `SLUICEBOX_NAMESPACE`.
    pub namespace: Option<String>,
    /// `--listen`, `SLUICEBOX_LISTEN`.
    pub listen: Option<String>,
    /// `--data`, `SLUICEBOX_DATA`; relative to the current directory.
    pub data: Option<PathBuf>,
    /// `--token-file`, `SLUICEBOX_TOKEN_FILE`; relative to the current directory.
    pub token_file: Option<PathBuf>,
    /// `--host-name`, `SLUICEBOX_HOST_NAME`.
    pub host_name: Option<String>,
    /// `dev --log`: this kind of log, where its server is without settings if the file names another kind.
    pub log: Option<LogKind>,
    /// `--accept-clock`.
    pub accept_clock: bool,
}
