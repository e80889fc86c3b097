//! Which lanes may run, how many do, and who waits for the twin of its message.

use super::marks::ById;
use crate::message::IdHash;
use std::collections::VecDeque;

#[derive(Debug, Default)]
pub struct Runs {
    /// Lanes whose first message has all it needs.
    ready: VecDeque<usize>,
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
        self.running == 0 && self.ready.is_empty()
    }

    pub fn make_ready(&mut self, lane: usize) {
        self.ready.push_back(lane);
    }

    pub fn next_ready(&mut self) -> Option<usize> {
        self.ready.pop_front()
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
