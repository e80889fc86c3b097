//! Which lanes may run, how many do, and who waits for the twin of its message.

use super::marks::ById;
use crate::message::IdHash;
use std::collections::VecDeque;

#[derive(Debug, Default)]
pub struct Runs {
    /// Lanes whose first message has all it needs.
    ready: VecDeque<usize>,
    /// Ready lanes whose first message failed before, passed over while first tries were asked for.
    passed_over: VecDeque<usize>,
    /// Whose turn it is while there are both.
    passed_over_next: bool,
    running: usize,
    /// Ids in a sandbox now, and the lanes that wait for them.
    twins: ById<Vec<usize>>,
}

impl Runs {
    pub fn is_idle(&self) -> bool {
        self.running == 0
    }

    /// Nothing runs and nothing could.
    pub fn is_stuck(&self) -> bool {
        self.running == 0 && self.ready.is_empty() && self.passed_over.is_empty()
    }

    pub fn make_ready(&mut self, lane: usize) {
        self.ready.push_back(lane);
    }

    /// Lanes that may be ready; some may have been put here before they became something else.
    pub fn ready(&self) -> impl Iterator<Item = usize> {
        self.ready.iter().chain(&self.passed_over).copied()
    }

    /// It is not ready after all.
    pub fn remove(&mut self, lane: usize) {
        self.passed_over.retain(|other| *other != lane);
        self.ready.retain(|other| *other != lane);
    }

    /// Of those that are ready this one is the next.
    pub fn prefer(&mut self, lane: usize) {
        self.remove(lane);
        self.ready.push_front(lane);
        self.passed_over_next = true;
    }

    /// Those that were passed over take turns with the others: neither kind waits for all of the other.
    pub fn next_ready(&mut self) -> Option<usize> {
        self.passed_over_next = !self.passed_over_next && !self.passed_over.is_empty();
        let (one, other) = match self.passed_over_next {
            true => (&mut self.passed_over, &mut self.ready),
            false => (&mut self.ready, &mut self.passed_over),
        };
        one.pop_front().or_else(|| other.pop_front())
    }

    /// Without those that were passed over.
    pub fn next_not_passed_over(&mut self) -> Option<usize> {
        self.ready.pop_front()
    }

    pub fn pass_over(&mut self, lane: usize) {
        self.passed_over.push_back(lane);
    }

    /// Whether a message with this id runs; then the lane is among those that [`Runs::end`] returns.
    pub fn waits_for_twin(&mut self, id: Option<IdHash>, lane: usize) -> bool {
        let Some(waiting) = id.and_then(|id| self.twins.get_mut(&id)) else { return false };
        waiting.push(lane);
        true
    }

    pub fn begin(&mut self, id: Option<IdHash>) {
        self.running += 1;
        if let Some(id) = id {
            self.twins.insert(id, Vec::new());
        }
    }

    /// A run is over: the lanes that waited for its id.
    pub fn end(&mut self, id: Option<IdHash>) -> Vec<usize> {
        self.running -= 1;
        id.and_then(|id| self.twins.remove(&id)).unwrap_or_default()
    }

    /// A run did not take place: its lane is the next.
    pub fn put_back(&mut self, lane: usize) {
        self.ready.push_front(lane);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_that_is_preferred_is_the_next_and_is_there_once() {
        let mut runs = Runs::default();
        [1, 2, 3].into_iter().for_each(|lane| runs.make_ready(lane));
        let passed = runs.next_not_passed_over().unwrap();
        runs.pass_over(passed);
        for lane in [3, 1, 3] {
            runs.prefer(lane);
            assert_eq!(runs.ready().count(), 3, "{:?}", runs.ready().collect::<Vec<_>>());
        }
        assert_eq!([(); 4].map(|()| runs.next_ready()), [Some(3), Some(1), Some(2), None]);
    }
    #[test]
    fn those_that_were_passed_over_and_the_others_take_turns() {
        let mut runs = Runs::default();
        (1..=6).for_each(|lane| runs.make_ready(lane));
        for _ in 0..3 {
            let passed = runs.next_not_passed_over().unwrap();
            runs.pass_over(passed);
        }
        let order: Vec<usize> = std::iter::from_fn(|| runs.next_ready()).collect();
        assert_eq!(order, [1, 4, 2, 5, 3, 6]);
    }
}
