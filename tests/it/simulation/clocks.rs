//! The machine's clock is set while the host is down, by seconds or a year, and the host finds that at its next start.
//!
//! Time as it really passes is kept apart from all clocks, by message: the checker judges by it.

use super::Bug;
use super::world::World;
use rand::RngExt;
use sluicebox::clock::Timestamp;
use sluicebox::skew::{Left, Redate, Skew};
use std::sync::Arc;
use std::time::Duration;

/// Years after 1970, so that the clock can be set years back.
pub const BEGIN: Timestamp = Timestamp(1_800_000_000_000);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// Nothing is due later than this after it was asked for: retries wait for 3 s at most, the handler's delay is 5 s.
pub const WAIT_MAX: Duration = Duration::from_secs(5);
/// Nothing in a record is due later than this after it was claimed.
const CLAMP: Duration = sluicebox::effects::DELAY_MAX;

impl World {
    pub fn clock_is_set(&mut self) {
        self.die();
        let step = [Duration::from_millis(1_500), Duration::from_secs(40), YEAR][self.rng.random_range(0..3)];
        let host = self.wall;
        let machine = if self.chance(0.5) { host.after(step) } else { host.before(step) };
        let up = host.since(Timestamp(0));
        let same_boot = self.chance(0.6);
        let left = Left { last: self.log.last_time(), boot: same_boot.then_some(host.before(up)) };
        let compared = left.compare(machine, up);
        let accepted = compared.skew.by() > Duration::from_secs(10) || self.chance(0.3);
        match compared.redate().filter(|_| accepted) {
            Some(redate) => self.redate(&redate, machine),
            None => {
                // A clock that is ahead after a boot is the same as a machine that was off for long.
                let away = compared.goes_on_at.since(host);
                self.let_time_pass(away);
                self.wait_max += host.since(compared.goes_on_at);
                self.wall = compared.goes_on_at;
            }
        }
        if matches!(compared.skew, Skew::Behind(_)) && !same_boot {
            // All that is known of how far the host was is the log's last message.
            self.wait_max += host.since(left.last);
        }
        self.start_again();
        self.check_waits();
    }

    fn redate(&mut self, redate: &Redate, machine: Timestamp) {
        let skipped = match self.bug {
            Some(Bug::MarksLeftBehind) => matches!(redate, Redate::Forward { .. }),
            Some(Bug::WaitsLeftAhead) => matches!(redate, Redate::Back { .. }),
            _ => false,
        };
        self.wall = machine;
        // The host's time is the log's; these two clocks are apart only to try more.
        self.log_clock = redate.time(self.log_clock);
        if skipped {
            return;
        }
        self.log.redate(redate);
        for message in &mut self.archive {
            let time = redate.time(message.time);
            *message = Arc::new(sluicebox::message::Message { time, ..(**message).clone() });
        }
    }

    /// The log's clock moves on as time passes.
    pub fn let_time_pass(&mut self, time: Duration) {
        self.log_clock = self.log_clock.after(time);
        self.passed = self.passed.after(time);
    }

    /// Nothing is blocked for longer than it was to wait.
    fn check_waits(&self) {
        for instance in &self.instances {
            let wait = instance.shard.next_due().map_or(Duration::ZERO, |due| due.since(self.wall));
            let max = self.wait_max.min(CLAMP);
            assert!(wait <= max, "{} waits for {wait:?}, at most {max:?}", instance.shard.id());
        }
    }
}
