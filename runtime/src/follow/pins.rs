//! What operators went back to, as far as this host knows: told by the tail, by its shards and by records of the log, in
//! whatever order. The newest command of a handler counts.

use super::{MISSED_BYTES_MAX, MISSED_MESSAGES_MAX, commanded};
use crate::commit::Pin;
use crate::control::Command;
use crate::handler::HandlerName;
use crate::log::{Log, LogError, ReadRequest};
use crate::message::Offset;
use crate::routing::reserved::control_topic;
use crate::topic::Pattern;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// The pins that are in force, by handler. Cheap to clone.
#[derive(Clone, Default)]
pub struct Pins {
    /// By handler the newest command that was noted.
    newest: Arc<Mutex<HashMap<HandlerName, Offset>>>,
    in_force: watch::Sender<BTreeMap<HandlerName, Pin>>,
}

/// What the newest command about a handler's version said, if there was one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastPin {
    /// The command's.
    pub offset: Offset,
    /// `None`: the version in the file.
    pub pin: Option<Pin>,
}

impl Pins {
    pub fn subscribe(&self) -> watch::Receiver<BTreeMap<HandlerName, Pin>> {
        self.in_force.subscribe()
    }

    /// Takes it in force unless something newer is known.
    pub fn note(&self, handler: &HandlerName, LastPin { offset, pin }: LastPin) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.get(handler).is_some_and(|newest| *newest >= offset) {
            return;
        }
        newest.insert(handler.clone(), offset);
        // Under the lock, or an older one could come last.
        self.in_force.send_if_modified(|pins| match pin {
            Some(pin) => pins.insert(handler.clone(), pin) != Some(pin),
            None => pins.remove(handler).is_some(),
        });
    }

    /// The handler is gone.
    pub fn forget(&self, handler: &HandlerName) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.remove(handler);
        self.in_force.send_if_modified(|pins| pins.remove(handler).is_some());
    }
}

impl LastPin {
    /// What a command says of the version; `None`: nothing.
    pub fn of(offset: Offset, command: &Command) -> Option<Self> {
        match command {
            Command::Rollback { pin } => Some(Self { offset, pin: Some(*pin) }),
            Command::Unpin => Some(Self { offset, pin: None }),
            _ => None,
        }
    }

    /// As the log has it: by handler what the shard wrote down that heard the newest command, of whatever host, unless there are
    /// newer commands that no shard has written down yet. A host that was killed right after it took one must not begin with
    /// the version of before. `runs`: of which handlers the newer commands matter; what others wrote down may be long ago.
    pub async fn recorded(
        log: &dyn Log,
        runs: impl Fn(&HandlerName) -> bool,
    ) -> Result<BTreeMap<HandlerName, Self>, LogError> {
        let mut recorded = BTreeMap::<HandlerName, (u16, Self)>::new();
        let mut applied = BTreeMap::<HandlerName, Offset>::new();
        for status in log.status().await? {
            let (control, index) = (status.control, status.shard.index);
            // The host's own have no versions.
            if runs(&status.shard.handler) && !status.shard.handler.is_reserved() {
                let upto = applied.entry(status.shard.handler.clone()).or_default();
                *upto = status.controlled.max(*upto);
            }
            let this = Self { offset: Offset(control.pin_command), pin: control.pin };
            let known = recorded.entry(status.shard.handler).or_insert((index, this));
            // Records of earlier versions do not say which is newer: there the first shard's word counted.
            if this.offset > known.1.offset || (this.offset == known.1.offset && index < known.0) {
                *known = (index, this);
            }
        }
        let mut newest = recorded.into_iter().map(|(handler, (_, last))| (handler, last)).collect();
        Self::read_on(log, &applied, &mut newest).await?;
        Ok(newest)
    }

    /// Takes what commands say that come after those that were applied. What is appended meanwhile is heard in the tail: under
    /// steady traffic the end would never be reached.
    async fn read_on(
        log: &dyn Log,
        applied: &BTreeMap<HandlerName, Offset>,
        newest: &mut BTreeMap<HandlerName, Self>,
    ) -> Result<(), LogError> {
        let Some(mut after) = applied.values().min().copied() else { return Ok(()) };
        let patterns: Vec<Pattern> = applied.keys().map(|handler| Pattern::from(&control_topic(handler))).collect();
        let upto = log.end().await?;
        while after < upto {
            let (messages_max, bytes_max) = (MISSED_MESSAGES_MAX, MISSED_BYTES_MAX);
            let request = ReadRequest { after, upto, patterns: patterns.clone(), messages_max, bytes_max };
            let batch = log.read(request).await?;
            for message in &batch.messages {
                let Some(handler) = commanded(message) else { continue };
                if applied.get(&handler).is_none_or(|applied| message.offset <= *applied) {
                    continue;
                }
                if let Some(last) = Command::read(message).ok().and_then(|command| Self::of(message.offset, &command)) {
                    newest.insert(handler, last);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::Over;
    use crate::handler::Digest;

    #[test]
    fn the_newest_command_counts_in_whatever_order_they_are_heard() {
        let (pins, handler) = (Pins::default(), HandlerName::parse("order").unwrap());
        let pin =
            |version: &str| Some(Pin { digest: Digest::of(version.as_bytes()), over: Over::File(Digest::of(b"file")) });
        let in_force = pins.subscribe();
        let check = |offset, noted, expected: Option<Pin>| {
            pins.note(&handler, LastPin { offset: Offset(offset), pin: noted });
            assert_eq!(in_force.borrow().get(&handler).copied(), expected, "after {offset}");
        };
        check(0, pin("a"), pin("a"));
        check(5, pin("b"), pin("b"));
        check(3, None, pin("b"));
        check(7, None, None);
        check(5, pin("b"), None);
        // Another handler of this name.
        pins.forget(&handler);
        check(1, pin("c"), pin("c"));
    }
}
