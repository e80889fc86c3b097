//! The kernel's events about directories, as a bell: that something happened, not what.

use notify::event::{AccessKind, AccessMode};
use notify::{EventHandler, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use tokio::sync::Notify;

/// Rung or not; any number of rings are one.
#[derive(Default)]
pub(super) struct Bell {
    rung: AtomicBool,
    heard: Notify,
}

impl Bell {
    fn ring(&self) {
        // Whoever waits is woken once, however much happens until it looks.
        if !self.rung.swap(true, SeqCst) {
            self.heard.notify_one();
        }
    }

    /// Whether it was rung; it is quiet afterwards.
    pub(super) fn take(&self) -> bool {
        self.rung.swap(false, SeqCst)
    }

    /// Waits until it is rung. Safe to cancel.
    pub(super) async fn rung(&self) {
        while !self.take() {
            self.heard.notified().await;
        }
    }
}

/// Device and inode of a directory: another one may take its name.
type Identity = (u64, u64);

/// The bell at every directory of interest.
pub(super) struct Bells {
    watcher: Option<RecommendedWatcher>,
    hung: BTreeMap<PathBuf, Identity>,
    /// It was told that some directory cannot be watched.
    told: bool,
}

struct Ringer(Arc<Bell>);

impl EventHandler for Ringer {
    fn handle_event(&mut self, event: notify::Result<notify::Event>) {
        // Our own reading is such an event too.
        let only_read = event.is_ok_and(|event| match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
            EventKind::Access(_) => !event.need_rescan(),
            _ => false,
        });
        if !only_read {
            self.0.ring();
        }
    }
}

impl Bells {
    pub(super) fn start(bell: Arc<Bell>) -> Self {
        let watcher = match notify::recommended_watcher(Ringer(bell)) {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!(%error, "cannot watch files: looking at them every two seconds instead");
                None
            }
        };
        Self { told: watcher.is_none(), watcher, hung: BTreeMap::new() }
    }

    /// As where the kernel cannot watch anything.
    #[cfg(test)]
    pub(super) fn blind() -> Self {
        Self { watcher: None, hung: BTreeMap::new(), told: true }
    }

    /// Hangs the bell at these directories and at no others. False: at some it cannot hang.
    pub(super) fn hang(&mut self, directories: &BTreeMap<PathBuf, Identity>) -> bool {
        let Some(watcher) = &mut self.watcher else { return directories.is_empty() };
        let hung = std::mem::take(&mut self.hung);
        for (path, _) in hung.iter().filter(|(path, identity)| directories.get(*path) != Some(identity)) {
            // One that was deleted is not watched any more.
            let _ = watcher.unwatch(path);
        }
        let mut all = true;
        for (path, identity) in directories {
            let known = hung.get(path) == Some(identity);
            match if known { Ok(()) } else { watcher.watch(path, RecursiveMode::NonRecursive) } {
                Ok(()) => {
                    self.hung.insert(path.clone(), *identity);
                }
                Err(error) => {
                    all = false;
                    if !std::mem::replace(&mut self.told, true) {
                        tell(path, &error);
                    }
                }
            }
        }
        self.told &= !all;
        all
    }
}

fn tell(path: &Path, error: &notify::Error) {
    let hint = match error.kind {
        notify::ErrorKind::MaxFilesWatch => "; raise fs.inotify.max_user_watches to see changes at once",
        _ => "",
    };
    tracing::warn!(directory = %path.display(), %error, "cannot watch a directory: looking every two seconds instead{hint}");
}
