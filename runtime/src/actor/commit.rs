//! Commits: one under way at a time; what it did is counted when it is durable.

use super::Actor;
use crate::clock;
use crate::commit::{CommitError, Committed};
use crate::shard::Report;
use crate::telemetry::{events, spans};
use futures_util::FutureExt;
use tracing::Instrument as _;

impl Actor<'_> {
    pub(super) fn send_commit(&mut self) {
        if self.commit.is_some() {
            return;
        }
        let (newest, known) = self.commands.newest();
        if newest <= self.shard.controlled() {
            self.shard.commands_reached(known);
        }
        let Some(commit) = self.shard.stage() else { return };
        self.commit_began = clock::instant();
        let committer = self.parts.committer.clone();
        let span = spans::commit(&commit);
        self.commit = Some(async move { committer.commit(commit).await }.instrument(span).boxed());
    }

    pub(super) fn committed(&mut self, result: Result<Committed, CommitError>) -> Result<(), CommitError> {
        self.commit = None;
        events::commit_answered(&self.parts.commit_metrics, &result);
        let committed = result?;
        self.progressed = true;
        let report = self.shard.committed();
        self.count(report, committed);
        Ok(())
    }

    /// Counts what a commit did, now that it is durable: an aborted run counts nothing.
    fn count(&mut self, report: Report, committed: Committed) {
        let metrics = &self.parts.metrics;
        report.settled.iter().for_each(|(topic, counts)| self.staged_counts.messages(topic, counts));
        report.counts.iter().for_each(|(name, by)| self.staged_counts.guest(name, *by));
        self.staged_counts.count();
        report.traced.iter().for_each(|traced| events::traced(&self.parts.id, traced));
        report.dead.iter().for_each(|letter| events::dead_letter(metrics, letter));
        let dead_bytes = report.dead.iter().map(|letter| (letter.message.bytes() + letter.error.len()) as u64).sum();
        self.parts.gate.dead_grew(dead_bytes);
        // One that took the place of another left the box as full as it was.
        let added = (report.dead.len() as u64).saturating_sub(committed.dead_joined);
        self.parts.gate.dead_changed(added, report.dead_removed);
        if let Some(oldest) = report.oldest {
            metrics.settled_after(clock::steady().since(oldest));
        }
        if report.marks_evicted > 0 {
            events::marks_evicted(metrics, report.marks_evicted);
        }
        self.parts.commit_metrics.observe(self.commit_began.elapsed(), report.settled.len());
        let shard = &self.shard;
        self.gauges.show([shard.open_len(), shard.marks_len(), shard.delayed().messages, self.queue.len()]);
    }
}
