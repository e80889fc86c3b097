//! Time that stands still while anything can go on.

use sluicebox::clock;
use std::time::Duration;

/// The story on one thread, from a time that moves only when nothing else can.
pub fn in_still_time<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let result = runtime.block_on(async {
        clock::simulated::begin(|| tokio::time::Instant::now().into_std());
        story.await
    });
    clock::simulated::end();
    result
}

/// Lets time go by, as soon as nothing else can go on.
pub async fn pass(time: Duration) {
    let _ = tokio::time::timeout(time, std::future::pending::<()>()).await;
}

/// Lets time go by until it is so.
pub async fn in_time(what: &str, holds: impl Fn() -> bool) {
    let begun = tokio::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(3600), "{what}: in vain");
        pass(Duration::from_millis(50)).await;
    }
}
