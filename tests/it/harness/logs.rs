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
pub const KINDS: [Open; 2] =
    [|_| Ok(Arc::new(MemoryLog::new())), |directory| Ok(Arc::new(EmbeddedLog::open(directory, Options::default())?))];

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
