//! The names under which one version of a handler counts: bounded, so that a guest hears of the one too many. Looked up at
//! every count, by all sandboxes at once, so without a lock.

use sluicebox_core::effects::COUNTERS_MAX;
use std::sync::OnceLock;

/// Filled from the front; a name stays for good.
pub(super) struct CounterNames([OnceLock<Box<str>>; COUNTERS_MAX]);

impl Default for CounterNames {
    fn default() -> Self {
        Self([const { OnceLock::new() }; COUNTERS_MAX])
    }
}

impl CounterNames {
    /// Whether the handler may count under this name: it does so already, or there is room for another.
    pub(super) fn admit(&self, name: &str) -> bool {
        self.0.iter().any(|place| **place.get_or_init(|| name.into()) == *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_those_known_stay() {
        let names = CounterNames::default();
        let name = |number: usize| format!("n{number}");
        assert!((0..COUNTERS_MAX).all(|number| names.admit(&name(number))));
        assert!(!names.admit("one_more"));
        assert!((0..COUNTERS_MAX).all(|number| names.admit(&name(number))));
    }
}
