//! What each kind of thread of a process used of the processor.
//!
//! Linux only: `schedstat` counts nanoseconds, where `stat` counts ticks of ten milliseconds.

use std::collections::BTreeMap;
use std::time::Duration;

/// Processor time of each thread by its number, with its name, since it began.
#[derive(Clone, Debug, Default)]
pub struct Used(BTreeMap<String, (String, Duration)>);

impl Used {
    /// Of this process as of now; threads that ended are missing.
    pub fn now() -> Self {
        Self::of(std::process::id())
    }

    /// Of another process.
    pub fn of(process: u32) -> Self {
        let mut used = Self::default();
        for thread in std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
            let read = |file: &str| std::fs::read_to_string(thread.path().join(file)).ok();
            let nanos = read("schedstat").and_then(|text| text.split(' ').next()?.parse().ok());
            let (Some(name), Some(nanos)) = (read("comm"), nanos) else { continue };
            let number = thread.file_name().to_string_lossy().into_owned();
            used.0.insert(number, (kind(name.trim()).to_owned(), Duration::from_nanos(nanos)));
        }
        used
    }

    /// All threads together, since `before`.
    pub fn since(&self, before: &Self) -> Duration {
        let used = self.0.iter().map(|(number, (_, used))| used.saturating_sub(before.of_thread(number)));
        used.sum()
    }

    fn of_thread(&self, number: &str) -> Duration {
        self.0.get(number).map_or(Duration::ZERO, |(_, used)| *used)
    }

    /// What each kind of thread used since `before`, in microseconds for each of `messages`, for people; kinds below 0.05 µs
    /// are left out.
    pub(super) fn per_message(&self, before: &Self, messages: usize) -> String {
        let mut kinds = BTreeMap::<&str, f64>::new();
        for (number, (kind, used)) in &self.0 {
            let used = used.saturating_sub(before.of_thread(number));
            *kinds.entry(kind).or_default() += used.as_secs_f64() * 1e6 / messages.max(1) as f64;
        }
        let mut kinds: Vec<(&str, f64)> = kinds.into_iter().filter(|(_, micros)| *micros >= 0.05).collect();
        kinds.sort_by(|a, b| b.1.total_cmp(&a.1));
        kinds.iter().map(|(kind, micros)| format!("{kind} {micros:.1}")).collect::<Vec<_>>().join(", ")
    }
}

/// Threads that do the same are counted together.
fn kind(name: &str) -> &str {
    if name.starts_with("tokio") { "workers" } else { name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-') }
}
