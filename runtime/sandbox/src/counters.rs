//! `sluicebox:handler/counters`: the handler's own counters, staged.

use super::bindings::sluicebox::handler::counters::{self, CountError};
use super::host::Host;
use sluicebox_core::effects::COUNTERS_MAX;

/// Most bytes in a counter's name.
const NAME_BYTES_MAX: usize = 63;

impl counters::Host for Host {
    fn count(&mut self, name: String, by: u64) -> Result<(), CountError> {
        if !is_counter_name(&name) {
            let shown: String = name.chars().take(80).collect();
            let reason = format!("`{shown}` is not a counter name: use a-z, then up to 62 of a-z 0-9 _");
            return Err(CountError::InvalidName(reason));
        }
        if !self.may_count(&name) {
            let reason = format!("the handler counts under {COUNTERS_MAX} names already: `{name}` is one too many");
            return Err(CountError::TooMany(reason));
        }
        let run = self.run_mut().map_err(CountError::TooMany)?;
        run.staged.count(&name, by).map_err(|refused| CountError::TooMany(refused.to_string()))
    }
}

fn is_counter_name(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX
        && name.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counter_names_fit_a_metric() {
        for good in ["a", "new_order_ok", "a1"] {
            assert!(is_counter_name(good), "{good}");
        }
        for bad in ["", "A", "1a", "_a", "a-b", "a b", "é", &"a".repeat(64)] {
            assert!(!is_counter_name(bad), "{bad}");
        }
    }
}
