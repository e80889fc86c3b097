//! Changes on the disk: tells when files that matter look otherwise and have been left alone for a moment.
//!
//! The files are looked at every now and then ([`Snapshot`]), by name and through symbolic links, since editors, cargo and
//! Kubernetes replace files or the links to them and leave the old ones as they were. That works on every file system and
//! needs nothing that the kernel may run out of; events of the kernel would tell half a second earlier, and would need the
//! same looks beside them.
//!
//! A file caught half-written looks different again once it is whole: whoever reads it then is told again. What to do
//! about a change is for others.

mod snapshot;

pub use snapshot::{Fingerprint, Scope, Snapshot};

use crate::blocking::blocking;
use crate::clock;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks, at least.
const PERIOD: Duration = Duration::from_millis(500);
/// A pause is so many times as long as the look before it: looking at thousands of files takes a fiftieth of a core.
const PAUSE_PER_LOOK: u32 = 50;
/// So long a change must stay as it is, since a build writes several files.
const QUIET: Duration = Duration::from_millis(150);
/// A change that goes on and on is told all the same: after about a second.
const ROUNDS_MAX: usize = 6;

/// Follows files.
#[derive(Default)]
pub struct Watch {
    scope: Arc<Scope>,
    seen: Snapshot,
}

impl Watch {
    /// Follows `scope` from now on. True if it names something that was not followed before: who read that before should
    /// read it again, since a change in between was not seen.
    pub async fn follow(&mut self, scope: Scope) -> bool {
        let grew = scope.exceeds(&self.scope);
        self.scope = Arc::new(scope);
        // What was followed before keeps its look: a change of it is still to be told.
        self.seen = self.look().await.with_files_of(&self.seen);
        grew
    }

    /// Ends when followed files look otherwise than at the last time, and stayed so for a moment. Safe to cancel: what was
    /// not told yet is told by the next call.
    pub async fn changed(&mut self) {
        loop {
            let began = clock::instant();
            let mut now = self.look().await;
            let took = began.elapsed();
            let mut rounds = 0;
            while now != self.seen && rounds < ROUNDS_MAX {
                tokio::time::sleep(QUIET).await;
                let before = std::mem::replace(&mut now, self.look().await);
                if now == before {
                    break;
                }
                rounds += 1;
            }
            if now != self.seen {
                self.seen = now;
                return;
            }
            tokio::time::sleep(PERIOD.max(took * PAUSE_PER_LOOK)).await;
        }
    }

    async fn look(&self) -> Snapshot {
        let scope = self.scope.clone();
        blocking(move || Snapshot::of(&scope)).await
    }
}

#[cfg(test)]
mod tests;
