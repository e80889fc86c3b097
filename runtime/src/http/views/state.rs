//! The state of a handler's keys, as far as its settings let it be shown.

use crate::config::ShowState;
use crate::handler::{HandlerName, ShardId};
use crate::log::{Log, LogError, StateQuery};
use crate::message::Key;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

/// Keys that have state, by their bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatePage {
    pub handler: String,
    pub keys: Vec<StateKeyView>,
    /// `after` of the next page, when there may be one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_after: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateKeyView {
    pub key: String,
    pub entries: u64,
    /// Of the names and values of its entries.
    pub bytes: u64,
}

/// The state of one key, as of its shard's last commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateView {
    pub handler: String,
    pub key: String,
    /// What its settings let be shown.
    pub shown: ShowState,
    /// By name.
    pub entries: Vec<EntryView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryView {
    pub entry: String,
    /// Of its value.
    pub bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// A value that is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
}

/// The settings let nothing of the state be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the settings of handler `{0}` let nothing of its state be shown (`show_state = \"nothing\"`)")]
pub struct NotShown(pub HandlerName);

/// What may be shown of a handler's state, where its settings say it; of one that they do not name only sizes.
pub fn shown(handler: &HandlerName, setting: Option<ShowState>) -> Result<ShowState, NotShown> {
    match setting.unwrap_or(ShowState::Sizes) {
        ShowState::Nothing => Err(NotShown(handler.clone())),
        shown => Ok(shown),
    }
}

impl StatePage {
    /// At most `query.keys_max` keys. The caller knows that they may be shown.
    pub async fn of(log: &dyn Log, query: StateQuery) -> Result<Self, LogError> {
        let (handler, keys_max) = (query.handler.to_string(), query.keys_max);
        let found = log.state_keys(query).await?;
        let last = found.last().filter(|_| found.len() >= keys_max);
        let next_after = last.map(|last| last.key.to_string());
        let keys = found.iter().map(|found| StateKeyView {
            key: found.key.to_string(),
            entries: found.entries,
            bytes: found.bytes,
        });
        Ok(Self { handler, keys: keys.collect(), next_after })
    }
}

impl StateView {
    /// `None`: the key has no state.
    pub async fn of(
        log: &dyn Log,
        handler: &HandlerName,
        key: &Key,
        shown: ShowState,
    ) -> Result<Option<Self>, LogError> {
        let routings = log.routings().await?.routings;
        let routing = routings.iter().find(|routing| routing.handler == *handler);
        let shard = ShardId { handler: handler.clone(), index: routing.map_or(0, |routing| routing.shard_of(key)) };
        let state = log.load(shard, vec![key.clone()]).await?.pop().unwrap_or_default();
        if state.is_empty() {
            return Ok(None);
        }
        let entries = state.iter().map(|(entry, value)| {
            let text = std::str::from_utf8(value).ok();
            let shows = shown == ShowState::Values;
            EntryView {
                entry: entry.to_string(),
                bytes: value.len() as u64,
                value: text.filter(|_| shows).map(str::to_owned),
                value_base64: (shows && text.is_none()).then(|| BASE64_STANDARD.encode(value)),
            }
        });
        let entries = entries.collect();
        Ok(Some(Self { handler: handler.to_string(), key: key.to_string(), shown, entries }))
    }
}
