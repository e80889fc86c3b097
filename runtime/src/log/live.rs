//! The live end of a log inside one process: what was just made durable, handed to every tail from memory.
//!
//! A log announces each durable batch once, in offset order. A tail gets every batch announced after it registered, or
//! [`Lagged`] when it was too slow to be waited for: the log never waits for a tail.

use super::{Batch, Lagged, Tail};
use crate::invoke::BoxFuture;
use crate::message::Offset;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast;

/// Batches held for the slowest tail. A tail that is further behind reads from the log instead.
const BATCHES_MAX: usize = 1024;

/// Where a log announces what became durable, and where tails register.
#[derive(Debug)]
pub(crate) struct Live(Mutex<State>);

#[derive(Debug)]
struct State {
    end: Offset,
    /// `None` after [`Live::close`].
    sender: Option<broadcast::Sender<Arc<Batch>>>,
}

impl Live {
    /// Tails that register before the first announcement start at `end`.
    pub(crate) fn new(end: Offset) -> Self {
        Self(Mutex::new(State { end, sender: Some(broadcast::Sender::new(BATCHES_MAX)) }))
    }

    /// The batch is durable and follows the last one announced. An empty batch is not announced.
    pub(crate) fn announce(&self, batch: Batch) {
        if batch.messages.is_empty() {
            return;
        }
        let mut state = self.state();
        state.end = batch.upto;
        if let Some(sender) = &state.sender {
            // An error means that nobody listens.
            let _ = sender.send(Arc::new(batch));
        }
    }

    /// The offset up to which was announced.
    pub(crate) fn end(&self) -> Offset {
        self.state().end
    }

    /// A tail of everything announced from now on; `None` after [`Live::close`].
    pub(crate) fn tail(&self) -> Option<Box<dyn Tail>> {
        // Under one lock with `announce`: no batch falls between the start and the first one received.
        let state = self.state();
        let batches = state.sender.as_ref()?.subscribe();
        Some(Box::new(LiveTail { start: state.end, batches }))
    }

    /// Ends every tail once it has drained what was announced.
    pub(crate) fn close(&self) {
        self.state().sender = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct LiveTail {
    start: Offset,
    batches: broadcast::Receiver<Arc<Batch>>,
}

impl Tail for LiveTail {
    fn start(&self) -> Offset {
        self.start
    }

    fn next(&mut self) -> BoxFuture<'_, Option<Result<Arc<Batch>, Lagged>>> {
        Box::pin(async {
            match self.batches.recv().await {
                Ok(batch) => Some(Ok(batch)),
                Err(broadcast::error::RecvError::Lagged(_)) => Some(Err(Lagged)),
                Err(broadcast::error::RecvError::Closed) => None,
            }
        })
    }
}
