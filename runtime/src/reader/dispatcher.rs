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
            Some(Ok(batch)) => dispatcher.dispatch(&batch),
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
    fn dispatch(&mut self, batch: &Arc<Batch>) {
        self.messages_since_yield += batch.messages.len();
        loop {
            self.sort(batch);
            if self.deliver(batch) {
                return;
            }
        }
    }

    fn sort(&mut self, batch: &Batch) {
        self.sorted.sort(&mut self.subscribers, &batch.messages);
    }

    /// Delivers the batch that was sorted last, unless handlers changed since: then it takes note of them and says no.
    fn deliver(&mut self, batch: &Arc<Batch>) -> bool {
        let mut positions = self.shared.positions();
        let activations = positions.activations();
        let unchanged = Arc::ptr_eq(positions.table(), &self.subscribers.table);
        if unchanged && activations == self.activations {
            positions.dispatch(&mut self.sorted, batch.clone());
            return true;
        }
        self.activations = activations;
        if !unchanged {
            self.subscribers = Subscribers::new(positions.table().clone(), self.shared.options.topics_max);
        }
        false
    }
}

fn lagged(shared: &State) {
    tracing::warn!("the tail of the log fell behind: the shards catch up by reading");
    shared.positions().lag();
}

#[cfg(test)]
mod tests {
    use super::super::tests::{offsets, routing, shard};
    use super::super::{Inbox, Options, Reader};
    use super::*;
    use crate::clock::Timestamp;
    use crate::log::memory::MemoryLog;
    use crate::message::{Message, NewMessage, Offset};
    use crate::topic::Topic;

    /// The next batch of the tail: one message that every handler here subscribes to.
    fn batch(offset: u64) -> Arc<Batch> {
        let message = NewMessage::new(Topic::parse("t").unwrap(), "");
        let message = Arc::new(Message::from_new(message, Offset(offset), Timestamp(1)));
        Arc::new(Batch { messages: vec![message], upto: Offset(offset) })
    }

    fn delivered(inbox: &mut Inbox) -> Vec<Offset> {
        std::iter::from_fn(|| inbox.try_next()).flat_map(|delivery| offsets(&delivery)).collect()
    }

    /// What happens between the sorting of a batch and its delivery. The reader's own tasks do not run meanwhile: its
    /// log stays empty, and nothing here waits.
    #[tokio::test]
    async fn whoever_comes_to_the_tail_after_a_batch_was_sorted_gets_what_is_in_it() {
        let reader = Reader::start(Arc::new(MemoryLog::default()), Options::default()).await.unwrap();
        let mut dispatcher = Dispatcher::new(&reader.shared);
        let route = |handler| reader.route(Arc::new(routing(handler, &["t"], 1)));

        dispatcher.sort(&batch(1));
        route("known");
        assert!(!dispatcher.deliver(&batch(1)), "the new handler is missing in what was sorted");
        dispatcher.dispatch(&batch(1));

        // The handler is in the table, and now one of its shards is on the tail.
        dispatcher.sort(&batch(2));
        let mut known = reader.join(&shard("known", 0), Offset(1));
        assert!(!dispatcher.deliver(&batch(2)), "it was sorted while the handler had no shard on the tail");
        dispatcher.dispatch(&batch(2));
        assert_eq!(delivered(&mut known), [Offset(2)]);

        // Both at once.
        dispatcher.sort(&batch(3));
        route("new");
        let mut new = reader.join(&shard("new", 0), Offset(2));
        assert!(!dispatcher.deliver(&batch(3)));
        dispatcher.dispatch(&batch(3));
        assert_eq!((delivered(&mut known), delivered(&mut new)), (vec![Offset(3)], vec![Offset(3)]));

        dispatcher.sort(&batch(4));
        assert!(dispatcher.deliver(&batch(4)), "nothing has changed");
        assert_eq!((delivered(&mut known), delivered(&mut new)), (vec![Offset(4)], vec![Offset(4)]));
    }
}
