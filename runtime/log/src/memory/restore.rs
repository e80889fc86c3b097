//! Restores a log into memory, for tests.

use super::MemoryCore;
use crate::error::LogError;
use crate::portable::{End, Piece, Restore};
use futures_util::future::BoxFuture;
use std::sync::{Arc, OnceLock};

/// A log that is being restored.
#[derive(Default)]
pub struct MemoryRestore {
    core: MemoryCore,
    done: Arc<OnceLock<MemoryCore>>,
}

impl MemoryRestore {
    /// Has the log once all of it came.
    pub fn done(&self) -> Arc<OnceLock<MemoryCore>> {
        self.done.clone()
    }
}

impl Restore for MemoryRestore {
    fn take(&mut self, piece: Piece) -> BoxFuture<'_, Result<(), LogError>> {
        let taken = self.core.restore(piece);
        Box::pin(async { taken })
    }

    fn finish(mut self: Box<Self>, end: End) -> BoxFuture<'static, Result<(), LogError>> {
        Box::pin(async move {
            self.core.restore(Piece::End(end))?;
            // It is finished once.
            let _ = self.done.set(self.core);
            Ok(())
        })
    }
}
