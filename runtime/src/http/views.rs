//! What the API shows, as JSON: written by the host, read by the command line.
//!
//! Times are RFC 3339 in UTC. A body that is UTF-8 is `body`, any other `body_base64`.

use crate::handler::{HandlerName, ShardId};
use crate::log::{DeadFilter, DeadOrder, DeadQuery, Log, LogError, NumberedDeadLetter, ShardStatus};
use crate::message::{Message, Offset};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MessageView {
    pub offset: u64,
    pub topic: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub time: String,
    pub hops: u8,
    /// Names and values, in order; a name may be there twice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
}

impl From<&Message> for MessageView {
    fn from(message: &Message) -> Self {
        let text = std::str::from_utf8(&message.body).ok().map(str::to_owned);
        Self {
            offset: message.offset.0,
            topic: message.topic.to_string(),
            key: message.key.as_ref().map(ToString::to_string),
            id: message.id.as_deref().map(str::to_owned),
            time: message.time.to_string(),
            hops: message.hops,
            headers: message.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            body_base64: text.is_none().then(|| BASE64_STANDARD.encode(&message.body)),
            body: text,
        }
    }
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetterView {
    pub number: u64,
    pub handler: String,
    pub shard: u16,
    pub kind: String,
    pub error: String,
    pub attempts: u32,
    /// When it was given up.
    pub time: String,
    /// The key it was handled under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The module that failed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    pub message: MessageView,
}

impl From<&NumberedDeadLetter> for DeadLetterView {
    fn from(NumberedDeadLetter { number, letter }: &NumberedDeadLetter) -> Self {
        Self {
            number: *number,
            handler: letter.shard.handler.to_string(),
            shard: letter.shard.index,
            kind: letter.kind.clone(),
            error: letter.error.clone(),
            attempts: letter.attempts,
            time: letter.time.to_string(),
            key: letter.key.as_ref().map(ToString::to_string),
            digest: letter.digest.map(|digest| digest.to_string()),
            message: MessageView::from(&*letter.message),
        }
    }
}

/// Some dead letters, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadPage {
    pub letters: Vec<DeadLetterView>,
    /// `below` of the next page, when there may be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_below: Option<u64>,
}

impl DeadPage {
    /// What `log` finds.
    pub async fn of(log: &dyn Log, query: DeadQuery) -> Result<Self, LogError> {
        let letters_max = query.letters_max;
        let letters: Vec<DeadLetterView> = log.dead(query).await?.iter().map(DeadLetterView::from).collect();
        let next_below = letters.last().map(|letter| letter.number).filter(|_| letters.len() == letters_max);
        Ok(Self { letters, next_below })
    }
}

impl DeadLetterView {
    /// The dead letter of this number, if `log` has it.
    pub async fn find(log: &dyn Log, number: u64) -> Result<Option<Self>, LogError> {
        // None can be numbered above the largest number, so `None` asks for the same.
        let below = number.checked_add(1);
        let found = log
            .dead(DeadQuery {
                filter: DeadFilter::default(),
                order: DeadOrder::Newest { below },
                letters_max: 1,
                bytes_max: usize::MAX,
            })
            .await?;
        Ok(found.first().filter(|letter| letter.number == number).map(Self::from))
    }
}

/// The log and every handler's place in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusView {
    /// Of the program that shows it.
    pub version: String,
    /// Absent: no settings say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub log: LogView,
    /// Why the host is not ready; absent: it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_ready: Option<String>,
    /// By name.
    pub handlers: Vec<HandlerView>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogView {
    pub kind: String,
    /// The guarantee in force.
    pub guarantee: String,
    /// Offset of the last message.
    pub end: u64,
}

/// A handler as the log knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HandlerView {
    pub name: String,
    /// Empty: it was removed.
    pub subscribe: Vec<String>,
    /// Messages that its slowest shard has not taken up, of any topic.
    pub behind: u64,
    pub open: u64,
    pub marks: u64,
    pub delayed: u64,
    pub dead: u64,
    /// By index.
    pub shards: Vec<ShardView>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardView {
    pub index: u16,
    pub term: u64,
    pub commit_number: u64,
    pub read: u64,
    pub behind: u64,
    pub open: u64,
    pub marks: u64,
    pub delayed: u64,
    pub dead: u64,
}

impl From<&ShardStatus> for ShardView {
    fn from(status: &ShardStatus) -> Self {
        Self {
            index: status.shard.index,
            term: status.term.0,
            commit_number: status.commit_number,
            read: status.read.0,
            behind: status.behind,
            open: status.open,
            marks: status.marks,
            delayed: status.delayed,
            dead: status.dead,
        }
    }
}

impl StatusView {
    /// What `log` says about itself and its handlers.
    pub async fn of(log: &dyn Log, namespace: Option<&str>, not_ready: Option<String>) -> Result<Self, LogError> {
        let guarantees = log.guarantees();
        let end: Offset = log.end().await?;
        let mut handlers: BTreeMap<String, HandlerView> = BTreeMap::new();
        for routing in log.routings().await?.routings {
            let subscribe = routing.spans.last().map(|span| span.subscribe.as_slice()).unwrap_or_default();
            let handler =
                HandlerView::new(routing.handler.as_str(), subscribe.iter().map(ToString::to_string).collect());
            handlers.insert(handler.name.clone(), handler);
        }
        for shard in log.status().await? {
            let name = shard.shard.handler.as_str();
            let handler = handlers.entry(name.to_owned()).or_insert_with(|| HandlerView::new(name, vec![]));
            handler.behind = handler.behind.max(shard.behind);
            handler.open += shard.open;
            handler.marks += shard.marks;
            handler.delayed += shard.delayed;
            handler.dead += shard.dead;
            handler.shards.push(ShardView::from(&shard));
        }
        handlers.values_mut().for_each(|handler| handler.shards.sort_by_key(|shard| shard.index));
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").into(),
            namespace: namespace.map(Into::into),
            log: LogView { kind: guarantees.kind.into(), guarantee: guarantees.summary, end: end.0 },
            not_ready,
            handlers: handlers.into_values().collect(),
        })
    }
}

impl StatusView {
    /// Shards that had nothing to write are further than their records: `passed` says where.
    pub fn follow(&mut self, passed: impl Fn(&ShardId) -> Option<Offset>) {
        for handler in &mut self.handlers {
            let Ok(name) = HandlerName::parse(&handler.name) else { continue };
            for shard in &mut handler.shards {
                let id = ShardId { handler: name.clone(), index: shard.index };
                let Some(passed) = passed(&id).filter(|passed| passed.0 > shard.read) else { continue };
                shard.read = passed.0;
                if passed.0 >= self.log.end {
                    shard.behind = 0;
                }
            }
            handler.behind = handler.shards.iter().map(|shard| shard.behind).max().unwrap_or(0);
        }
    }
}

impl HandlerView {
    fn new(name: &str, subscribe: Vec<String>) -> Self {
        Self { name: name.into(), subscribe, behind: 0, open: 0, marks: 0, delayed: 0, dead: 0, shards: vec![] }
    }
}
