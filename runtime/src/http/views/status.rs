//! The log and every handler's place in it.

use super::handler::{HandlerView, shown};
use crate::http::running::Running;
use crate::log::{Log, LogError};
use serde::{Deserialize, Serialize};

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
    /// The guarantee in force, and why.
    pub guarantee: String,
    /// The same in one short line.
    #[serde(default)]
    pub guarantee_short: String,
    /// Offset of the last message.
    pub end: u64,
    /// What it takes; absent: it cannot say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Here it takes nothing new; absent: the disk is the bound, or no host runs that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_max: Option<u64>,
    /// Why it takes nothing new, and what makes room; absent: it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<String>,
}

impl StatusView {
    /// What `log` says about itself and its handlers, and the running host, if there is one.
    pub async fn of(
        log: &dyn Log,
        namespace: Option<&str>,
        not_ready: Option<String>,
        running: Option<&dyn Running>,
    ) -> Result<Self, LogError> {
        let guarantees = log.guarantees();
        let (end, usage) = (log.end().await?, log.usage().await?);
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").into(),
            namespace: namespace.map(Into::into),
            log: LogView {
                kind: guarantees.kind.into(),
                guarantee_short: guarantees.short(),
                guarantee: guarantees.summary,
                end: end.0,
                bytes: (usage.bytes > 0).then_some(usage.bytes),
                bytes_max: usage.bytes_max,
                full: usage.full,
            },
            not_ready,
            notices: vec![],
            handlers: shown(HandlerView::all(log, running).await?),
        })
    }
}
