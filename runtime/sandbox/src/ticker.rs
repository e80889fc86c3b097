//! The thread that advances the epoch: what makes a spinning guest yield, and stop at its deadline.
//!
//! It turns only while something runs, and sleeps without a timer when nothing has run for a while, so an idle host
//! burns no processor time. Going to sleep is delayed because waking a thread costs more than a short call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst, fence};
use std::thread::JoinHandle;
use std::time::Duration;
use wasmtime::Engine;

/// Time between two ticks. A guest that computes without pause yields to other tasks this often.
pub(super) const TICK: Duration = Duration::from_millis(2);
/// Ticks without anything running before the thread sleeps.
const TICKS_BEFORE_SLEEP: u32 = 50;

/// Owns the thread; dropping it ends the thread.
pub(super) struct Ticker {
    activity: Arc<Activity>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Activity {
    asleep: AtomicBool,
    stop: AtomicBool,
}

impl Ticker {
    /// Turns while `runs` says that something runs.
    pub(super) fn start(engine: Engine, runs: impl Fn() -> bool + Send + 'static) -> std::io::Result<Self> {
        let activity = Arc::new(Activity::default());
        let inside = activity.clone();
        let thread =
            std::thread::Builder::new().name("sandbox-ticker".into()).spawn(move || inside.turn(&engine, runs))?;
        Ok(Self { activity, thread: Some(thread) })
    }

    /// To be called when something runs, as `runs` would say already.
    pub(super) fn wake_if_asleep(&self) {
        // Together with `turn`: either we see `asleep`, or the thread sees that something runs.
        fence(SeqCst);
        if self.activity.asleep.load(SeqCst) {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.activity.stop.store(true, SeqCst);
        self.wake();
        if let Some(thread) = self.thread.take() {
            // It cannot have panicked, and if it did there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

impl Activity {
    fn turn(&self, engine: &Engine, runs: impl Fn() -> bool) {
        let mut idle_ticks = 0;
        while !self.stop.load(SeqCst) {
            if runs() {
                idle_ticks = 0;
            } else {
                idle_ticks += 1;
            }
            if idle_ticks > TICKS_BEFORE_SLEEP {
                self.asleep.store(true, SeqCst);
                fence(SeqCst);
                if !runs() && !self.stop.load(SeqCst) {
                    std::thread::park();
                }
                self.asleep.store(false, SeqCst);
                idle_ticks = 0;
            } else {
                std::thread::sleep(TICK);
            }
            engine.increment_epoch();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits for a condition that another thread brings about.
    #[track_caller]
    fn eventually(what: &str, condition: impl Fn() -> bool) {
        let end = sluicebox_core::clock::instant() + Duration::from_secs(20);
        while !condition() {
            assert!(sluicebox_core::clock::instant() < end, "never {what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_thread_sleeps_when_nothing_runs_and_turns_when_something_does() {
        let running = Arc::new(AtomicBool::new(false));
        let runs = running.clone();
        let ticker = Ticker::start(Engine::default(), move || runs.load(SeqCst)).unwrap();
        for _ in 0..3 {
            eventually("asleep", || ticker.activity.asleep.load(SeqCst));
            running.store(true, SeqCst);
            ticker.wake_if_asleep();
            eventually("awake", || !ticker.activity.asleep.load(SeqCst));
            running.store(false, SeqCst);
        }
    }

    #[test]
    fn dropping_it_ends_the_thread_asleep_or_awake() {
        drop(Ticker::start(Engine::default(), || true).unwrap());
        let ticker = Ticker::start(Engine::default(), || false).unwrap();
        eventually("asleep", || ticker.activity.asleep.load(SeqCst));
        let activity = Arc::downgrade(&ticker.activity);
        drop(ticker);
        assert_eq!(activity.strong_count(), 0);
    }
}
