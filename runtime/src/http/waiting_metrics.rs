//! What waits, for `/metrics`: counted from the log when somebody scrapes, and not more often than needed.

use super::face::Face;
use super::rfc3339;
use super::views::HandlerView;
use crate::clock;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Scrapes in between show the same numbers.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// A log that is slow must not keep the other metrics from being seen.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Counts what waits, unless that was done just now. Without an answer of the log nothing is shown.
pub(super) async fn count(face: &Face) {
    if !is_due(face, clock::instant()) {
        return;
    }
    let running = face.running.get().map(|running| &**running);
    let handlers = match tokio::time::timeout(TIMEOUT, HandlerView::counted(&*face.log, running)).await {
        Ok(Ok(handlers)) => handlers,
        Ok(Err(error)) => {
            tracing::debug!(%error, "failed to count what waits, for the metrics");
            vec![]
        }
        Err(_) => {
            tracing::debug!("the log did not answer within {TIMEOUT:?} what waits, for the metrics");
            vec![]
        }
    };
    let now = clock::steady();
    face.metrics.show_waiting(handlers.iter().filter_map(|handler| {
        // Unknown is not 0: whoever is furthest behind may be the one for whom there was no time to count.
        let waiting = handler.waiting.as_ref().filter(|waiting| waiting.messages > 0 || !waiting.at_least)?;
        let oldest = waiting.oldest.as_deref().and_then(rfc3339::parse).map(|oldest| now.since(oldest));
        Some((handler.name.as_str(), waiting.messages, oldest))
    }));
}

fn is_due(face: &Face, now: Instant) -> bool {
    let mut counted = face.waiting_counted.lock().unwrap_or_else(PoisonError::into_inner);
    let due = counted.is_none_or(|counted| now.saturating_duration_since(counted) >= COUNT_EVERY);
    if due {
        *counted = Some(now);
    }
    due
}
