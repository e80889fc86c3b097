//! What of a handler waits, message by message, and why.

use super::handler::{BacklogView, HandlerView};
use crate::backlog::{self, Budget, Place, Unread};
use crate::clock::{self, Timestamp};
use crate::commit::HeadScope;
use crate::handler::HandlerName;
use crate::http::running::{BreakerView, Running};
use crate::log::{
    DelayedFacts, DelayedFilter, DelayedPlace, DelayedQuery, HeadFilter, HeadQuery, Log, LogError, OpenHead,
};
use crate::message::{Key, Offset};
use crate::routing::Routing;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

/// Open messages looked at to say which others wait behind them.
const HEADS_MAX: usize = 1000;

/// A page of what waits: open messages by offset, then those not taken up by offset, then delayed ones by due time.
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
    pub open: Vec<WaitingMessage>,
    /// Messages that their shard has not taken up.
    pub unread: Vec<WaitingMessage>,
    pub delayed: Vec<DelayedView>,
    /// `after` of the next page, when there may be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A message that waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WaitingMessage {
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
    /// Messages of its key that wait for it, where it is open. Absent: none can, it stands alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind: Option<BehindView>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BehindView {
    pub messages: u64,
    /// There may be more: counting has bounds.
    pub at_least: bool,
}

/// Why a message does not run.
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
    /// An open message of its key stands before it.
    Behind,
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
    Unread(Offset),
    Delayed(DelayedPlace),
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cursor::Open(offset) => write!(f, "open.{offset}"),
            Cursor::Unread(offset) => write!(f, "unread.{offset}"),
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
                "unread" => Cursor::Unread(Offset(next()?)),
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
        let handlers = HandlerView::counted(log, running).await?;
        let Some(handler) = handlers.into_iter().find(|handler| handler.name == name.as_str()) else { return Ok(None) };
        let routings = log.routings().await?.routings;
        let routing = routings.iter().find(|routing| routing.handler == *name);
        let place = routing.map(|routing| handler.place(routing));
        let mut page = Self {
            handler: handler.name,
            waiting: handler.waiting,
            paused: handler.control.paused,
            paused_keys: handler.control.paused_keys,
            tripped: handler.control.tripped,
            breaker: handler.running.map(|running| running.breaker),
            open: vec![],
            unread: vec![],
            delayed: vec![],
            next: None,
        };
        let mut room = query.limit;
        if let None | Some(Cursor::Open(_)) = query.after {
            let after = if let Some(Cursor::Open(offset)) = query.after { offset } else { Offset::START };
            let (handler, filter) = (name.clone(), query.filter.clone());
            let heads = log.heads(HeadQuery { handler, filter, after, heads_max: room }).await?;
            page.show_open(log, routing, &heads).await?;
            if heads.len() >= room {
                page.next = heads.last().map(|last| Cursor::Open(last.head.offset).to_string());
                return Ok(Some(page));
            }
            room -= heads.len();
        }
        if query.filter.error.is_some() || query.filter.attempts_min > 0 {
            // Neither of the others was tried.
            return Ok(Some(page));
        }
        if let (Some(routing), Some(place), None | Some(Cursor::Open(_) | Cursor::Unread(_))) =
            (routing, &place, query.after)
        {
            let after = if let Some(Cursor::Unread(offset)) = query.after { offset } else { Offset::START };
            let reached = page.show_unread(log, routing, place, after, &query.filter, room).await?;
            if let Some(reached) = reached {
                page.next = Some(Cursor::Unread(reached).to_string());
                return Ok(Some(page));
            }
            room -= page.unread.len();
            if room == 0 {
                // Nothing is unread any more: there the delayed ones begin.
                page.next = Some(Cursor::Unread(Offset::END).to_string());
                return Ok(Some(page));
            }
        }
        let HeadFilter { offset: None, key, topic, .. } = query.filter.clone() else {
            // A delayed message has no offset yet.
            return Ok(Some(page));
        };
        let filter = DelayedFilter { key, topic, ..DelayedFilter::default() };
        let after = if let Some(Cursor::Delayed(place)) = query.after { Some(place) } else { None };
        let delayed = log.delayed(DelayedQuery { handler: name.clone(), filter, after, delayed_max: room }).await?;
        let last = delayed.last().filter(|_| delayed.len() >= room);
        page.next = last.map(|last| Cursor::Delayed(last.place).to_string());
        page.delayed = delayed.iter().map(DelayedView::from).collect();
        Ok(Some(page))
    }

    /// Where the next page begins, when there may be one.
    async fn show_unread(
        &mut self,
        log: &dyn Log,
        routing: &Routing,
        place: &Place,
        after: Offset,
        filter: &HeadFilter,
        room: usize,
    ) -> Result<Option<Offset>, LogError> {
        let end = log.end().await?;
        let wants = |unread: &Unread| {
            filter.offset.is_none_or(|offset| unread.offset == offset)
                && filter.key.as_ref().is_none_or(|key| unread.key.as_ref() == Some(key))
                && filter.topic.as_ref().is_none_or(|topic| topic.matches(&unread.message.topic))
        };
        let budget = &mut Budget::default();
        let (found, reached) = backlog::unread(log, routing, place, (after, end), wants, room, budget).await?;
        let (handler, filter) = (routing.handler.clone(), HeadFilter::default());
        let query = HeadQuery { handler, filter, after: Offset::START, heads_max: HEADS_MAX };
        let heads = if found.is_empty() { vec![] } else { log.heads(query).await? };
        let before = heads.iter().filter(|found| found.head.scope != HeadScope::Message);
        let before: HashSet<&Key> = before.filter_map(|found| found.head.key.as_ref()).collect();
        for Unread { offset, shard, key, message } in found {
            let reason = match self.reason(key.as_ref().map(Key::as_str), false) {
                Reason::Turn if key.as_ref().is_some_and(|key| before.contains(key)) => Reason::Behind,
                reason => reason,
            };
            self.unread.push(WaitingMessage {
                offset: offset.0,
                shard,
                topic: Some(message.topic.to_string()),
                key: key.map(|key| key.to_string()),
                id: message.id.as_deref().map(str::to_owned),
                time: Some(message.time.to_string()),
                reason,
                attempts: 0,
                next_try: None,
                error: None,
                digest: None,
                behind: None,
            });
        }
        Ok((reached < end).then_some(reached))
    }

    async fn show_open(
        &mut self,
        log: &dyn Log,
        routing: Option<&Routing>,
        heads: &[OpenHead],
    ) -> Result<(), LogError> {
        let behind = match routing {
            Some(routing) => backlog::behind(log, routing, heads, log.end().await?, &mut Budget::default()).await?,
            None => Default::default(),
        };
        let now = clock::steady();
        for found in heads {
            let OpenHead { shard, head, message } = found;
            let key = head.key.as_ref().map(ToString::to_string);
            let behind = behind.get(&head.offset);
            self.open.push(WaitingMessage {
                offset: head.offset.0,
                shard: *shard,
                topic: message.as_ref().map(|message| message.topic.to_string()),
                id: message.as_ref().and_then(|message| message.id.as_deref().map(str::to_owned)),
                time: message.as_ref().map(|message| message.time.to_string()),
                reason: self.reason(key.as_deref(), head.attempt > 0 && head.due > now),
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

    fn reason(&self, key: Option<&str>, is_later: bool) -> Reason {
        if self.paused {
            return Reason::Paused;
        }
        if key.is_some_and(|key| self.paused_keys.iter().any(|paused| paused == key)) {
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
    fn from(DelayedFacts { place, topic, key, id, .. }: &DelayedFacts) -> Self {
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
        for cursor in [Cursor::Open(Offset(17)), Cursor::Unread(Offset::END), Cursor::Delayed(place)] {
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for bad in ["", "17", "open", "open.x", "open.1.2", "delayed.1.2", "delayed.1.70000.2", "shut.1"] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }
}
