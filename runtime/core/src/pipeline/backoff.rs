//! Full-jitter exponential backoff.
//!
//! The wait before try n + 1 is uniform between 0 and min(max, min × 2^(n-1)): many failing keys spread out instead of
//! coming back together. Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

use crate::handler::Retry;
use std::time::Duration;

/// A handler may ask for no longer delay than this (1 day).
pub const ASKED_MAX: Duration = Duration::from_secs(24 * 3600);

/// The wait after the failed try `attempt` (1 is the first); `random` is uniform in [0, 1).
pub fn wait(retry: &Retry, attempt: u32, random: f64) -> Duration {
    let doublings = attempt.saturating_sub(1).min(31);
    let bound = retry.min.saturating_mul(1 << doublings).min(retry.max);
    bound.mul_f64(random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bound_doubles_up_to_the_maximum() {
        let retry = Retry { attempts: 99, min: Duration::from_millis(100), max: Duration::from_secs(1) };
        let bounds: Vec<u128> = (1..=6).map(|attempt| wait(&retry, attempt, 1.0).as_millis()).collect();
        assert_eq!(bounds, [100, 200, 400, 800, 1000, 1000]);
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_the_maximum(attempt: u32, random in 0.0..1.0, min_ms in 0u64..10_000, max_ms in 0u64..100_000) {
            let retry = Retry { attempts: 1, min: Duration::from_millis(min_ms), max: Duration::from_millis(max_ms) };
            prop_assert!(wait(&retry, attempt, random) <= retry.max);
        }
    }
}
