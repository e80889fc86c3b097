//! Results of late, counted in ten buckets: what is older than the window falls out a tenth at a time, so nothing is
//! stored for each result.

use std::time::{Duration, Instant};

const BUCKETS: usize = 10;

#[derive(Debug)]
pub(super) struct Window {
    bucket_width: Duration,
    /// The newest first.
    buckets: [Bucket; BUCKETS],
    /// When the newest bucket began; `None` while nothing was counted.
    newest_began: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    all: u64,
    failed: u64,
}

impl Window {
    pub(super) fn new(window: Duration) -> Self {
        // Of no width it would never end shifting.
        let bucket_width = (window / BUCKETS as u32).max(Duration::from_nanos(1));
        Self { bucket_width, buckets: Default::default(), newest_began: None }
    }

    /// Counts a result. One that seems older than the last counts as just now.
    pub(super) fn add(&mut self, failed: bool, now: Instant) {
        self.shift(now);
        self.buckets[0].all += 1;
        self.buckets[0].failed += u64::from(failed);
    }

    /// Results within the window that ended with the last one added.
    pub(super) fn all(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.all).sum()
    }

    /// Failures among them.
    pub(super) fn failed(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.failed).sum()
    }

    pub(super) fn clear(&mut self) {
        self.buckets = Default::default();
        self.newest_began = None;
    }

    fn shift(&mut self, now: Instant) {
        let began = *self.newest_began.get_or_insert(now);
        let passed = now.saturating_duration_since(began).as_nanos() / self.bucket_width.as_nanos();
        let Ok(passed @ 0..BUCKETS) = usize::try_from(passed) else {
            self.buckets = Default::default();
            self.newest_began = Some(now);
            return;
        };
        self.buckets.rotate_right(passed);
        self.buckets[..passed].fill(Bucket::default());
        self.newest_began = Some(began + self.bucket_width * passed as u32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_older_than_the_window_falls_out() {
        let start = crate::clock::instant();
        let mut window = Window::new(Duration::from_secs(10));
        for second in 0..10 {
            window.add(second % 2 == 0, start + Duration::from_secs(second));
        }
        assert_eq!((window.all(), window.failed()), (10, 5));
        window.add(true, start + Duration::from_secs(12));
        assert_eq!((window.all(), window.failed()), (8, 4));
        window.add(true, start + Duration::from_secs(1000));
        assert_eq!((window.all(), window.failed()), (1, 1));
    }

    proptest! {
        #[test]
        fn it_counts_what_is_younger_than_nine_tenths_and_nothing_older_than_the_window(
            steps in prop::collection::vec((0u64..4000, any::<bool>()), 1..60),
        ) {
            let mut now = crate::clock::instant();
            let mut window = Window::new(Duration::from_secs(10));
            let mut added = vec![];
            for (step_ms, failed) in steps {
                now += Duration::from_millis(step_ms);
                window.add(failed, now);
                added.push((now, failed));
                let younger = |than_s| {
                    let young = |(at, _): &&(Instant, bool)| now - *at < Duration::from_secs(than_s);
                    let young: Vec<_> = added.iter().filter(young).collect();
                    (young.len() as u64, young.iter().filter(|(_, failed)| *failed).count() as u64)
                };
                let (least, most) = (younger(9), younger(10));
                prop_assert!((least.0..=most.0).contains(&window.all()), "{} of {least:?} to {most:?}", window.all());
                prop_assert!((least.1..=most.1).contains(&window.failed()), "{} of {least:?} to {most:?}", window.failed());
            }
        }
    }
}
