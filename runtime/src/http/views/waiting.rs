//! What of a handler waits, message by message, and why.

use super::handler::{BacklogView, HandlerView};
use crate::backlog::{self, Budget};
use crate::clock::{self, Timestamp};
use crate::handler::HandlerName;
use crate::http::running::{BreakerView, Running};
use crate::log::{
    DelayedFacts, DelayedFilter, DelayedPlace, DelayedQuery, HeadFilter, HeadQuery, Log, LogError, OpenHead,
};
use crate::message::Offset;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A page of what waits: open messages by offset, then delayed ones by due time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WaitingPage {
    pub handler: String,
    /// All of its messages that wait, whatever is on this page; delayed ones are not among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<BacklogView>,
    /// An operator paused the handler.
    pub paused: bool,
    pub paused_keys: Vec<String>,
    /// An operator opened its breaker.
    pub tripped: bool,
    /// Absent: no host runs, or its settings do not name the handler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerView>,
    pub open: Vec<OpenView>,
    pub delayed: Vec<DelayedView>,
    /// `after` of the next page, when there may be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A message that was taken up and is not settled. Later ones of its key wait for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenView {
    pub offset: u64,
    pub shard: u16,
    /// Absent: the message is no longer in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The key it is handled under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// When the log took it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    pub reason: Reason,
    /// Tries that failed.
    pub attempts: u32,
    /// Not before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_try: Option<String>,
    /// How the last try failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The module that failed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Messages of its key that wait for it. Absent: none can, it stands alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind: Option<BehindView>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BehindView {
    pub messages: u64,
    /// There may be more: counting has bounds.
    pub at_least: bool,
}

/// Why an open message does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Its handler is paused.
    Paused,
    /// Its key is paused.
    KeyPaused,
    /// The breaker was opened by hand.
    Tripped,
    /// It failed, and the next try is not due.
    Retry,
    /// The breaker is open.
    BreakerOpen,
    /// Nothing holds it: it runs, or is about to.
    Turn,
}

/// A message that a run published for later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelayedView {
    pub shard: u16,
    /// Within the shard.
    pub number: u64,
    pub due: String,
    pub topic: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// Which page of what.
#[derive(Clone, Debug, Default)]
pub struct WaitingQuery {
    pub filter: HeadFilter,
    pub after: Option<Cursor>,
    pub limit: usize,
}

/// Where a page begins; what it looks like is our own business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    Open(Offset),
    Delayed(DelayedPlace),
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cursor::Open(offset) => write!(f, "open.{offset}"),
            Cursor::Delayed(DelayedPlace { due, shard, number }) => write!(f, "delayed.{}.{shard}.{number}", due.0),
        }
    }
}

impl FromStr for Cursor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = || {
            let mut parts = text.split('.');
            let kind = parts.next()?;
            let mut next = || parts.next()?.parse::<u64>().ok();
            let cursor = match kind {
                "open" => Cursor::Open(Offset(next()?)),
                "delayed" => {
                    let (due, shard, number) = (Timestamp(next()?), u16::try_from(next()?).ok()?, next()?);
                    Cursor::Delayed(DelayedPlace { due, shard, number })
                }
                _ => return None,
            };
            parts.next().is_none().then_some(cursor)
        };
        parsed().ok_or_else(|| "write what `next` of the page before says, such as open.17".into())
    }
}

impl WaitingPage {
    /// `None`: the log knows no such handler.
    pub async fn of(
        log: &dyn Log,
        name: &HandlerName,
        query: &WaitingQuery,
        running: Option<&dyn Running>,
    ) -> Result<Option<Self>, LogError> {
        let handlers = HandlerView::all(log, running).await?;
        let Some(handler) = handlers.into_iter().find(|handler| handler.name == name.as_str()) else { return Ok(None) };
        let mut page = Self {
            handler: handler.name,
            waiting: handler.waiting,
            paused: handler.control.paused,
            paused_keys: handler.control.paused_keys,
            tripped: handler.control.tripped,
            breaker: handler.running.map(|running| running.breaker),
            open: vec![],
            delayed: vec![],
            next: None,
        };
        let mut room = query.limit;
        let mut delayed_after = None;
        match query.after {
            Some(Cursor::Delayed(place)) => delayed_after = Some(place),
            after => {
                let after = if let Some(Cursor::Open(offset)) = after { offset } else { Offset::START };
                let filter = query.filter.clone();
                let heads = log.heads(HeadQuery { handler: name.clone(), filter, after, heads_max: room }).await?;
                page.show_open(log, name, &heads).await?;
                if heads.len() >= room {
                    page.next = heads.last().map(|last| Cursor::Open(last.head.offset).to_string());
                    return Ok(Some(page));
                }
                room -= heads.len();
            }
        }
        // A delayed message has no attempts, no error and no offset yet.
        let HeadFilter { offset, key, topic, error, attempts_min } = query.filter.clone();
        if offset.is_some() || error.is_some() || attempts_min > 0 {
            return Ok(Some(page));
        }
        let filter = DelayedFilter { key, topic, ..DelayedFilter::default() };
        let (handler, after) = (name.clone(), delayed_after);
        let delayed = log.delayed(DelayedQuery { handler, filter, after, delayed_max: room }).await?;
        let last = delayed.last().filter(|_| delayed.len() >= room);
        page.next = last.map(|last| Cursor::Delayed(last.place).to_string());
        page.delayed = delayed.iter().map(DelayedView::from).collect();
        Ok(Some(page))
    }

    async fn show_open(&mut self, log: &dyn Log, name: &HandlerName, heads: &[OpenHead]) -> Result<(), LogError> {
        let routings = log.routings().await?.routings;
        let behind = match routings.iter().find(|routing| routing.handler == *name) {
            Some(routing) => backlog::behind(log, routing, heads, log.end().await?, &mut Budget::default()).await?,
            None => Default::default(),
        };
        let now = clock::now();
        for found in heads {
            let OpenHead { shard, head, message } = found;
            let key = head.key.as_ref().map(ToString::to_string);
            let behind = behind.get(&head.offset);
            self.open.push(OpenView {
                offset: head.offset.0,
                shard: *shard,
                topic: message.as_ref().map(|message| message.topic.to_string()),
                id: message.as_ref().and_then(|message| message.id.as_deref().map(str::to_owned)),
                time: message.as_ref().map(|message| message.time.to_string()),
                reason: self.reason(key.as_ref(), head.attempt > 0 && head.due > now),
                key,
                attempts: head.attempt,
                next_try: (head.attempt > 0).then(|| head.due.to_string()),
                error: (!head.error.is_empty()).then(|| head.error.to_string()),
                digest: head.digest.map(|digest| digest.to_string()),
                behind: behind.map(|behind| BehindView { messages: behind.messages, at_least: behind.at_least }),
            });
        }
        Ok(())
    }

    fn reason(&self, key: Option<&String>, is_later: bool) -> Reason {
        if self.paused {
            return Reason::Paused;
        }
        if key.is_some_and(|key| self.paused_keys.contains(key)) {
            return Reason::KeyPaused;
        }
        match self.breaker {
            _ if self.tripped => Reason::Tripped,
            _ if is_later => Reason::Retry,
            Some(BreakerView::Open { .. } | BreakerView::HalfOpen) => Reason::BreakerOpen,
            _ => Reason::Turn,
        }
    }
}

impl From<&DelayedFacts> for DelayedView {
    fn from(DelayedFacts { place, topic, key, id }: &DelayedFacts) -> Self {
        Self {
            shard: place.shard,
            number: place.number,
            due: place.due.to_string(),
            topic: topic.to_string(),
            key: key.as_ref().map(ToString::to_string),
            id: id.as_deref().map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip_and_anything_else_is_refused() {
        let place = DelayedPlace { due: Timestamp(1_700_000_000_000), shard: 3, number: u64::MAX };
        for cursor in [Cursor::Open(Offset(17)), Cursor::Open(Offset::END), Cursor::Delayed(place)] {
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for bad in ["", "17", "open", "open.x", "open.1.2", "delayed.1.2", "delayed.1.70000.2", "shut.1"] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }
}
