//! Whether what a filter names is known: a name that is mistyped must not look like one that has nothing.
//!
//! Every handler in the log is known, also those that the settings no longer name: their dead letters are there.

use crate::commit::{DEAD_KINDS, DeadFilter};
use crate::config::nearest;
use crate::handler::HandlerName;
use crate::log::{Log, LogError};
use std::collections::BTreeSet;

/// Names that a refusal lists.
const NAMES_MAX: usize = 100;

/// A name that nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct UnknownName {
    text: String,
    /// Those that are known.
    pub known: Vec<String>,
    /// Whether such a thing could exist: a handler may come, a kind may not.
    pub may_exist: bool,
}

/// Why the names of a filter could not be found.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error(transparent)]
    Unknown(#[from] UnknownName),
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Whether the log knows a handler.
pub async fn check_handler(log: &dyn Log, handler: &HandlerName) -> Result<(), CheckError> {
    check(log, &DeadFilter { handler: Some(handler.clone()), ..DeadFilter::default() }).await
}

/// Looks up what the filter names.
pub async fn check(log: &dyn Log, filter: &DeadFilter) -> Result<(), CheckError> {
    if let Some(kind) = filter.kind.as_deref().filter(|kind| !DEAD_KINDS.contains(kind)) {
        return Err(unknown("kind of failure", kind, DEAD_KINDS.into_iter(), false).into());
    }
    let Some(handler) = &filter.handler else { return Ok(()) };
    let (routings, shards) = (log.routings().await?.routings, log.status().await?);
    let routed = routings.iter().map(|routing| &routing.handler);
    let names: BTreeSet<&HandlerName> = routed.chain(shards.iter().map(|shard| &shard.shard.handler)).collect();
    match names.contains(handler) {
        true => Ok(()),
        false => Err(unknown_handler(handler, names.into_iter().map(HandlerName::as_str)).into()),
    }
}

/// Says that there is no such handler, and which there are.
pub(super) fn unknown_handler<'n>(name: &HandlerName, known: impl Iterator<Item = &'n str>) -> UnknownName {
    if name.is_reserved() {
        let text = if name.is_delay() {
            format!("nothing was published with a delay yet: handler `{name}` begins with the first such message")
        } else {
            format!("there is no `{name}` yet: it begins when `ingress` or `egress` in [log] asks for it")
        };
        return UnknownName { text, known: vec![], may_exist: true };
    }
    // The host's own ones are not what somebody mistyped.
    unknown("handler", name.as_str(), known.filter(|name| !name.starts_with('_')), true)
}

fn unknown<'n>(what: &str, name: &str, known: impl Iterator<Item = &'n str>, may_exist: bool) -> UnknownName {
    let known: Vec<&str> = known.take(NAMES_MAX).collect();
    let name: String = name.chars().take(100).collect();
    let text = match (nearest(&name, &known), &known[..]) {
        (_, []) => format!("there is no {what} `{name}`, nor any other"),
        (Some(near), _) => format!("there is no {what} `{name}`: did you mean `{near}`? There is {}", known.join(", ")),
        (None, _) => format!("there is no {what} `{name}`, there is {}", known.join(", ")),
    };
    UnknownName { text, known: known.into_iter().map(str::to_owned).collect(), may_exist }
}
