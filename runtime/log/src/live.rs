//! The live end of a log inside one process: what was just made durable, handed to every tail from memory.
//!
//! A log announces each durable batch once, in offset order. A tail gets every batch announced after it registered, or
//! [`Lagged`] when it was too slow to be waited for: the log never waits for a tail. A batch is kept until every tail
//! took it, within bounds on batches and bytes (tokio's broadcast channel bounds only how many).

use crate::contract::{Batch, Lagged, Tail};
use futures_util::future::BoxFuture;
use sluicebox_core::message::Offset;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Most batches kept for the slowest tail. A tail that is further behind reads from the log instead.
const BATCHES_MAX: usize = 4096;
/// Most bytes kept for the slowest tail (64 MiB), but always the newest batch.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// Where a log announces what became durable, and where tails register. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Live(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// Notified of each change that a waiting tail may see.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    end: Offset,
    open: bool,
    tails: usize,
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    /// The number of the first batch in `kept`; numbers rise by one.
    first: u64,
}

#[derive(Debug)]
struct Kept {
    batch: Arc<Batch>,
    bytes: usize,
    /// Tails that did not take it yet.
    waiting: usize,
}

impl Live {
    /// Tails that register before the first announcement start at `end`.
    pub(crate) fn new(end: Offset) -> Self {
        let state = State { end, open: true, tails: 0, kept: VecDeque::new(), kept_bytes: 0, first: 0 };
        Self(Arc::new(Inner { state: Mutex::new(state), changed: Notify::new() }))
    }

    /// The batch is durable and follows the last one announced. An empty batch is not announced.
    pub(crate) fn announce(&self, batch: Batch) {
        if batch.messages.is_empty() {
            return;
        }
        let mut state = self.0.state();
        state.end = batch.upto;
        if state.tails == 0 {
            return;
        }
        let bytes = batch.messages.iter().map(|message| message.bytes()).sum();
        let waiting = state.tails;
        state.kept.push_back(Kept { batch: Arc::new(batch), bytes, waiting });
        state.kept_bytes += bytes;
        while state.kept.len() > BATCHES_MAX || (state.kept_bytes > BYTES_MAX && state.kept.len() > 1) {
            state.drop_first();
        }
        drop(state);
        self.0.changed.notify_waiters();
    }

    /// Everything up to here is durable, and nobody is to hear of it: tails that register from now on start there.
    pub(crate) fn reached(&self, end: Offset) {
        let mut state = self.0.state();
        state.end = state.end.max(end);
    }

    /// The offset up to which was announced.
    pub(crate) fn end(&self) -> Offset {
        self.0.state().end
    }

    /// A tail of everything announced from now on; `None` after [`Live::close`].
    pub(crate) fn tail(&self) -> Option<Box<dyn Tail>> {
        // Under one lock with `announce`: no batch falls between the start and the first one taken.
        let mut state = self.0.state();
        if !state.open {
            return None;
        }
        state.tails += 1;
        Some(Box::new(LiveTail { start: state.end, next: state.next(), live: self.0.clone() }))
    }

    /// Ends every tail once it took what was announced.
    pub(crate) fn close(&self) {
        self.0.state().open = false;
        self.0.changed.notify_waiters();
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The number of the next batch to be announced.
    fn next(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    fn drop_first(&mut self) {
        if let Some(kept) = self.kept.pop_front() {
            self.kept_bytes -= kept.bytes;
            self.first += 1;
        }
    }

    fn drop_taken(&mut self) {
        while self.kept.front().is_some_and(|kept| kept.waiting == 0) {
            self.drop_first();
        }
    }
}

struct LiveTail {
    start: Offset,
    live: Arc<Inner>,
    /// The number of the batch it takes next.
    next: u64,
}

impl LiveTail {
    /// What is there for it now; `None`: nothing yet.
    fn take(&mut self) -> Option<Option<Result<Arc<Batch>, Lagged>>> {
        let state = &mut *self.live.state();
        if self.next < state.first {
            self.next = state.first;
            return Some(Some(Err(Lagged)));
        }
        let at = usize::try_from(self.next - state.first).unwrap_or(usize::MAX);
        match state.kept.get_mut(at) {
            Some(kept) => {
                kept.waiting -= 1;
                let batch = kept.batch.clone();
                self.next += 1;
                state.drop_taken();
                Some(Some(Ok(batch)))
            }
            None if state.open => None,
            None => Some(None),
        }
    }
}

impl Tail for LiveTail {
    fn start(&self) -> Offset {
        self.start
    }

    fn next(&mut self) -> BoxFuture<'_, Option<Result<Arc<Batch>, Lagged>>> {
        Box::pin(async {
            let live = self.live.clone();
            loop {
                // Made before the look: a change between the look and the wait ends the wait.
                let changed = live.changed.notified();
                if let Some(taken) = self.take() {
                    return taken;
                }
                changed.await;
            }
        })
    }
}

impl Drop for LiveTail {
    fn drop(&mut self) {
        let mut state = self.live.state();
        state.tails -= 1;
        let untaken = usize::try_from(self.next.saturating_sub(state.first)).unwrap_or(usize::MAX);
        state.kept.iter_mut().skip(untaken).for_each(|kept| kept.waiting -= 1);
        state.drop_taken();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use sluicebox_core::clock::Timestamp;
    use sluicebox_core::message::{Message, NewMessage};
    use sluicebox_core::topic::Topic;

    fn batch(offset: u64, body: Bytes) -> Batch {
        let new = NewMessage::new(Topic::parse("a").unwrap(), body);
        let message = Message::from_new(new, Offset(offset), Timestamp(0));
        Batch { messages: vec![Arc::new(message)], upto: Offset(offset) }
    }

    async fn next(tail: &mut Box<dyn Tail>) -> Option<Result<Offset, Lagged>> {
        tail.next().await.map(|next| next.map(|batch| batch.upto))
    }

    #[tokio::test]
    async fn a_batch_is_let_go_of_once_every_tail_took_it() {
        let live = Live::new(Offset::START);
        live.announce(batch(1, Bytes::new()));
        let (mut fast, slow) = (live.tail().unwrap(), live.tail().unwrap());
        assert_eq!(fast.start(), Offset(1));
        live.announce(batch(2, Bytes::new()));
        live.announce(batch(3, Bytes::new()));
        assert_eq!(next(&mut fast).await, Some(Ok(Offset(2))));
        assert_eq!(live.0.state().kept.len(), 2);
        drop(slow);
        assert_eq!(live.0.state().kept.len(), 1);
        assert_eq!(next(&mut fast).await, Some(Ok(Offset(3))));
        let state = live.0.state();
        assert_eq!((state.kept.len(), state.kept_bytes), (0, 0));
    }

    #[tokio::test]
    async fn bytes_and_batches_kept_for_a_slow_tail_are_bounded() {
        for body_bytes in [0, BYTES_MAX / 8] {
            let live = Live::new(Offset::START);
            let mut tail = live.tail().unwrap();
            let body = Bytes::from(vec![0; body_bytes]);
            for offset in 1..=BATCHES_MAX as u64 + 2 {
                live.announce(batch(offset, body.clone()));
            }
            assert!(live.0.state().kept_bytes <= BYTES_MAX);
            assert_eq!(next(&mut tail).await, Some(Err(Lagged)));
            let kept = live.0.state().kept.len() as u64;
            assert_eq!(next(&mut tail).await, Some(Ok(Offset(BATCHES_MAX as u64 + 2 - kept + 1))));
        }
    }

    #[tokio::test]
    async fn a_closed_log_ends_its_tails_after_what_was_announced() {
        let live = Live::new(Offset::START);
        let mut tail = live.tail().unwrap();
        live.announce(batch(1, Bytes::new()));
        live.close();
        assert_eq!(next(&mut tail).await, Some(Ok(Offset(1))));
        assert_eq!(next(&mut tail).await, None);
        assert!(live.tail().is_none());
    }
}
