//! Hears of commands: one task per host looks through the tail and tells the shards that there is something to read.
//!
//! It only says "there is a command up to here"; each shard reads the commands itself, from what its record says, so a
//! hint that comes twice or a tail that fell behind costs a read and nothing else.

use crate::handler::HandlerName;
use crate::log::{Log, LogError, Tail};
use crate::message::Offset;
use crate::routing::reserved::CONTROL_TOKEN;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The follower's handle; when it is dropped the task ends.
pub struct Follower {
    shared: Arc<Shared>,
    _stop: DropGuard,
}

struct Shared {
    known: Arc<AtomicU64>,
    handlers: Mutex<HashMap<HandlerName, watch::Sender<Offset>>>,
}

/// What a shard asks before it writes and while it waits.
#[derive(Clone)]
pub struct Commands {
    known: Arc<AtomicU64>,
    last: watch::Receiver<Offset>,
}

impl Follower {
    /// Opens a tail and follows it.
    pub async fn start(log: &Arc<dyn Log>) -> Result<Self, LogError> {
        let tail = log.tail().await?;
        let known = Arc::new(AtomicU64::new(tail.start().0));
        let shared = Arc::new(Shared { known, handlers: Mutex::default() });
        let stop = CancellationToken::new();
        tokio::spawn(follow(shared.clone(), tail, stop.clone()));
        Ok(Self { shared, _stop: stop.drop_guard() })
    }

    /// What a handler's shards watch.
    pub fn commands(&self, handler: &HandlerName) -> Commands {
        let mut handlers = self.shared.handlers();
        // Before the tail began there may be commands for it: a shard that is not as far reads once.
        let begun = || watch::Sender::new(Offset(self.shared.known.load(Ordering::Acquire)));
        let last = handlers.entry(handler.clone()).or_insert_with(begun).subscribe();
        Commands { known: self.shared.known.clone(), last }
    }

    /// The handler is gone.
    pub fn forget(&self, handler: &HandlerName) {
        self.shared.handlers().remove(handler);
    }
}

impl Shared {
    fn handlers(&self) -> MutexGuard<'_, HashMap<HandlerName, watch::Sender<Offset>>> {
        self.handlers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, handler: &str, offset: Offset) {
        let Ok(handler) = HandlerName::parse(handler) else { return };
        if let Some(last) = self.handlers().get(&handler) {
            last.send_replace(offset);
        }
    }
}

impl Commands {
    /// The newest command for the handler is not after the first offset (there may be none); up to the second it is known
    /// that there is no other.
    pub fn newest(&mut self) -> (Offset, Offset) {
        // First, so that a command between the two questions is not taken for none.
        let known = Offset(self.known.load(Ordering::Acquire));
        (*self.last.borrow_and_update(), known)
    }

    /// Ends when there is another command; never when the follower is gone. Safe to cancel.
    pub async fn changed(&mut self) {
        if self.last.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

async fn follow(shared: Arc<Shared>, mut tail: Box<dyn Tail>, stop: CancellationToken) {
    // What was missed is not known, so at the next batch, which says how far the log is, every shard has to look. It may
    // fall behind again before that.
    let mut missed = false;
    loop {
        let next = tokio::select! {
            // Safe to cancel: a token stays cancelled.
            () = stop.cancelled() => return,
            // Safe to cancel: the tail promises it.
            next = tail.next() => next,
        };
        match next {
            None => return,
            Some(Ok(batch)) => {
                for message in &batch.messages {
                    let mut tokens = message.topic.tokens();
                    if message.topic.is_reserved()
                        && tokens.next() == Some(CONTROL_TOKEN)
                        && let Some(handler) = tokens.next()
                    {
                        shared.tell(handler, message.offset);
                    }
                }
                if std::mem::take(&mut missed) {
                    shared.handlers().values().for_each(|last| {
                        last.send_replace(batch.upto);
                    });
                }
                shared.known.store(batch.upto.0, Ordering::Release);
            }
            Some(Err(_)) => missed = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Batch, Lagged};
    use futures_util::future::BoxFuture;
    use std::collections::VecDeque;
    use std::time::Duration;

    /// A tail that says these things and then nothing.
    struct Script(VecDeque<Result<Arc<Batch>, Lagged>>);

    impl Tail for Script {
        fn start(&self) -> Offset {
            Offset::START
        }

        fn next(&mut self) -> BoxFuture<'_, Option<Result<Arc<Batch>, Lagged>>> {
            match self.0.pop_front() {
                Some(said) => Box::pin(std::future::ready(Some(said))),
                None => Box::pin(std::future::pending()),
            }
        }
    }

    #[tokio::test]
    async fn a_tail_that_falls_behind_twice_makes_every_shard_look() {
        let batch = Arc::new(Batch { messages: vec![], upto: Offset(9) });
        let tail = Script([Err(Lagged), Err(Lagged), Ok(batch)].into());
        let shared = Arc::new(Shared { known: Arc::default(), handlers: Mutex::default() });
        let handler = HandlerName::parse("order").unwrap();
        let last = shared.handlers().entry(handler).or_insert_with(|| watch::Sender::new(Offset::START)).subscribe();
        let mut commands = Commands { known: shared.known.clone(), last };
        let stop = CancellationToken::new();
        let _ends = stop.clone().drop_guard();
        tokio::spawn(follow(shared, Box::new(tail), stop));
        tokio::time::timeout(Duration::from_secs(30), commands.changed()).await.unwrap();
        assert_eq!(commands.newest().0, Offset(9), "up to there a command may have been missed");
    }
}
