//! What operators ask of a shard: pauses, and dead letters that return or go.

use super::lanes::Phase;
use super::{Offset, Shard};
use crate::commit::{Control, DeadAction, DeadFilter, DeadOrder, DeadQuery, NumberedDeadLetter};
use crate::control::{Applied, Command};
use crate::message::Key;
use crate::routing::Routing;
use crate::routing::reserved;

/// Dead letters taken up at a time, and bytes of them: they are in one commit.
const LETTERS_MAX: usize = 256;
const LETTER_BYTES_MAX: usize = 2 * 1024 * 1024;

impl Shard {
    /// What operators asked for, with all commands taken so far.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Every command up to here is applied.
    pub fn controlled(&self) -> Offset {
        self.controlled
    }

    /// Takes a command in force; those at or before [`Shard::controlled`] are already. The answer says whether it was
    /// possible; either way it is never asked again.
    pub fn command(&mut self, offset: Offset, command: Command) -> Applied {
        if offset <= self.controlled {
            return Applied::Done;
        }
        self.controlled = offset;
        if let Command::PauseKey { key } | Command::ResumeKey { key } = &command
            && !self.owns(key)
        {
            return Applied::Done;
        }
        let resumed = match &command {
            Command::ResumeKey { key } => Some(key.clone()),
            _ => None,
        };
        let applied = self.control.apply(offset, command);
        self.control_changed |= applied == Applied::Done;
        if let Some(key) = resumed {
            self.resume_key(&key);
        }
        applied
    }

    /// There is no other command up to here.
    pub fn commands_reached(&mut self, upto: Offset) {
        self.controlled = self.controlled.max(upto);
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
        // Not while the culprit of a refused commit is looked for: one message per commit then.
        if self.job_reads || self.staged.is_full() || self.caution.upto > Offset::START {
            return None;
        }
        let job = self.control.jobs.first()?;
        self.job_reads = true;
        Some(DeadQuery {
            filter: DeadFilter {
                handler: Some(self.setup.id.handler.clone()),
                shard: Some(self.setup.id.index),
                ..job.filter.clone()
            },
            order: DeadOrder::Oldest { above: self.job_above },
            letters_max: LETTERS_MAX,
            bytes_max: LETTER_BYTES_MAX,
        })
    }

    /// Takes the dead letters that were asked for; none: the command is done.
    pub fn dead_found(&mut self, letters: Vec<NumberedDeadLetter>) {
        self.job_reads = false;
        let Some(job) = self.control.jobs.first() else { return };
        if letters.is_empty() {
            self.control.jobs.remove(0);
            (self.control_changed, self.job_above) = (true, 0);
            return;
        }
        let action = job.action;
        for NumberedDeadLetter { number, letter } in letters {
            self.job_above = self.job_above.max(number);
            if !self.removing.insert(number) {
                continue;
            }
            // At the end of the log, and so of its key's lane, in the order in which the letters died.
            let returns = (action == DeadAction::Retry).then(|| reserved::returned(&letter));
            self.staged.remove_dead(number, returns);
        }
    }
}
