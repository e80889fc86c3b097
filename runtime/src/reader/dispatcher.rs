//! The task that consumes the tail and hands each batch to the shards that are on it. It waits for nothing but the tail.

use super::State;
use super::sorter::Sorted;
use super::subscribers::Subscribers;
use crate::log::{Batch, Lagged, Tail};
use std::sync::Arc;

/// About a millisecond of work. After every batch would be too often: on a busy machine it is a while until its next turn.
const YIELD_AFTER_MESSAGES: usize = 1024;

/// Dispatches until the reader stops or the log closes, then ends delivery to all shards.
pub(super) async fn run(shared: Arc<State>, mut tail: Box<dyn Tail>) {
    let mut dispatcher = Dispatcher::new(&shared);
    loop {
        let next = tokio::select! {
            biased;
            // Waits for a flag, so nothing is lost when it is dropped.
            () = shared.stop.cancelled() => break,
            // Safe to cancel, as the tail's contract says.
            next = tail.next() => next,
        };
        match next {
            Some(Ok(batch)) => dispatcher.dispatch(batch),
            Some(Err(Lagged)) => lagged(&shared),
            // The host must not look well while nothing is delivered.
            None => break shared.vital.tell("the log closed its tail: no more messages are delivered".into()),
        }
        // A tail that always has something must not keep its worker thread from the shards it has just woken.
        if dispatcher.messages_since_yield >= YIELD_AFTER_MESSAGES {
            dispatcher.messages_since_yield = 0;
            tokio::task::yield_now().await;
        }
    }
    shared.stop.cancel();
    shared.positions().close();
}

struct Dispatcher<'s> {
    shared: &'s State,
    subscribers: Subscribers,
    sorted: Sorted,
    /// The activations seen before a batch is sorted.
    activations: u64,
    messages_since_yield: usize,
}

impl<'s> Dispatcher<'s> {
    fn new(shared: &'s State) -> Self {
        let table = shared.positions().table().clone();
        let subscribers = Subscribers::new(table, shared.options.topics_max);
        Self { shared, subscribers, sorted: Sorted::default(), activations: 0, messages_since_yield: 0 }
    }

    /// Sorts outside the lock and delivers under it. If handlers changed in between, it sorts again.
    fn dispatch(&mut self, batch: Arc<Batch>) {
        self.messages_since_yield += batch.messages.len();
        loop {
            self.sorted.sort(&mut self.subscribers, &batch.messages);
            let mut positions = self.shared.positions();
            let activations = positions.activations();
            let unchanged = Arc::ptr_eq(positions.table(), &self.subscribers.table);
            if unchanged && activations == self.activations {
                return positions.dispatch(&mut self.sorted, batch);
            }
            self.activations = activations;
            if !unchanged {
                self.subscribers = Subscribers::new(positions.table().clone(), self.shared.options.topics_max);
            }
        }
    }
}

fn lagged(shared: &State) {
    tracing::warn!("the tail of the log fell behind: the shards catch up by reading");
    shared.positions().lag();
}
