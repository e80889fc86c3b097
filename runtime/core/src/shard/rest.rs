//! A handler that runs nothing for a while keeps no messages in memory: others need it, and the log has them.

use super::Shard;
use super::items::Item;
use super::lanes::{Lane, Phase};

/// What a shard at rest keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    Nothing,
    /// One message that never failed, if there is one: the first to be tried when a breaker lets something through. Or one
    /// that was asked for and waits for the state of its key.
    FirstTry,
}

impl Shard {
    /// Little or nothing runs for a while, until the next [`Shard::allow`]: whatever waits gives its memory back, but for
    /// runs under way and what is not in the log. Heads keep their place and attempts, the rest of a lane becomes "more in
    /// the log". Messages are fetched one at a time, those of lanes when runs are asked for. What was asked for before still
    /// comes, and so do skipped messages that are due, which go back to their lanes by it: each is given back in turn.
    pub fn rest(&mut self, keep: Keep) {
        self.held.rest();
        if !self.held.keeps_more_than(keep) {
            return;
        }
        let kept = if keep == Keep::FirstTry { self.keep_first_try() } else { None };
        let shed = |(at, lane): (usize, &mut Lane)| match lane.phase {
            Phase::Running => lane.shed_behind(),
            _ if Some(at) == kept => lane.shed_behind(),
            _ => lane.shed(),
        };
        let lanes = self.lanes.iter_mut().map(shed).sum::<usize>();
        let skipped = self.skipped.iter_mut().map(Item::shed).sum::<usize>();
        self.held.give(lanes + skipped);
    }

    /// A lane whose message is there and never failed is the next to run. If there is none, one that only waits for the state
    /// of its key: given back before the state comes, its message would be fetched in vain, and again with the next lane.
    fn keep_first_try(&mut self) -> Option<usize> {
        let is_one = |at: &usize| {
            let lane = self.lanes.get(*at).filter(|lane| lane.phase == Phase::Ready);
            let first = lane.and_then(|lane| lane.items.front());
            first.is_some_and(|item| item.routed.is_some() && item.attempt == 0)
        };
        let ready = self.runs.ready().find(is_one);
        if let Some(kept) = ready {
            self.runs.prefer(kept);
            return Some(kept);
        }
        let loading = self.lanes.iter().filter(|(_, lane)| lane.phase == Phase::Loading);
        let there =
            loading.filter_map(|(at, lane)| Some((at, lane.items.front()?))).filter(|(_, item)| item.routed.is_some());
        there.min_by_key(|(_, item)| item.attempt > 0).map(|(at, _)| at)
    }

    /// Whether a message that may run is there: then it is the next. Otherwise one is asked for.
    pub(super) fn has_next_at_rest(&mut self, first_tries_only: bool) -> bool {
        // There may be many lanes, and mostly none has its message: then the first of them is as good as any.
        let is_empty = self.held.waiting_bytes() == 0;
        if is_empty && self.expects_message() {
            return false;
        }
        let mut to_fetch = None;
        let mut found = None;
        for at in self.runs.ready() {
            let Some(lane) = self.lanes.get(at).filter(|lane| lane.phase == Phase::Ready) else { continue };
            let Some(item) = lane.items.front().filter(|item| item.attempt == 0 || !first_tries_only) else { continue };
            if item.routed.is_some() {
                found = Some(at);
                break;
            }
            to_fetch = to_fetch.or(Some(at));
            if is_empty {
                break;
            }
        }
        match (found, to_fetch.filter(|_| !self.expects_message())) {
            (Some(at), _) => self.runs.prefer(at),
            (None, Some(at)) => {
                self.runs.remove(at);
                self.fetch(at);
            }
            (None, None) => {}
        }
        found.is_some()
    }

    /// A message was asked for and is not yet there, or the state that it needs is not.
    pub fn expects_message(&self) -> bool {
        self.wanted.messages.are_queued() || !self.wanted.messages.is_idle() || !self.wanted.states.is_idle()
    }
}
