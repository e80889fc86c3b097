//! Who gets a slot next: pure, so that its fairness can be shown without a guest.
//!
//! A free slot goes to the handler that used the least time, and within a handler to who came first. So two handlers get
//! the same however many runs either has, and however early they give their slots back. Nobody saves up: a handler that
//! comes begins with what the others have used, and one that used less than its share is owed little of it.
//!
//! This is start-time fair queueing. Source: P. Goyal, H. Vin, H. Cheng, "Start-time Fair Queueing", SIGCOMM 1996.

use super::TICK;
use sluicebox_core::handler::HandlerName;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// A handler that fell behind the others is owed no more than this.
const OWED_MAX: Duration = TICK.saturating_mul(10);

/// Slots, and who waits for one. `T` stands for a run.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    free: usize,
    /// Slots given out so far.
    turns: u64,
    /// The most that a handler had used when it was given a slot.
    level: Duration,
    /// Handlers that hold or wait for a slot, and no others.
    handlers: HashMap<HandlerName, HandlerQueue<T>>,
}

#[derive(Debug)]
struct HandlerQueue<T> {
    held: u32,
    used: Duration,
    /// The turn in which it was served last; decides between those that used the same.
    served: u64,
    waiting: VecDeque<T>,
}

impl<T> HandlerQueue<T> {
    /// What it will have used when it gives back what it holds.
    fn expected(&self) -> Duration {
        self.used + TICK * self.held
    }
}

impl<T> FairQueue<T> {
    pub(super) fn new(slots: usize) -> Self {
        Self { free: slots, turns: 0, level: Duration::ZERO, handlers: HashMap::new() }
    }

    /// Lets a run of a handler, which used so much without a slot, wait for one.
    pub(super) fn push(&mut self, handler: &HandlerName, used: Duration, run: T) {
        let (level, served) = (self.level, self.turns);
        let new = || HandlerQueue { held: 0, used: level, served, waiting: VecDeque::new() };
        let queue = self.handlers.entry(handler.clone()).or_insert_with(new);
        queue.used += used;
        queue.waiting.push_back(run);
    }

    /// Takes the run that waits and is meant out of the queue.
    pub(super) fn leave(&mut self, handler: &HandlerName, is_meant: impl Fn(&T) -> bool) {
        if let Some(queue) = self.handlers.get_mut(handler)
            && let Some(at) = queue.waiting.iter().position(is_meant)
        {
            queue.waiting.remove(at);
        }
        self.forget_if_idle(handler);
    }

    /// Takes back a slot that the handler holds and has used for so long.
    pub(super) fn give_back(&mut self, handler: &HandlerName, used: Duration) {
        if let Some(queue) = self.handlers.get_mut(handler) {
            queue.held -= 1;
            queue.used += used;
            self.free += 1;
        }
        self.forget_if_idle(handler);
    }

    /// Gives a free slot to the run whose turn it is.
    pub(super) fn next(&mut self) -> Option<T> {
        if self.free == 0 {
            return None;
        }
        let waiting = self.handlers.values_mut().filter(|queue| !queue.waiting.is_empty());
        let queue = waiting.min_by_key(|queue| (queue.expected(), queue.served))?;
        self.level = self.level.max(queue.expected());
        queue.used = queue.used.max(self.level.saturating_sub(OWED_MAX + TICK * queue.held));
        self.free -= 1;
        self.turns += 1;
        queue.held += 1;
        queue.served = self.turns;
        queue.waiting.pop_front()
    }

    fn forget_if_idle(&mut self, handler: &HandlerName) {
        if self.handlers.get(handler).is_some_and(|queue| queue.held == 0 && queue.waiting.is_empty()) {
            self.handlers.remove(handler);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(number: usize) -> HandlerName {
        HandlerName::parse(&format!("h{number}")).unwrap()
    }

    /// Slices that each handler gets when all its runs always want more. A handler is its number of runs, and how long
    /// they use a slot.
    fn slices(slots: usize, handlers: &[(usize, Duration)], turns: usize) -> Vec<usize> {
        let mut queue = FairQueue::new(slots);
        for (handler, &(runs, _)) in handlers.iter().enumerate() {
            (0..runs).for_each(|_| queue.push(&name(handler), Duration::ZERO, handler));
        }
        let mut running: VecDeque<usize> = std::iter::from_fn(|| queue.next()).collect();
        let mut slices = vec![0; handlers.len()];
        for _ in 0..turns {
            let handler = running.pop_front().unwrap();
            slices[handler] += 1;
            queue.push(&name(handler), Duration::ZERO, handler);
            queue.give_back(&name(handler), handlers[handler].1);
            running.extend(std::iter::from_fn(|| queue.next()));
        }
        slices
    }

    #[track_caller]
    fn check(slots: usize, runs: &[usize], expected: &[usize]) {
        let handlers: Vec<_> = runs.iter().map(|&runs| (runs, TICK)).collect();
        let slices = slices(slots, &handlers, expected.iter().sum());
        let close = slices.iter().zip(expected).all(|(slices, expected)| slices.abs_diff(*expected) <= slots);
        assert!(close, "{slices:?}, not {expected:?}");
    }

    #[test]
    fn handlers_share_alike_whatever_the_number_of_their_runs() {
        check(1, &[64, 1], &[500, 500]);
        check(2, &[64, 1], &[500, 500]);
        check(1, &[64, 1, 7, 7], &[250; 4]);
        check(2, &[64, 5, 7], &[333; 3]);
        // One run cannot use more than one slot; the rest goes to the other.
        check(4, &[64, 1], &[750, 250]);
        check(4, &[3], &[9]);
    }

    #[test]
    fn who_gives_a_slot_back_early_has_it_more_often() {
        let slices = slices(1, &[(64, TICK), (64, TICK / 4)], 1000);
        assert!(slices[1].abs_diff(800) < 5, "{slices:?}");
    }

    #[test]
    fn a_handler_that_comes_and_goes_does_not_starve_one_that_waits() {
        let mut queue = FairQueue::new(1);
        queue.push(&name(0), Duration::ZERO, 0);
        assert_eq!(queue.next(), Some(0));
        queue.push(&name(1), Duration::ZERO, 1);
        // It leaves without a trace and comes back at once.
        queue.give_back(&name(0), TICK);
        assert_eq!(queue.next(), Some(1));
        queue.push(&name(0), Duration::ZERO, 0);
        queue.push(&name(1), Duration::ZERO, 1);
        let mut served = [0usize; 2];
        let mut last = 1;
        for _ in 0..100 {
            queue.give_back(&name(last), TICK);
            last = queue.next().unwrap();
            served[last] += 1;
            queue.push(&name(last), Duration::ZERO, last);
        }
        assert!(served[0].abs_diff(served[1]) <= 2, "{served:?}");
    }

    #[test]
    fn what_a_handler_could_not_use_it_does_not_claim_later() {
        let mut queue = FairQueue::new(2);
        for run in [0, 1, 1] {
            queue.push(&name(run), Duration::ZERO, run);
        }
        let mut running: VecDeque<usize> = std::iter::from_fn(|| queue.next()).collect();
        let mut turn = |queue: &mut FairQueue<usize>, used: [Duration; 2]| {
            let run = running.pop_front().unwrap();
            queue.push(&name(run), Duration::ZERO, run);
            queue.give_back(&name(run), used[run]);
            running.extend(std::iter::from_fn(|| queue.next()));
            run
        };
        // It gives its slot back at once, for a long time.
        for _ in 0..1000 {
            turn(&mut queue, [Duration::ZERO, TICK]);
        }
        (0..10).for_each(|_| queue.push(&name(0), Duration::ZERO, 0));
        let others = (0..100).filter(|_| turn(&mut queue, [TICK, TICK]) == 1).count();
        assert!(others > 35, "only {others} of 100 turns");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Queue { handler: usize },
        GiveBack { which: usize },
        Leave { which: usize },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0usize..5).prop_map(|handler| Step::Queue { handler }),
            2 => any::<usize>().prop_map(|which| Step::GiveBack { which }),
            1 => any::<usize>().prop_map(|which| Step::Leave { which }),
        ];
        prop::collection::vec(step, 1..300)
    }

    proptest! {
        #[test]
        fn no_slot_is_lost_given_twice_or_idle_while_someone_waits(slots in 1usize..5, steps in steps()) {
            let mut queue = FairQueue::new(slots);
            let mut waiting: Vec<(usize, usize)> = vec![];
            let mut running: Vec<(usize, usize)> = vec![];
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Queue { handler } => {
                        queue.push(&name(handler), Duration::ZERO, (handler, number));
                        waiting.push((handler, number));
                    }
                    Step::GiveBack { which } if !running.is_empty() => {
                        let run = running.swap_remove(which % running.len());
                        queue.give_back(&name(run.0), TICK);
                    }
                    Step::Leave { which } if !waiting.is_empty() => {
                        let run = waiting.remove(which % waiting.len());
                        queue.leave(&name(run.0), |other| *other == run);
                    }
                    Step::GiveBack { .. } | Step::Leave { .. } => continue,
                }
                while let Some(run) = queue.next() {
                    let first = waiting.iter().find(|other| other.0 == run.0);
                    prop_assert_eq!(first, Some(&run), "the first to come goes first");
                    waiting.retain(|other| *other != run);
                    running.push(run);
                }
                prop_assert!(running.len() <= slots);
                prop_assert!(waiting.is_empty() || running.len() == slots, "a slot is idle while {waiting:?} wait");
            }
            for run in waiting {
                queue.leave(&name(run.0), |other| *other == run);
            }
            for run in running {
                queue.give_back(&name(run.0), TICK);
            }
            prop_assert_eq!((queue.free, queue.handlers.len()), (slots, 0), "all is as at first");
        }
    }
}
