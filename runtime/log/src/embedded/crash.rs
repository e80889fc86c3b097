//! Points at which a test makes the process die, to see what a restart finds.
//!
//! `SLUICEBOX_CRASH_POINT=after-commit:3` aborts after the third transaction is durable and before anyone hears of it;
//! `before-commit` aborts when everything is written but the commit, `after-redate` when the times of the log were moved.
//! `SLUICEBOX_PANIC=NAME` makes the thread of this name panic at its first work. Builds with debug assertions only.

/// Counts transactions towards the crash that was asked for.
#[derive(Debug)]
pub(super) struct CrashPoint {
    #[cfg(debug_assertions)]
    wanted: Option<(String, u64)>,
}

#[cfg(debug_assertions)]
impl CrashPoint {
    pub(super) fn from_environment() -> Self {
        let wanted = std::env::var("SLUICEBOX_CRASH_POINT").ok().map(|text| match text.split_once(':') {
            Some((point, count)) => (point.to_owned(), count.parse().unwrap_or(1)),
            None => (text, 1),
        });
        Self { wanted }
    }

    /// Aborts if this is the point and its turn has come.
    pub(super) fn reach(&mut self, point: &str) {
        if let Some((wanted, left)) = &mut self.wanted
            && wanted == point
        {
            *left = left.saturating_sub(1);
            if *left == 0 {
                std::process::abort();
            }
        }
    }
}

#[cfg(not(debug_assertions))]
impl CrashPoint {
    pub(super) fn from_environment() -> Self {
        Self {}
    }

    pub(super) fn reach(&mut self, _point: &str) {}
}

/// Panics if this is the thread that was asked to.
pub(super) fn panic_if_asked(thread: &str) {
    #[cfg(debug_assertions)]
    if std::env::var("SLUICEBOX_PANIC").is_ok_and(|wanted| wanted == thread) {
        panic!("as a test asked");
    }
    #[cfg(not(debug_assertions))]
    let _ = thread;
}
