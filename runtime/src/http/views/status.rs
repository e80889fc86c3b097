//! The log and every handler's place in it.

use super::handler::HandlerView;
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
    /// What `log` says about itself and its handlers, and the running host, if there is one.
    pub async fn of(
        log: &dyn Log,
        namespace: Option<&str>,
        not_ready: Option<String>,
        running: Option<&dyn Running>,
    ) -> Result<Self, LogError> {
        let guarantees = log.guarantees();
        let end = log.end().await?;
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").into(),
            namespace: namespace.map(Into::into),
            log: LogView { kind: guarantees.kind.into(), guarantee: guarantees.summary, end: end.0 },
            not_ready,
            handlers: HandlerView::all(log, running).await?,
        })
    }
}
