//! What the threads of an embedded log know of each other.

use super::failure::Failure;
use crate::error::LogError;
use crate::live::Live;
use sluicebox_core::message::Offset;
use std::sync::OnceLock;

/// Whether the log goes on, and where it ends: held by the writer, the checkpointer and whoever calls.
#[derive(Debug)]
pub(super) struct LogState {
    pub(super) live: Live,
    stopped: OnceLock<String>,
}

impl LogState {
    pub(super) fn new(end: Offset) -> Self {
        Self { live: Live::new(end), stopped: OnceLock::new() }
    }

    /// The log takes nothing any more and ends its tails. The first reason stays.
    ///
    /// After a failed write or sync nobody knows what the operating system still holds, so going on could acknowledge
    /// what is lost. The next start reads what is really there.
    pub(super) fn stop(&self, reason: String) {
        if self.stopped.set(reason).is_ok() {
            tracing::error!(reason = self.stopped.get(), "the log stopped");
        }
        self.live.close();
    }

    /// Stops it for this failure, and returns what everyone hears from now on.
    pub(super) fn stop_for(&self, failure: Failure) -> Failure {
        self.stop(failure.to_string());
        self.check().err().unwrap_or(failure)
    }

    /// Why the log stopped, if it did.
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.stopped.get().map_or(Ok(()), |reason| Err(Failure::Broken(format!("it stopped: {reason}"))))
    }

    /// As [`LogState::check`], for a caller of the log.
    pub(super) fn check_open(&self) -> Result<(), LogError> {
        Ok(self.check()?)
    }
}

/// A panic of one of the threads must not leave tails and callers waiting for what nobody does any more.
pub(super) struct StopOnPanic<'s> {
    pub(super) state: &'s LogState,
    /// Who panicked then.
    pub(super) thread: &'static str,
}

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.state.stop(format!("its {} panicked (a bug: please report it)", self.thread));
        }
    }
}
