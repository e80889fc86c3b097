//! Modules that were deployed: what the log keeps of them for its hosts, and what is the same for every kind of log.

use crate::error::LogError;
use bytes::Bytes;
use sluicebox_core::clock::Timestamp;
use sluicebox_core::handler::{Digest, HandlerName, MODULE_BYTES_MAX};
use std::collections::BTreeMap;

/// Modules of a handler that are kept, with those that are needed: as many as a host keeps on its disk.
pub const MODULES_MAX: usize = 10;
/// Most bytes of a module in one write (512 KiB): commits wait for it.
pub(crate) const PIECE_BYTES_MAX: usize = 512 * 1024;

/// A module that the log has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredModule {
    pub digest: Digest,
    /// When it was put there last, by the log's time.
    pub time: Timestamp,
    pub bytes: u64,
}

/// By handler, in the order in which they were put: the newest is the last one.
pub type Modules = BTreeMap<HandlerName, Vec<StoredModule>>;

/// Refuses what no sandbox would load.
pub(crate) fn check(module: &[u8]) -> Result<(), LogError> {
    let reason = match module.len() {
        0 => "a module is not empty".into(),
        bytes if bytes > MODULE_BYTES_MAX => {
            format!("the module has {bytes} bytes, at most {MODULE_BYTES_MAX} are allowed")
        }
        _ => return Ok(()),
    };
    Err(LogError::Refused { reason })
}

/// A module as it was read, if it is the one that was asked for.
pub(crate) fn verified(handler: &HandlerName, digest: Digest, module: Bytes) -> Result<Bytes, LogError> {
    if Digest::of(&module) == digest {
        return Ok(module);
    }
    let reason = format!("module {digest} of handler `{handler}` is damaged in the log: deploy it again");
    Err(LogError::Refused { reason })
}

/// Which of a handler's modules go, in the order in which they were put: the oldest beyond the bound, but neither the newest nor
/// one that is needed.
pub(crate) fn surplus(modules: &[Digest], needed: &[Digest]) -> Vec<Digest> {
    let older = &modules[..modules.len().saturating_sub(1)];
    let may_go = older.iter().filter(|digest| !needed.contains(digest));
    may_go.take(modules.len().saturating_sub(MODULES_MAX)).copied().collect()
}
