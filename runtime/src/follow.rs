//! Hears of commands: one task per host looks through the tail and tells the shards that there is something to read.
//!
//! It only says "there is a command up to here"; each shard reads the commands itself, from what its record says, so a
//! hint that comes twice or a tail that fell behind costs a read and nothing else. What concerns the host, also where it
//! has no shard of the handler, it takes from the commands itself: the version to run.

mod pins;

pub use self::pins::{LastPin, Pins};

use crate::control::Command;
use crate::handler::HandlerName;
use crate::log::{Log, LogError, ReadRequest, Tail};
use crate::message::{Message, Offset};
use crate::routing::reserved::{CONTROL_TOKEN, control_topic};
use crate::topic::Pattern;
use crate::vital::Vital;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// One read of what a tail that fell behind did not tell.
const MISSED_MESSAGES_MAX: usize = 256;
const MISSED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The follower's handle; when it is dropped the task ends.
pub struct Follower {
    followed: Arc<Followed>,
    vital: Vital,
    _stop: DropGuard,
}

struct Followed {
    known: Arc<AtomicU64>,
    handlers: Mutex<BTreeMap<HandlerName, watch::Sender<Offset>>>,
    pins: Pins,
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
        let followed = Arc::new(Followed { known, handlers: Mutex::default(), pins: Pins::default() });
        let stop = CancellationToken::new();
        let vital = Vital::default();
        let task = follow(followed.clone(), log.clone(), tail, vital.clone(), stop.clone());
        tokio::spawn(vital.guard("the follower of commands", task));
        Ok(Self { followed, vital, _stop: stop.drop_guard() })
    }

    /// What a handler's shards watch.
    pub fn commands(&self, handler: &HandlerName) -> Commands {
        let mut handlers = self.followed.handlers();
        // Before the tail began there may be commands for it: a shard that is not as far reads once.
        let begun = || watch::Sender::new(Offset(self.followed.known.load(Ordering::Acquire)));
        let last = handlers.entry(handler.clone()).or_insert_with(begun).subscribe();
        Commands { known: self.followed.known.clone(), last }
    }

    /// What operators went back to, of the handlers whose commands are asked for.
    pub fn pins(&self) -> &Pins {
        &self.followed.pins
    }

    /// Ends when its task panicked or the tail ended, with the reason: from then on commands are not heard.
    pub async fn failed(&self) -> String {
        self.vital.failed().await
    }

    /// The handler is gone.
    pub fn forget(&self, handler: &HandlerName) {
        self.followed.handlers().remove(handler);
        self.followed.pins.forget(handler);
    }
}

impl Followed {
    fn handlers(&self) -> MutexGuard<'_, BTreeMap<HandlerName, watch::Sender<Offset>>> {
        self.handlers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a command out of the tail.
    fn hear(&self, message: &Message) {
        let Some(handler) = self.commanded(message) else { return };
        if let Some(last) = self.handlers().get(&handler) {
            last.send_replace(message.offset);
        }
        self.note(&handler, message);
    }

    /// The handler that a message is a command for, if it is followed.
    fn commanded(&self, message: &Message) -> Option<HandlerName> {
        commanded(message).filter(|handler| self.handlers().contains_key(handler))
    }

    fn note(&self, handler: &HandlerName, message: &Message) {
        // What cannot be read the shards refuse, and say so.
        if let Some(last) = Command::read(message).ok().and_then(|command| LastPin::of(message.offset, &command)) {
            self.pins.note(handler, last);
        }
    }

    /// Reads the commands that the tail did not tell.
    async fn read_missed(&self, log: &dyn Log, mut after: Offset, upto: Offset) -> Result<(), LogError> {
        let patterns: Vec<Pattern> =
            self.handlers().keys().map(|handler| Pattern::from(&control_topic(handler))).collect();
        // No pattern would be every topic.
        while after < upto && !patterns.is_empty() {
            let (patterns, messages_max, bytes_max) = (patterns.clone(), MISSED_MESSAGES_MAX, MISSED_BYTES_MAX);
            let batch = log.read(ReadRequest { after, upto, patterns, messages_max, bytes_max }).await?;
            for message in &batch.messages {
                if let Some(handler) = self.commanded(message) {
                    self.note(&handler, message);
                }
            }
            if batch.upto <= after {
                break;
            }
            after = batch.upto;
        }
        Ok(())
    }
}

impl Commands {
    /// The newest command for the handler is not after the first offset (there may be none); up to the second it is known
    /// that there is no other. Whoever asks reads what is new: [`Commands::changed`] tells of later ones only.
    pub fn take_newest(&mut self) -> (Offset, Offset) {
        let newest = self.newest();
        (*self.last.borrow_and_update(), newest.1)
    }

    /// As [`Commands::take_newest`], for who does not read it now: [`Commands::changed`] tells of it all the same.
    pub fn newest(&self) -> (Offset, Offset) {
        // First, so that a command between the two questions is not taken for none.
        let known = Offset(self.known.load(Ordering::Acquire));
        (*self.last.borrow(), known)
    }

    /// Ends when there is another command; never when the follower is gone. Safe to cancel.
    pub async fn changed(&mut self) {
        if self.last.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// The handler that a message is a command for.
fn commanded(message: &Message) -> Option<HandlerName> {
    let mut tokens = message.topic.tokens();
    let is_command = message.topic.is_reserved() && tokens.next() == Some(CONTROL_TOKEN);
    HandlerName::parse(tokens.next().filter(|_| is_command)?).ok()
}

async fn follow(
    followed: Arc<Followed>,
    log: Arc<dyn Log>,
    mut tail: Box<dyn Tail>,
    vital: Vital,
    stop: CancellationToken,
) {
    // What was missed is not known, so at the next batch, which says how far the log is, every shard has to look, and the
    // commands since the last batch are read. The tail may fall behind again before that.
    let mut missed_after = None;
    let mut heard_upto = tail.start();
    loop {
        let next = tokio::select! {
            biased;
            // Safe to cancel: a token stays cancelled.
            () = stop.cancelled() => return,
            // Safe to cancel: the tail promises it.
            next = tail.next() => next,
        };
        match next {
            None => return vital.tell("the log closed its tail: no more commands are heard".into()),
            Some(Ok(batch)) => {
                batch.messages.iter().for_each(|message| followed.hear(message));
                heard_upto = batch.upto;
                if missed_after.is_some() {
                    followed.handlers().values().for_each(|last| {
                        last.send_replace(batch.upto);
                    });
                }
                followed.known.store(batch.upto.0, Ordering::Release);
                if let Some(after) = missed_after {
                    // A read holds nothing, so it may be dropped.
                    let read = stop.run_until_cancelled(followed.read_missed(&*log, after, batch.upto)).await;
                    match read {
                        Some(Err(error)) => tracing::warn!(%error, "failed to read missed commands, trying again"),
                        _ => missed_after = None,
                    }
                }
            }
            Some(Err(_)) => missed_after = missed_after.or(Some(heard_upto)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::{Over, Pin};
    use crate::handler::Digest;
    use crate::log::memory::MemoryLog;
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

    fn name() -> HandlerName {
        HandlerName::parse("order").unwrap()
    }

    /// A follower of one handler that hears what the tail says; it ends with the guard.
    fn followed(log: Arc<dyn Log>, tail: impl Into<VecDeque<Result<Arc<Batch>, Lagged>>>) -> (Follower, Commands) {
        let followed = Arc::new(Followed { known: Arc::default(), handlers: Mutex::default(), pins: Pins::default() });
        let stop = CancellationToken::new();
        let vital = Vital::default();
        let follower = Follower { followed: followed.clone(), vital: vital.clone(), _stop: stop.clone().drop_guard() };
        let commands = follower.commands(&name());
        tokio::spawn(follow(followed, log, Box::new(Script(tail.into())), vital, stop));
        (follower, commands)
    }

    #[tokio::test]
    async fn a_tail_that_falls_behind_twice_makes_every_shard_look() {
        let batch = Arc::new(Batch { messages: vec![], upto: Offset(9) });
        let (_ends, mut commands) = followed(Arc::new(MemoryLog::new()), [Err(Lagged), Err(Lagged), Ok(batch)]);
        tokio::time::timeout(Duration::from_secs(30), commands.changed()).await.unwrap();
        assert_eq!(commands.take_newest().0, Offset(9), "up to there a command may have been missed");
    }

    #[tokio::test]
    async fn a_rollback_that_the_tail_did_not_tell_is_heard_all_the_same() {
        let pin = Pin { digest: Digest::of(b"old"), over: Over::File(Digest::of(b"new")) };
        let log = Arc::new(MemoryLog::new());
        let offsets = log.append(vec![Command::Rollback { pin }.message(&name())]).await.unwrap();
        let batch = Arc::new(Batch { messages: vec![], upto: offsets[0] });
        let (follower, _commands) = followed(log, [Err(Lagged), Ok(batch)]);
        let mut pins = follower.pins().subscribe();
        let told = pins.wait_for(|pins| pins.get(&name()) == Some(&pin));
        tokio::time::timeout(Duration::from_secs(30), told).await.unwrap().unwrap();
    }
}
