//! What operators ask of a shard: pauses, and dead letters that return or go.

use super::lanes::Phase;
use super::orders::LETTERS_MAX;
use super::{Offset, Shard};
use crate::clock::Timestamp;
use crate::commit::{Control, DeadQuery, NumberedDeadLetter};
use crate::control::{Applied, Command};
use crate::message::Key;
use crate::routing::Routing;

impl Shard {
    /// What operators asked for, with all commands taken so far.
    pub fn control(&self) -> &Control {
        self.orders.control()
    }

    /// Every command up to here is applied.
    pub fn controlled(&self) -> Offset {
        self.position.controlled()
    }

    /// Takes a command in force; those at or before [`Shard::controlled`] are already. The answer says whether it was
    /// possible; either way it is never asked again.
    pub fn command(&mut self, offset: Offset, command: Command, now: Timestamp) -> Applied {
        if offset <= self.position.controlled() {
            return Applied::Done;
        }
        self.position.control_to(offset);
        if let Command::PauseKey { key } | Command::ResumeKey { key } = &command
            && !self.owns(key)
        {
            return Applied::Done;
        }
        if let Command::RetryDead { filter, .. } | Command::DropDead { filter } = &command
            && filter.shard.is_some_and(|shard| shard != self.setup.id.index)
        {
            return Applied::Done;
        }
        let applied = self.orders.apply(offset, command.clone());
        match command {
            Command::ResumeKey { key } => self.resume_key(&key),
            Command::RetryNow { key, offset } => self.retry_now(key.as_ref(), offset.map(Offset), now),
            // One that was due already is in the log, or in the commit to come.
            Command::CancelDelayed { shard, number, id }
                if shard == self.setup.id.index && self.delayed.cancel(number, id.as_deref()) =>
            {
                self.staged.drop_delayed(number);
            }
            _ => {}
        }
        applied
    }

    /// There is no other command up to here.
    pub fn commands_reached(&mut self, upto: Offset) {
        self.position.control_to(upto);
    }

    fn owns(&self, key: &Key) -> bool {
        self.setup.routing.shard_of(key) == self.setup.id.index
    }

    fn resume_key(&mut self, key: &Key) {
        let hash = Routing::lane_hash(Some(key), Offset::START);
        let Some(at) = self.lanes.find(hash, key) else { return };
        if let Some(lane) = self.lanes.get_mut(at).filter(|lane| lane.phase == Phase::Paused) {
            lane.phase = Phase::Empty;
            self.resume(at);
        }
    }

    /// The dead letters that the oldest command under way is about and that were not yet taken up.
    pub(super) fn next_dead_letters(&mut self) -> Option<DeadQuery> {
        if self.staged.is_full() || (self.caution.is_on() && !self.is_idle()) {
            return None;
        }
        // While the culprit of a refused commit is looked for, one letter or one message per commit.
        let letters_max = if self.caution.is_on() { 1 } else { LETTERS_MAX };
        self.orders.next_letters(&self.setup.id, letters_max)
    }

    /// Takes the dead letters that were asked for; none: the command is done.
    pub fn dead_found(&mut self, letters: Vec<NumberedDeadLetter>) {
        if self.caution.is_on() && !self.is_idle() {
            return self.orders.put_off();
        }
        for (number, returns) in self.orders.found(letters, &self.caution.letters) {
            self.staged.remove_dead(number, returns);
        }
    }
}
