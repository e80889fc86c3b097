//! Changes on the disk: waits until files that matter have changed and have been left alone for a moment.
//!
//! The kernel's events are only a bell. What counts is how the files look ([`Look`]): so an event that is lost, doubled or
//! about something else does no harm, and where the kernel has no watches left, looking every now and then does the same,
//! later. Files are followed by name and through symbolic links, since editors, cargo and Kubernetes replace files or the
//! links to them and leave the old ones as they were.
//!
//! A file caught half-written looks different again once it is whole: whoever reads it then is told again. What to do
//! about a change is for others.

mod bell;
mod look;

pub use look::{Fingerprint, Look, Scope};

use crate::blocking::blocking;
use bell::{Bell, Bells};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// So long nothing must have happened, since a replaced file is several events and a build several files.
const QUIET: Duration = Duration::from_millis(150);
/// A directory where something happens all the time is looked at all the same: after about a second.
const ROUNDS_MAX: usize = 6;
/// How often to look without an event: rarely where the kernel tells (a directory may have come back under its old name,
/// or be changed from another machine), often where it cannot.
const GLANCE: Duration = Duration::from_secs(20);
const GLANCE_BLIND: Duration = Duration::from_secs(2);

/// Follows files. Dropping it ends it.
pub struct Watch {
    scope: Arc<Scope>,
    seen: Look,
    bell: Arc<Bell>,
    bells: Bells,
    glance: Interval,
    blind: bool,
    /// Something happened that was not looked at yet.
    rung: bool,
}

impl Watch {
    /// Follows nothing yet. Needs a tokio runtime.
    pub fn start() -> Self {
        let bell = Arc::new(Bell::default());
        let bells = Bells::start(bell.clone());
        Self {
            scope: Arc::default(),
            seen: Look::default(),
            bell,
            bells,
            glance: paced(GLANCE),
            blind: false,
            rung: false,
        }
    }

    /// Follows `scope` from now on. True if it names something that was not followed before: who read that before should
    /// read it again, since a change in between was not seen.
    pub async fn follow(&mut self, scope: Scope) -> bool {
        let grew = scope.exceeds(&self.scope);
        self.scope = Arc::new(scope);
        if grew {
            // What is new must be watched before it is looked at.
            let look = self.look().await;
            self.watch(&look);
        }
        let look = self.look().await;
        self.watch(&look);
        // What was followed before keeps its look: a change of it is still to be told.
        self.seen = look.with_files_of(&self.seen);
        grew
    }

    /// Ends when followed files look otherwise than at the last time, and nothing happened for a moment. Safe to cancel.
    pub async fn changed(&mut self) {
        loop {
            if !self.rung {
                tokio::select! {
                    // Safe to cancel, both: a bell that was not heard stays rung, a tick that was not taken is not lost.
                    () = self.bell.rung() => self.rung = true,
                    _ = self.glance.tick() => {}
                }
            }
            let mut rounds = 0;
            while self.rung && rounds < ROUNDS_MAX {
                tokio::time::sleep(QUIET).await;
                self.rung = self.bell.take();
                rounds += 1;
            }
            // Until it was looked at: cancelled before, the next call looks.
            self.rung = true;
            let look = self.look().await;
            self.watch(&look);
            self.rung = false;
            if look.files != self.seen.files {
                self.seen = look;
                return;
            }
        }
    }

    async fn look(&self) -> Look {
        let scope = self.scope.clone();
        blocking(move || scope.look()).await
    }

    fn watch(&mut self, look: &Look) {
        let blind = !self.bells.hang(&look.directories);
        if blind != self.blind {
            self.blind = blind;
            self.glance = paced(if blind { GLANCE_BLIND } else { GLANCE });
        }
    }
}

fn paced(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

#[cfg(test)]
mod tests;
