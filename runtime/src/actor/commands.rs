//! What operators say: commands are read from the control topic, applied by the shard, and put in force on this host.

use super::Actor;
use crate::clock;
use crate::control::{Applied, Command, JOBS_MAX};
use crate::follow::LastPin;
use crate::log::Batch;
use crate::telemetry::events;
use std::time::Duration;

impl Actor<'_> {
    /// Reads what operators asked for, if there is news.
    pub(super) fn hear_commands(&mut self) {
        let (newest, known) = self.commands.take_newest();
        // With that many orders about dead letters under way the next one waits, and what was said after it.
        let full = self.shard.control().jobs.len() >= JOBS_MAX;
        self.heard |= newest <= self.shard.controlled() || full;
        if newest > self.shard.controlled() && !self.reads_commands && !full {
            self.reads_commands = true;
            self.reads.push(self.read_commands(known.max(newest), Duration::ZERO));
        }
    }

    pub(super) fn take_commands(&mut self, batch: Batch) {
        self.reads_commands = false;
        let super::Parts { gate, metrics, id, pins, .. } = self.parts;
        for message in &batch.messages {
            let command = Command::read(message);
            let order = matches!(command, Ok(Command::RetryDead { .. } | Command::DropDead { .. }));
            if order && self.shard.control().jobs.len() >= JOBS_MAX {
                return;
            }
            let applied = match command.clone() {
                Ok(command) => self.shard.command(message.offset, command, clock::steady()),
                Err(reason) => Applied::Refused(reason),
            };
            match (&applied, command) {
                (Applied::Done, Ok(Command::Trip)) => gate.trip(),
                (Applied::Done, Ok(Command::Reset)) => gate.reset(),
                (Applied::Done, Ok(command)) => {
                    if let Some(last) = LastPin::of(message.offset, &command) {
                        pins.note(&id.handler, last);
                    }
                }
                _ => {}
            }
            let refused = match &applied {
                Applied::Done => None,
                Applied::Refused(reason) => Some(reason.as_str()),
            };
            events::command(metrics, id, message.offset, refused);
        }
        self.shard.commands_reached(batch.upto);
    }
}
