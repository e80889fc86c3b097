//! The log and every handler's place in it.

use super::handler::HandlerView;
use crate::http::running::Running;
use crate::log::{Log, LogError};
use crate::message::Offset;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

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
    /// What to look at although the host goes on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
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

impl StatusView {
    /// What `log` says about itself and its handlers.
    pub async fn of(log: &dyn Log, namespace: Option<&str>, not_ready: Option<String>) -> Result<Self, LogError> {
        let guarantees = log.guarantees();
        let end = log.end().await?;
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").into(),
            namespace: namespace.map(Into::into),
            log: LogView { kind: guarantees.kind.into(), guarantee: guarantees.summary, end: end.0 },
            not_ready,
            notices: vec![],
            handlers: HandlerView::all(log).await?,
        })
    }

    /// Adds what only the running host knows.
    pub fn follow(&mut self, running: &dyn Running) {
        follow(&mut self.handlers, running, Offset(self.log.end));
    }
}

/// Adds what only the running host knows of these handlers.
pub(in crate::http) fn follow(handlers: &mut [HandlerView], running: &dyn Running, end: Offset) {
    let mut mine: HashMap<String, _> =
        running.handlers().into_iter().map(|handler| (handler.name.to_string(), handler)).collect();
    for handler in handlers {
        let own = mine.remove(&handler.name);
        handler.follow(running, own, end);
    }
}
