//! A few read-only connections, shared by everyone who reads.
//!
//! Reads block, so they run on tokio's threads for blocking work; the connections bound how many at once.

use super::failure::Failure;
use super::queries::Reader;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The connections that are free, and a permit for each.
pub(super) struct Readers {
    free: Mutex<Vec<Reader>>,
    permits: Arc<Semaphore>,
    /// One permit fewer: long scans leave a connection for the short reads.
    scans: Arc<Semaphore>,
}

/// How long a read takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// A few rows by their key.
    Short,
    /// Thousands of rows.
    Scan,
}

impl Readers {
    /// At least one reader is needed.
    pub(super) fn new(readers: Vec<Reader>) -> Arc<Self> {
        let count = readers.len();
        Arc::new(Self {
            free: Mutex::new(readers),
            permits: Arc::new(Semaphore::new(count)),
            scans: Arc::new(Semaphore::new((count - 1).max(1))),
        })
    }

    /// Runs `read` on a free connection. Dropping the future does not stop a read that runs.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        length: Length,
        read: impl FnOnce(&mut Reader) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let closed = |_| Failure::Broken("the readers are closed".into());
        let scan = match length {
            Length::Short => None,
            Length::Scan => Some(self.scans.clone().acquire_owned().await.map_err(closed)?),
        };
        let permit = self.permits.clone().acquire_owned().await.map_err(closed)?;
        let reader = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut leased = Leased { readers: self.clone(), reader, _permit: permit, _scan: scan };
        let task = tokio::task::spawn_blocking(move || match &mut leased.reader {
            Some(reader) => read(reader),
            None => Err(Failure::Broken("a reader is missing".into())),
        });
        task.await.unwrap_or_else(|error| Err(Failure::Broken(format!("a read did not end: {error}"))))
    }
}

/// A connection on loan: back in its place when dropped, also when the read panicked or nobody waits for it any more.
struct Leased {
    readers: Arc<Readers>,
    reader: Option<Reader>,
    // Fields are dropped after `drop` ran: the connection is back before its permit.
    _permit: OwnedSemaphorePermit,
    _scan: Option<OwnedSemaphorePermit>,
}

impl Drop for Leased {
    fn drop(&mut self) {
        self.readers.free.lock().unwrap_or_else(PoisonError::into_inner).extend(self.reader.take());
    }
}
