//! `GET /v1/topics/{pattern}/tail`: messages as server-sent events, from the log and then live.
//!
//! | parameter | meaning |
//! |---|---|
//! | `from` | `latest` (default), `earliest`, an offset (that message or the next one), or a time such as `2026-01-31T08:00:00Z` |
//! | `since` | an age instead of `from`, such as `10m`: what is not older than that |
//! | `key` | only messages of this key |
//! | `to` | an offset: ends after it |
//! | `follow` | `true` (default), or `false`: ends with what the log has now |
//!
//! Events: `start` once, with the offset after which messages come; then one without a name per message, whose id is its
//! offset (so a browser that reconnects goes on after the last one it saw, by `Last-Event-ID`); `end` when `to` or the
//! end is reached; `error` with a reason. A connection that closes without `end` or `error` broke off.
//!
//! A slow client delays nobody: it falls off the tail and is served from the log.

use super::error::ApiError;
use super::face::Face;
use super::parameters::{Parameters, PathText};
use super::rfc3339;
use super::views::MessageView;
use crate::clock::{self, Timestamp};
use crate::log::{Batch, Log, LogError, ReadRequest, Tail};
use crate::message::{Key, Message, Offset};
use crate::topic::Pattern;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

/// Messages and bytes of one read while catching up: what each client may have in memory.
const READ_MESSAGES_MAX: usize = 256;
const READ_BYTES_MAX: usize = 1 << 18;
/// Bytes of events made at a time; ends after the message that reaches it. A live batch is shared by all tails, what is
/// made of it is not.
const EVENTS_BYTES_MAX: usize = 1 << 16;
/// A quiet tail shows that it is alive, so that proxies keep it and a dead client is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) async fn tail(
    State(face): State<Arc<Face>>,
    PathText(pattern): PathText,
    mut parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let pattern = Pattern::parse(&pattern).map_err(ApiError::bad_request)?;
    let from = parameters.take("from");
    let since = parameters.parsed("since", crate::config::duration)?;
    let begin = match (from, since) {
        (Some(_), Some(_)) => return Err(ApiError::bad_request("`from` and `since` both say where to begin: use one")),
        (Some(text), None) => Begin::parse(&text)?,
        (None, Some(age)) => Begin::Time(clock::steady().before(age)),
        (None, None) => Begin::Latest,
    };
    let key = parameters.parsed("key", |text| Key::try_from(text.to_owned()))?;
    let to = parameters.number("to")?.map(Offset);
    let follow = parameters.flag("follow", true)?;
    parameters.finish()?;
    let last_seen = headers.get("last-event-id").map(last_seen).transpose()?;

    let permit = face.tails.clone().try_acquire_owned();
    let permit = permit.map_err(|_| ApiError::unavailable("too many tails are open"))?;
    // Registered before the log is read: nothing falls in between.
    let tail = face.log.tail().await?;
    let live_from = tail.start();
    let after = match (last_seen, begin) {
        (Some(seen), _) => seen,
        (None, Begin::Latest) => live_from,
        (None, Begin::Earliest) => Offset::START,
        (None, Begin::At(offset)) => Offset(offset.0.saturating_sub(1)),
        (None, Begin::Time(time)) => face.log.offset_before(time).await?,
    };
    let to = if follow { to } else { Some(to.unwrap_or(Offset::END).min(live_from)) };
    let open = Open { gauge: face.counts.tails.clone(), _permit: permit };
    open.gauge.inc();
    let following = Following {
        log: face.log.clone(),
        patterns: vec![pattern],
        key,
        after,
        to: to.unwrap_or(Offset::END),
        catch_up_to: Some(live_from),
        showing: None,
        tail,
        stop: face.stop.clone(),
        phase: Phase::Starting,
        _open: open,
    };
    let events = futures_util::stream::unfold(following, |mut following| async move {
        let events = following.next().await?;
        Some((Ok::<_, Infallible>(events), following))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    Ok((headers, Body::from_stream(events)).into_response())
}

/// Where a tail begins.
enum Begin {
    Latest,
    Earliest,
    At(Offset),
    Time(Timestamp),
}

impl Begin {
    fn parse(text: &str) -> Result<Self, ApiError> {
        match text {
            "latest" => Ok(Begin::Latest),
            "earliest" => Ok(Begin::Earliest),
            _ => {
                let at = text.parse().ok().map(|offset| Begin::At(Offset(offset)));
                at.or_else(|| rfc3339::parse(text).map(Begin::Time)).ok_or_else(|| {
                    let shown: String = text.chars().take(100).collect();
                    ApiError::bad_request(format!(
                        "`from` must be latest, earliest, an offset, or a time such as 2026-01-31T08:00:00Z, not `{shown}`"
                    ))
                })
            }
        }
    }
}

/// Without it the client would miss what came while it was away, and not know.
fn last_seen(value: &HeaderValue) -> Result<Offset, ApiError> {
    let seen = value.to_str().ok().and_then(|text| text.trim().parse().ok()).map(Offset);
    seen.ok_or_else(|| {
        let shown: String = String::from_utf8_lossy(value.as_bytes()).chars().take(100).collect();
        ApiError::bad_request(format!(
            "`Last-Event-ID` must be the offset of a message, as in its `id:`, not `{shown}`"
        ))
    })
}

/// Counts an open tail and holds its place.
struct Open {
    gauge: prometheus::IntGauge,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Running,
    Ended,
}

/// One client that follows.
struct Following {
    log: Arc<dyn Log>,
    patterns: Vec<Pattern>,
    /// Only its messages.
    key: Option<Key>,
    /// Everything up to here was sent.
    after: Offset,
    /// Ends here.
    to: Offset,
    /// What is missing up to here comes from the log.
    catch_up_to: Option<Offset>,
    /// What was read or came live and is not sent yet.
    showing: Option<Arc<Batch>>,
    tail: Box<dyn Tail>,
    stop: CancellationToken,
    phase: Phase,
    _open: Open,
}

impl Following {
    /// The next events; `None` after the last.
    async fn next(&mut self) -> Option<Bytes> {
        match self.phase {
            Phase::Ended => return None,
            Phase::Starting => {
                self.phase = Phase::Running;
                return Some(event("start", &json!({ "after": self.after.0 })));
            }
            Phase::Running => {}
        }
        match self.run().await {
            Ok(events) => Some(events),
            Err(end) => {
                self.phase = Phase::Ended;
                match end {
                    End::Reached => Some(event("end", &json!({ "after": self.after.0 }))),
                    End::Failed(error) => Some(event("error", &json!({ "error": error.to_string() }))),
                    End::Stopped => Some(event("error", &json!({ "error": "the host stops" }))),
                }
            }
        }
    }

    async fn run(&mut self) -> Result<Bytes, End> {
        loop {
            if self.after >= self.to {
                return Err(End::Reached);
            }
            if let Some(batch) = self.showing.take() {
                let events = self.show(batch);
                if !events.is_empty() {
                    return Ok(events.into());
                }
            } else if let Some(upto) = self.catch_up_to {
                self.catch_up(upto).await?;
            } else if !self.wait().await? {
                return Ok(Bytes::from_static(b": alive\n\n"));
            }
        }
    }

    async fn catch_up(&mut self, upto: Offset) -> Result<(), End> {
        let upto = upto.min(self.to);
        let request = ReadRequest {
            after: self.after,
            upto,
            patterns: self.patterns.clone(),
            messages_max: READ_MESSAGES_MAX,
            bytes_max: READ_BYTES_MAX,
        };
        // An empty batch may end before what was asked for: a kind of log looks at so many messages at a time.
        let batch = if self.after < upto { self.log.read(request).await? } else { Batch { messages: vec![], upto } };
        if batch.upto >= upto {
            self.catch_up_to = None;
        }
        self.showing = Some(Arc::new(batch));
        Ok(())
    }

    /// Takes the next live batch; false when none came for so long that it should show that it is alive.
    async fn wait(&mut self) -> Result<bool, End> {
        let next = tokio::select! {
            // Safe to cancel, says the contract.
            next = tokio::time::timeout(KEEP_ALIVE, self.tail.next()) => next,
            () = self.stop.cancelled() => return Err(End::Stopped),
        };
        match next {
            Err(_) => return Ok(false),
            Ok(None) => return Err(End::Stopped),
            Ok(Some(Ok(batch))) => self.showing = Some(batch),
            Ok(Some(Err(_lagged))) => {
                // What was missed lies in the log by now; live batches that overlap it are skipped by offset.
                self.catch_up_to = Some(self.log.end().await?);
            }
        }
        Ok(true)
    }

    /// The wanted messages of a batch that were not sent before, as many as are made at a time.
    fn show(&mut self, batch: Arc<Batch>) -> String {
        let mut events = String::new();
        // Batches are in offset order.
        let first = batch.messages.partition_point(|message| message.offset <= self.after);
        for message in &batch.messages[first..] {
            if message.offset > self.to {
                break;
            }
            self.after = message.offset;
            let has_key = self.key.is_none() || self.key == message.key;
            if has_key && self.patterns.iter().any(|pattern| pattern.matches(&message.topic)) {
                show(message, &mut events);
            }
            if events.len() >= EVENTS_BYTES_MAX {
                self.showing = Some(batch);
                return events;
            }
        }
        self.after = self.after.max(batch.upto);
        events
    }
}

/// Why a tail is over.
enum End {
    Reached,
    Stopped,
    Failed(LogError),
}

impl From<LogError> for End {
    fn from(error: LogError) -> Self {
        End::Failed(error)
    }
}

fn show(message: &Message, events: &mut String) {
    // A view is text and numbers only, so it always has a JSON form, and that form has no line breaks.
    let data = serde_json::to_string(&MessageView::from(message)).expect("a view has a JSON form");
    // Writing to a string cannot fail.
    let _ = write!(events, "id: {}\ndata: {data}\n\n", message.offset);
}

fn event(name: &str, data: &serde_json::Value) -> Bytes {
    format!("event: {name}\ndata: {data}\n\n").into()
}
