//! Operator commands: messages on a control topic, which each shard of the handler applies in its own commit.
//!
//! A command is appended by a face to `_control.<handler>` and so has a place in the log like everything else. It does
//! not wait in line with the handler's messages (a handler that is paused or far behind must hear it all the same):
//! shards read their control topic beside their inbox, and their record says up to where every command is applied. What
//! is in force afterwards is the shard's [`Control`], part of its record, so it survives restarts and takeovers.
//!
//! Pure: who hears of commands is for others, and what to do about one is the shard's business.

use crate::commit::{Control, DeadAction, DeadFilter, DeadJob, Pin};
use crate::handler::HandlerName;
use crate::message::{Key, Message, NewMessage, Offset};
use crate::routing::reserved;
use serde::{Deserialize, Serialize};

/// Most keys paused at a time in one shard: pausing more is an outage of the handler, so pause that.
pub const PAUSED_KEYS_MAX: usize = 1000;
/// Most commands about dead letters under way at a time in one shard.
pub const JOBS_MAX: usize = 16;

/// What an operator asks of a handler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Runs nothing more until `resume`; what runs ends.
    Pause,
    Resume,
    /// The messages of this key wait.
    PauseKey {
        key: Key,
    },
    ResumeKey {
        key: Key,
    },
    /// Opens the breaker by hand: it stays open until `reset`.
    Trip,
    /// Closes the breaker.
    Reset,
    /// Dead letters go back to the end of their keys' lanes, attempts reset; or to another handler.
    RetryDead {
        filter: DeadFilter,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<HandlerName>,
    },
    /// Dead letters are deleted.
    DropDead {
        filter: DeadFilter,
    },
    /// Whatever waits for its retry is due at once; with a key or an offset only that. Attempts stay as they are.
    RetryNow {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<Key>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offset: Option<u64>,
    },
    /// A delayed message is deleted before it is due.
    CancelDelayed {
        shard: u16,
        number: u64,
        /// The message's id: numbers of messages that are gone may be given again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
    },
    /// Another module than the one in the file: an earlier one, or one that was deployed.
    Rollback {
        pin: Pin,
    },
    /// The module in the file again.
    Unpin,
}

/// What applying a command led to, beyond the changed [`Control`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    Done,
    /// A bound was reached or the text cannot be read: nothing changed.
    Refused(String),
}

impl Control {
    /// Takes a command in force. `offset` is its place in the log.
    pub fn apply(&mut self, offset: Offset, command: Command) -> Applied {
        match command {
            Command::Pause => self.paused = true,
            Command::Resume => self.paused = false,
            Command::PauseKey { key } => {
                if self.paused_keys.len() >= PAUSED_KEYS_MAX && !self.paused_keys.contains(&key) {
                    return Applied::Refused(format!(
                        "{PAUSED_KEYS_MAX} keys of this shard are paused: pause the handler"
                    ));
                }
                self.paused_keys.insert(key);
            }
            Command::ResumeKey { key } => {
                self.paused_keys.remove(&key);
            }
            Command::Trip => self.tripped = true,
            Command::Reset => self.tripped = false,
            Command::RetryDead { filter, to } => return self.take_job(offset, DeadAction::Retry, filter, to),
            Command::DropDead { filter } => return self.take_job(offset, DeadAction::Drop, filter, None),
            // About work, not about what is in force: the shard does it, and nothing of it is left to remember.
            Command::RetryNow { .. } | Command::CancelDelayed { .. } => {}
            Command::Rollback { pin } => (self.pin, self.pin_command) = (Some(pin), offset.0),
            Command::Unpin => (self.pin, self.pin_command) = (None, offset.0),
        }
        Applied::Done
    }

    fn take_job(&mut self, offset: Offset, action: DeadAction, filter: DeadFilter, to: Option<HandlerName>) -> Applied {
        if filter.upto.is_none() {
            // Letters that return and die again would be retried for ever.
            return Applied::Refused("it does not say up to which dead letter it goes".into());
        }
        if self.jobs.len() >= JOBS_MAX {
            return Applied::Refused(format!("{JOBS_MAX} commands about dead letters are under way: wait for them"));
        }
        self.jobs.push(DeadJob { command: offset.0, action, filter, to });
        Applied::Done
    }
}

impl Command {
    /// The message that brings the command to the handler's shards.
    pub fn message(&self, handler: &HandlerName) -> NewMessage {
        let body = serde_json::to_vec(self).expect("text, numbers and lists can always be written as JSON");
        NewMessage::new(reserved::control_topic(handler), body)
    }

    /// The command in a message of a control topic.
    pub fn read(message: &Message) -> Result<Self, String> {
        serde_json::from_slice(&message.body).map_err(|error| format!("the command cannot be read: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::commit::Over;
    use crate::handler::Digest;

    fn key(text: &str) -> Key {
        Key::parse(text).unwrap().unwrap()
    }

    #[test]
    fn commands_round_trip_through_the_log() {
        let handler = HandlerName::parse("order").unwrap();
        let digest = Digest::of(b"a");
        let filter = DeadFilter { kind: Some("trap".into()), numbers: vec![1, 2], upto: Some(9), ..Default::default() };
        for command in [
            Command::Pause,
            Command::PauseKey { key: key("ü") },
            Command::RetryDead { filter: filter.clone(), to: None },
            Command::RetryDead { filter, to: Some(HandlerName::parse("other").unwrap()) },
            Command::RetryNow { key: None, offset: None },
            Command::RetryNow { key: Some(key("k")), offset: Some(7) },
            Command::CancelDelayed { shard: 3, number: 17, id: Some("i".into()) },
            Command::Rollback { pin: Pin { digest, over: Over::File(Digest::of(b"b")) } },
            Command::Rollback { pin: Pin::deployed(digest) },
        ] {
            let message = Message::from_new(command.message(&handler), Offset(1), Timestamp(0));
            assert_eq!(message.topic.as_str(), "_control.order");
            assert_eq!(Command::read(&message).unwrap(), command);
        }
    }

    #[test]
    fn a_deployed_version_is_written_as_hosts_of_before_read_it() {
        let digest = Digest::of(b"a").to_string();
        let written = serde_json::json!({ "command": "rollback", "pin": { "digest": digest, "over": digest } });
        let deployed = Command::Rollback { pin: Pin::deployed(Digest::of(b"a")) };
        assert_eq!(serde_json::to_value(&deployed).unwrap(), written);
    }

    #[test]
    fn paused_keys_and_jobs_are_bounded() {
        let mut control = Control::default();
        for number in 0..PAUSED_KEYS_MAX {
            assert_eq!(control.apply(Offset(1), Command::PauseKey { key: key(&number.to_string()) }), Applied::Done);
        }
        assert!(matches!(control.apply(Offset(1), Command::PauseKey { key: key("more") }), Applied::Refused(_)));
        let unbounded = Command::DropDead { filter: DeadFilter::default() };
        assert!(matches!(control.apply(Offset(1), unbounded), Applied::Refused(_)));
        let drop = || Command::DropDead { filter: DeadFilter { upto: Some(9), ..DeadFilter::default() } };
        (0..JOBS_MAX).for_each(|_| assert_eq!(control.apply(Offset(1), drop()), Applied::Done));
        assert!(matches!(control.apply(Offset(1), drop()), Applied::Refused(_)));
    }
}
