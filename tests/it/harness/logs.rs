//! Fresh logs of every kind, and builders for what is written to them.

use bytes::Bytes;
use sluicebox::clock::Timestamp;
use sluicebox::commit::{ShardCommit, Term};
use sluicebox::handler::{HandlerName, ShardId};
use sluicebox::log::embedded::{EmbeddedLog, Options};
use sluicebox::log::memory::MemoryLog;
use sluicebox::log::{Log, LogError, ReadRequest};
use sluicebox::message::{Key, NewMessage, Offset};
use sluicebox::topic::{Pattern, Topic};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Opens a kind of log on a directory, which some kinds have no use for.
pub type Open = fn(&Path) -> Result<Arc<dyn Log>, LogError>;

/// Every kind of log.
pub const KINDS: [Open; 4] = [
    |_| Ok(Arc::new(MemoryLog::new())),
    |directory| Ok(Arc::new(EmbeddedLog::open(directory, Options::default())?)),
    |directory| super::nats::open(&super::nats::namespace_of(directory)),
    |directory| super::redis::open(&super::nats::namespace_of(directory)),
];

/// An empty log, and what must live as long as it.
pub struct Fresh {
    pub log: Arc<dyn Log>,
    _directory: Option<tempfile::TempDir>,
}

pub fn memory() -> Fresh {
    Fresh { log: Arc::new(MemoryLog::new()), _directory: None }
}

pub fn embedded() -> Fresh {
    let directory = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(directory.path(), Options::default()).unwrap();
    Fresh { log: Arc::new(log), _directory: Some(directory) }
}

/// State and records are written down all the time, as they are now and then where there is more of them.
pub fn nats() -> Fresh {
    let options = super::nats::options(&super::nats::fresh_namespace());
    let options = sluicebox::log::nats::Options { flush_bytes: 256, snapshot_bytes: 4096, ..options };
    Fresh { log: super::nats::open_with(options).unwrap(), _directory: None }
}

/// As on NATS.
pub fn redis() -> Fresh {
    let options = super::redis::options(&super::nats::fresh_namespace());
    let options = sluicebox::log::redis::Options { flush_bytes: 256, snapshot_bytes: 4096, ..options };
    Fresh { log: super::redis::open_with(options).unwrap(), _directory: None }
}

pub fn topic(text: &str) -> Topic {
    Topic::parse(text).unwrap()
}

pub fn key(text: &str) -> Key {
    Key::parse(text).unwrap().unwrap()
}

pub fn message(topic: &str, body: impl Into<Bytes>) -> NewMessage {
    NewMessage::new(self::topic(topic), body)
}

pub fn shard(handler: &str, index: u16) -> ShardId {
    ShardId { handler: HandlerName::parse(handler).unwrap(), index }
}

/// A commit that changes nothing but its number.
pub fn commit(shard: &ShardId, term: Term, number: u64) -> ShardCommit {
    ShardCommit {
        shard: shard.clone(),
        term,
        number,
        read: Offset::START,
        open_put: vec![],
        open_drop: vec![],
        marks: vec![],
        marks_since: Timestamp(0),
        marks_max: usize::MAX,
        state: vec![],
        outputs: vec![],
        delayed_put: vec![],
        delayed_drop: vec![],
        dead: vec![],
        dead_window: Duration::from_secs(60),
        dead_max: u64::MAX,
        dead_drop: vec![],
        // No test that is about something else has commands.
        controlled: Offset::END,
        control: None,
    }
}

/// All there is on the topics of `pattern`.
pub fn read_all(pattern: &str) -> ReadRequest {
    ReadRequest {
        after: Offset::START,
        upto: Offset::END,
        patterns: vec![Pattern::parse(pattern).unwrap()],
        messages_max: usize::MAX,
        bytes_max: usize::MAX,
    }
}
