//! The thread that advances the epoch: what makes a spinning guest yield, and stop at its deadline.
//!
//! It turns only while something runs, and sleeps without a timer when nothing has run for a while, so an idle host
//! burns no processor time. Going to sleep is delayed because waking a thread costs more than a short call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;
use wasmtime::Engine;

/// Time between two ticks. A guest that computes without pause yields to other tasks this often.
pub(super) const TICK: Duration = Duration::from_millis(2);
/// Ticks without anything running before the thread sleeps.
const TICKS_BEFORE_SLEEP: u32 = 50;

/// Owns the thread; dropping it ends the thread.
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    running: AtomicUsize,
    asleep: AtomicBool,
    stop: AtomicBool,
}

/// Something runs until this is dropped.
pub(super) struct Running<'t>(&'t Shared);

impl Ticker {
    pub(super) fn start(engine: Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let inside = shared.clone();
        let thread = std::thread::Builder::new().name("sandbox-ticker".into()).spawn(move || inside.turn(&engine))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(super) fn running(&self) -> Running<'_> {
        self.shared.running.fetch_add(1, SeqCst);
        // Together with `turn`: either we see `asleep`, or the thread sees that something runs.
        if self.shared.asleep.load(SeqCst) {
            self.wake();
        }
        Running(&self.shared)
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        self.wake();
        if let Some(thread) = self.thread.take() {
            // It cannot have panicked, and if it did there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn turn(&self, engine: &Engine) {
        let mut idle_ticks = 0;
        while !self.stop.load(SeqCst) {
            if self.running.load(SeqCst) > 0 {
                idle_ticks = 0;
            } else {
                idle_ticks += 1;
            }
            if idle_ticks > TICKS_BEFORE_SLEEP {
                self.asleep.store(true, SeqCst);
                if self.running.load(SeqCst) == 0 && !self.stop.load(SeqCst) {
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
        let ticker = Ticker::start(Engine::default()).unwrap();
        for _ in 0..3 {
            eventually("asleep", || ticker.shared.asleep.load(SeqCst));
            let _running = ticker.running();
            eventually("awake", || !ticker.shared.asleep.load(SeqCst));
        }
    }

    #[test]
    fn dropping_it_ends_the_thread_asleep_or_awake() {
        drop(Ticker::start(Engine::default()).unwrap());
        let ticker = Ticker::start(Engine::default()).unwrap();
        eventually("asleep", || ticker.shared.asleep.load(SeqCst));
        let shared = Arc::downgrade(&ticker.shared);
        drop(ticker);
        assert_eq!(shared.strong_count(), 0);
    }
}
