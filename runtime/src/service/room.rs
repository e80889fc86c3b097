//! Tells people how full the log is and who keeps it so, and the handlers what their dead letters take.

use crate::host::Host;
use crate::http::Readiness;
use crate::retention::Retained;
use crate::telemetry::events;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Between two looks although nothing changed: a commit that was under way at the last one is counted by now.
const AGAIN: Duration = Duration::from_secs(2);

/// Ends with the retention whose looks it passes on.
pub(super) async fn tell(mut retained: watch::Receiver<Retained>, host: Arc<Host>, readiness: Readiness) {
    let mut full = None;
    loop {
        let looked = retained.borrow_and_update().clone();
        let held = looked.in_the_way().map(|held| format!("old messages stay in the log: {held}"));
        let Retained { usage, .. } = looked;
        host.dead_counted(&usage);
        let now_full = usage.full;
        // How many bytes are used changes all the time; that it is full is said once.
        if full.is_some() != now_full.is_some() {
            events::log_full(now_full.as_deref());
        }
        readiness.in_the_way("log", now_full.as_ref().map(|full| format!("the log is full: {full}")));
        full = now_full;
        readiness.notice("retain", held);
        tokio::select! {
            // Safe to cancel, both: what changed is looked at again.
            changed = retained.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}
