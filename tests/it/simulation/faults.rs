//! What becomes of commits: taken, refused, of unknown fate, torn, late; and what dies around them.

use super::Bug;
use super::outcome::is_done;
use super::world::World;
use rand::RngExt;
use sluicebox::commit::{CommitError, DeadFilter, DeadQuery, ShardCommit};
use sluicebox::message::Offset;
use sluicebox::routing::reserved::OFFSET_HEADER;
use sluicebox::shard::Caution;

impl World {
    pub fn write(&mut self, mut commit: ShardCommit) -> Result<(), CommitError> {
        if commit.outputs.iter().any(|output| output.topic.as_str() == "boom") {
            return Err(CommitError::Refused { shard: commit.shard, reason: "boom".into() });
        }
        if self.bug == Some(Bug::SkipTheFence) {
            // What a log would do that does not compare terms: it writes under whatever is in force.
            let held = self.log.status().into_iter().find(|status| status.shard == commit.shard).unwrap();
            (commit.term, commit.number) = (held.term, held.commit_number + 1);
        }
        if self.bug == Some(Bug::RetriedAndLost) {
            commit.outputs.retain(|output| output.headers.get(OFFSET_HEADER).is_none());
        }
        let (shard, dropped) = (commit.shard.clone(), commit.dead_drop.clone());
        let letters = self
            .log
            .dead(&DeadQuery::newest(DeadFilter { numbers: dropped.clone(), ..Default::default() }, usize::MAX));
        let returned = commit.outputs.iter().filter(|output| output.headers.get(OFFSET_HEADER).is_some()).count();
        let answer = self.log.commit(commit, self.log_clock).map(drop);
        if answer.is_ok() && !dropped.is_empty() {
            assert!(returned <= dropped.len(), "more letters return than go");
            self.removed.extend(letters.into_iter().map(|dead| (shard.handler.clone(), dead.letter.message.offset)));
        }
        self.archive();
        answer
    }

    pub fn answer_commit(&mut self, at: usize) {
        let Some(commit) = self.instances[at].commit.take() else { return };
        if self.fault(0.05) {
            // Not taken: the same commit may be tried again, or the shard claimed.
            match self.chance(0.5) {
                true => self.instances[at].commit = Some(commit),
                false => self.reclaim(at, Caution::default()),
            }
            return;
        }
        if self.fault(0.15) {
            self.unknown_fate(at, commit);
            return;
        }
        match self.write(commit) {
            Ok(()) => self.committed(at),
            Err(CommitError::Refused { reason, .. }) => {
                let caution = self.instances[at].shard.caution_after_refusal(&reason);
                self.reclaim(at, caution);
            }
            Err(_) => self.reclaim(at, Caution::default()),
        }
    }

    pub fn committed(&mut self, at: usize) {
        let instance = &mut self.instances[at];
        let report = instance.shard.committed();
        if self.bug != Some(Bug::CountBeforeCommit) {
            self.counted += report.counts.iter().map(|(_, by)| by).sum::<u64>();
        }
        assert!(report.settled.iter().all(|(topic, _)| topic.as_str() != "boom"));
        let shown: Vec<_> = instance
            .committing
            .drain(..)
            .map(|source| (source, is_done(&self.archive, source, instance.shard.id())))
            .collect();
        self.shown.extend(shown);
    }

    pub fn unknown_fate(&mut self, at: usize, commit: ShardCommit) {
        let written = self.chance(0.5);
        let late = !written && self.chance(0.5);
        if written {
            let _ = self.write(commit.clone());
        } else if late {
            self.late.push(commit.clone());
        } else {
            self.torn(commit.clone());
        }
        match self.bug {
            Some(Bug::UnknownTakenAsDone) => self.committed(at),
            Some(Bug::UnknownTakenAsFailed) => {
                self.reclaim(at, Caution::default());
                let held = self.log.status().into_iter().find(|status| status.shard == commit.shard).unwrap();
                let again = ShardCommit { term: held.term, number: held.commit_number + 1, ..commit };
                let _ = self.write(again);
                self.reclaim(at, Caution::default());
            }
            _ => self.reclaim(at, Caution::default()),
        }
    }

    /// What a log without atomic commits would leave of a commit that was cut off.
    pub fn torn(&mut self, commit: ShardCommit) {
        let torn = match self.bug {
            Some(Bug::MarkBeforeCommit) => ShardCommit { outputs: vec![], state: vec![], ..commit },
            Some(Bug::EffectsBeforeMark) => {
                ShardCommit { marks: vec![], open_put: vec![], open_drop: vec![], read: Offset::START, ..commit }
            }
            _ => return,
        };
        let _ = self.write(torn);
    }

    /// The host dies: its commits in flight were written, are lost, or arrive late.
    pub fn crash(&mut self) {
        self.die();
        self.start_again();
    }

    pub fn die(&mut self) {
        for at in 0..self.instances.len() {
            if let Some(commit) = self.instances[at].commit.take() {
                match self.rng.random_range(0..3) {
                    0 => drop(self.write(commit)),
                    1 => self.late.push(commit),
                    _ => self.torn(commit),
                }
            }
        }
    }

    pub fn start_again(&mut self) {
        for at in 0..self.instances.len() {
            self.reclaim(at, Caution::default());
        }
    }

    /// Another host claims a shard while the first goes on with it.
    pub fn takeover(&mut self) {
        let at = self.rng.random_range(0..self.setups.len());
        let setup = self.setups[at].clone();
        let instance = self.claim(setup, Caution::default());
        self.instances.push(instance);
    }
}
