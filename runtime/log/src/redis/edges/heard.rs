//! What is published to channels, while somebody listens: at most once, since the server keeps nothing of it. It waits here
//! until it is taken, within bounds; beyond them it is lost, and counted.

use super::plain::{published, shortened};
use crate::edges::Unfit;
use crate::error::LogError;
use crate::redis::failure::Failure;
use crate::redis::server::Server;
use futures_util::StreamExt as _;
use redis::Msg;
use redis::aio::{PubSubSink, PubSubStream};
use sluicebox_core::message::NewMessage;
use sluicebox_core::topic::Pattern;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

/// What waits: as much as comes in the second or two in which a log is away for a moment.
pub(super) const WAITING_MAX: usize = 10_000;
const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long the channels may take to be joined.
const JOIN: Duration = Duration::from_secs(5);
/// A connection on which nothing comes is asked so often whether it still is one, and may take so long to answer.
const LOOK: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(5);

/// Listens until it is dropped.
pub(super) struct Heard {
    shared: Arc<Shared>,
    /// Handed out by the last [`Heard::take`].
    in_hand: u64,
    _task: AbortOnDropHandle<()>,
}

struct Shared {
    waiting: Mutex<Waiting>,
    came: Notify,
    lost: Arc<AtomicU64>,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Result<NewMessage, Unfit>>,
    bytes: usize,
    /// Some were lost since some were taken.
    is_losing: bool,
    /// Why nothing more comes.
    ended: Option<String>,
}

impl Heard {
    /// Joins the channels of these patterns. `lost` counts what nobody will take, or perhaps nobody.
    pub(super) async fn listen(server: &Server, patterns: &[Pattern], lost: Arc<AtomicU64>) -> Result<Self, LogError> {
        let unavailable = |reason: String| LogError::Unavailable {
            reason: format!("the channels of `ingress_channels` are not heard: {reason}"),
        };
        let patterns: Arc<[(String, Pattern)]> = patterns.iter().map(|p| (glob(p), p.clone())).collect();
        let joined = tokio::time::timeout(JOIN, async {
            let (mut sink, stream) = server.subscriber().await?.split();
            for (glob, _) in patterns.iter() {
                sink.psubscribe(glob).await.map_err(|error| match Failure::from(error) {
                    Failure::Denied(reason) => {
                        unavailable(format!("{reason}: let the user of the host have `&{glob}`"))
                    }
                    other => unavailable(other.reason()),
                })?;
            }
            Ok::<_, LogError>((sink, stream))
        });
        let (sink, stream) = joined.await.map_err(|_| unavailable("the server does not answer".into()))??;
        let shared = Arc::new(Shared { waiting: Mutex::default(), came: Notify::new(), lost });
        let task = tokio::spawn(hear(shared.clone(), sink, stream, patterns));
        Ok(Self { shared, in_hand: 0, _task: AbortOnDropHandle::new(task) })
    }

    /// What waits, some of it; the order is that of the connection. What was taken before is the taker's for good.
    pub(super) fn take(
        &mut self,
        messages_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Result<NewMessage, Unfit>>, LogError> {
        let mut waiting = self.shared.waiting();
        let (mut taken, mut bytes) = (vec![], 0);
        while taken.len() < messages_max && bytes < bytes_max {
            let Some(message) = waiting.messages.pop_front() else { break };
            bytes += bytes_of(&message);
            taken.push(message);
        }
        waiting.bytes -= bytes;
        waiting.is_losing &= taken.is_empty();
        self.in_hand = taken.len() as u64;
        match waiting.ended.clone() {
            Some(reason) if taken.is_empty() => Err(LogError::Unavailable { reason }),
            _ => Ok(taken),
        }
    }

    /// Returns when there is something to take, or nothing more comes. Safe to cancel.
    pub(super) async fn came(&self) {
        loop {
            let came = self.shared.came.notified();
            {
                let waiting = self.shared.waiting();
                if !waiting.messages.is_empty() || waiting.ended.is_some() {
                    return;
                }
            }
            came.await;
        }
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        // Nobody says whether what was taken last was committed.
        let waiting = self.shared.waiting().messages.len() as u64;
        self.shared.lost.fetch_add(waiting + self.in_hand, Ordering::Relaxed);
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, message: Result<NewMessage, Unfit>) {
        let mut waiting = self.waiting();
        let bytes = bytes_of(&message);
        if waiting.messages.len() < WAITING_MAX && waiting.bytes + bytes <= WAITING_BYTES_MAX {
            waiting.bytes += bytes;
            waiting.messages.push_back(message);
        } else {
            self.lost.fetch_add(1, Ordering::Relaxed);
            if !std::mem::replace(&mut waiting.is_losing, true) {
                tracing::warn!(
                    "messages on channels of `ingress_channels` come faster than they are taken: some are lost"
                );
            }
        }
    }
}

/// Takes from the connection whatever comes, at once: nothing bounds what waits there.
async fn hear(shared: Arc<Shared>, mut sink: PubSubSink, mut stream: PubSubStream, patterns: Arc<[(String, Pattern)]>) {
    let mut looks = tokio::time::interval(LOOK);
    let reason = loop {
        let asks = async {
            looks.tick().await;
            tokio::time::timeout(ANSWER, sink.ping::<redis::Value>()).await
        };
        tokio::pin!(asks);
        let answer = loop {
            tokio::select! {
                // Safe to cancel: what comes is handed over whole.
                message = stream.next() => match message {
                    Some(message) => {
                        if let Some(message) = read(&message, &patterns) {
                            shared.put(message);
                            shared.came.notify_waiters();
                        }
                    }
                    None => break Some("the connection ended".to_owned()),
                },
                answer = &mut asks => break match answer {
                    Ok(Ok(_)) => None,
                    Ok(Err(error)) => Some(error.to_string()),
                    Err(_) => Some("the server does not answer".to_owned()),
                },
            }
        };
        if let Some(reason) = answer {
            break reason;
        }
    };
    shared.waiting().ended = Some(format!("the channels of `ingress_channels` are not heard any more: {reason}"));
    shared.came.notify_waiters();
}

fn read(message: &Msg, patterns: &[(String, Pattern)]) -> Option<Result<NewMessage, Unfit>> {
    // Only by the pattern that is meant: those of the server match more, so one message may come by several.
    let by: String = message.get_pattern().ok()?;
    let (_, pattern) = patterns.iter().find(|(glob, _)| *glob == by)?;
    let channel: Vec<u8> = message.get_channel().ok()?;
    let channel = String::from_utf8_lossy(&channel);
    let body = message.get_payload_bytes();
    let read = published(&channel, body.to_vec().into(), pattern)?;
    Some(read.map_err(|reason| Unfit { place: String::new(), subject: shortened(&channel), bytes: body.len(), reason }))
}

fn bytes_of(message: &Result<NewMessage, Unfit>) -> usize {
    message.as_ref().map_or(0, NewMessage::bytes)
}

/// As the server writes patterns: its `*` goes over dots too.
fn glob(pattern: &Pattern) -> String {
    pattern.as_str().replace('>', "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_of_the_server_matches_no_less() {
        for (pattern, expected) in [("orders.>", "orders.*"), ("a.*.c", "a.*.c"), ("AlarmDigest", "AlarmDigest")] {
            assert_eq!(glob(&Pattern::parse(pattern).unwrap()), expected);
        }
    }
}
