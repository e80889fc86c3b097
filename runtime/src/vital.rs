//! Tasks of the host that must not end by a bug, or for want of what they live on, without anyone hearing of it.
//!
//! That ends a task and nothing else: what it did is no longer done while everything around it looks well. Here the reason
//! is kept for whoever watches. Whether the host can go on without the task is for them to say.

use futures_util::FutureExt as _;
use std::panic::AssertUnwindSafe;
use tokio::sync::watch;

/// The tasks of one part of the host. Clones share it.
#[derive(Clone, Debug)]
pub struct Vital(watch::Sender<Option<String>>);

impl Default for Vital {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Vital {
    /// Does what `task` does; if it panics, ends and tells.
    pub fn guard<N: Into<String>, T: Future<Output = ()>>(
        &self,
        name: N,
        task: T,
    ) -> impl Future<Output = ()> + use<N, T> {
        let (vital, name): (_, String) = (self.clone(), name.into());
        async move {
            let Err(panic) = AssertUnwindSafe(or_panic_for_tests(&name, task)).catch_unwind().await else { return };
            let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
            let reason = format!("{name} panicked (a bug: please report it): {}", text.unwrap_or("no reason given"));
            vital.tell(reason);
        }
    }

    /// A task cannot go on, for this reason.
    pub fn tell(&self, reason: String) {
        tracing::error!("{reason}");
        // The first one tells most: others may follow from it.
        self.0.send_if_modified(|told| {
            let is_first = told.is_none();
            told.get_or_insert(reason);
            is_first
        });
    }

    /// Ends when a task panicked or could not go on, with the reason.
    pub async fn failed(&self) -> String {
        let mut told = self.0.subscribe();
        let reason = told.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            // This handle keeps it open.
            None => std::future::pending().await,
        }
    }
}

/// `SLUICEBOX_PANIC=NAME` makes the task of this name panic soon after it began. Builds with debug assertions only.
#[cfg(debug_assertions)]
async fn or_panic_for_tests(name: &str, task: impl Future<Output = ()>) {
    if std::env::var("SLUICEBOX_PANIC").is_ok_and(|wanted| wanted == name) {
        // Late enough that the host is ready.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), task).await;
        panic!("as a test asked");
    }
    task.await;
}

#[cfg(not(debug_assertions))]
async fn or_panic_for_tests(_: &str, task: impl Future<Output = ()>) {
    task.await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_with_its_reason_and_the_first_one_stays() {
        let vital = Vital::default();
        vital.guard("the first", async {}).await;
        assert!(vital.failed().now_or_never().is_none());
        vital.guard("the second", async { panic!("for this reason") }).await;
        vital.guard("the third", async { panic!("{}", "for another") }).await;
        let reason = vital.failed().await;
        assert!(reason.starts_with("the second panicked") && reason.ends_with("for this reason"), "{reason}");
    }
}
