//! What shuts the gate of a handler, and what opens it.

use super::*;
use crate::handler::{DeadBox, DeadFull, HandlerName};
use crate::telemetry::Metrics;

fn gate(policy: &Policy, dead: u64) -> Gate {
    Gate::new(policy, dead, Metrics::new().handler(&HandlerName::parse("order").unwrap()))
}

/// Asks for the first try of a key of its own.
fn pass(gate: &Gate, now: Instant) -> Result<Pass<'_>, Shut> {
    static KEYS: AtomicU64 = AtomicU64::new(0);
    gate.pass(Try::First { key: KEYS.fetch_add(1, Ordering::Relaxed) }, now)
}

#[test]
fn a_full_box_that_stops_opens_when_letters_go() {
    let dead = DeadBox { letters_max: 3, full: DeadFull::Stop };
    let gate = gate(&Policy { dead, ..Policy::default() }, 2);
    assert_eq!(gate.shut(clock::instant()), None);
    gate.dead_changed(1, 0);
    assert_eq!(gate.shut(clock::instant()), Some(Shut::Changed));
    assert!(pass(&gate, clock::instant()).is_err());
    let changes = gate.changes();
    gate.dead_changed(0, 1);
    assert!(changes.has_changed().unwrap());
    assert!(pass(&gate, clock::instant()).is_ok());
}

#[test]
fn a_fault_of_the_host_shuts_it_for_longer_each_time_until_a_run_is_made() {
    let gate = gate(&Policy { breaker: None, ..Policy::default() }, 0);
    let mut now = clock::instant();
    let mut waits = vec![];
    for _ in 0..12 {
        gate.host_failed("no memory", now);
        // Another run that had begun.
        gate.host_failed("no memory", now);
        let Some(Shut::Until(until)) = gate.shut(now) else { panic!("it is open") };
        assert!(pass(&gate, now).is_err());
        waits.push(until - now);
        now = until;
        assert_eq!(gate.shut(now), None, "it is tried again");
    }
    assert!(waits[0] >= std::time::Duration::from_millis(50), "{waits:?}");
    assert!(waits[11] > 50 * waits[0] && waits[11] <= std::time::Duration::from_secs(30), "{waits:?}");
    gate.host_works();
    assert!(gate.calm() == Calm::NoBreaker && pass(&gate, now).is_ok());
}

#[test]
fn a_probe_that_is_dropped_gives_its_place_to_another() {
    use crate::handler::{BreakerSettings, Trip};
    let (wait, trip) = (std::time::Duration::ZERO, Trip::Consecutive { failures: 1 });
    let breaker = Some(BreakerSettings { trip, wait, max_wait: wait });
    let gate = gate(&Policy { breaker, ..Policy::default() }, 0);
    for _ in 0..2 {
        pass(&gate, clock::instant()).ok().unwrap().report(Sample::Failure);
    }
    let probe = pass(&gate, clock::instant()).ok().unwrap();
    assert!(pass(&gate, clock::instant()).is_err(), "one probe at a time");
    drop(probe);
    pass(&gate, clock::instant()).ok().unwrap().report(Sample::Success);
    assert_eq!(gate.breaker(), BreakerState::Closed);
}

#[test]
fn runs_pass_a_calm_gate_without_its_lock_and_failures_in_a_row_shut_it_all_the_same() {
    use crate::handler::{BreakerSettings, Trip};
    let (wait, trip) = (std::time::Duration::from_secs(60), Trip::Consecutive { failures: 2 });
    let breaker = Some(BreakerSettings { trip, wait, max_wait: wait });
    let gate = gate(&Policy { breaker, ..Policy::default() }, 0);
    let passed = || pass(&gate, clock::instant()).ok().unwrap();
    {
        let _held = gate.inner.lock().unwrap();
        assert_eq!(gate.shut(clock::instant()), None);
        passed().report(Sample::Success);
        drop(passed());
    }
    let slow = passed();
    // A success between two failures takes the first back, also one that passed before it.
    passed().report(Sample::Failure);
    slow.report(Sample::Success);
    passed().report(Sample::Failure);
    assert_eq!(gate.breaker(), BreakerState::Closed);
    passed().report(Sample::Failure);
    assert!(matches!(gate.shut(clock::instant()), Some(Shut::Until(_))));
    assert!(pass(&gate, clock::instant()).is_err());
    gate.trip();
    gate.reset();
    assert!(pass(&gate, clock::instant()).is_ok());
}

#[test]
fn a_retry_says_nothing_and_half_open_it_makes_way_for_who_never_failed() {
    use crate::handler::{BreakerSettings, Trip};
    let (wait, trip) = (std::time::Duration::from_secs(60), Trip::Consecutive { failures: 2 });
    let breaker = Some(BreakerSettings { trip, wait, max_wait: wait });
    let gate = gate(&Policy { breaker, ..Policy::default() }, 0);
    let now = clock::instant();
    for _ in 0..100 {
        gate.pass(Try::Again, now).ok().unwrap().report(Sample::Failure);
    }
    assert_eq!(gate.breaker(), BreakerState::Closed);
    for _ in 0..2 {
        pass(&gate, now).ok().unwrap().report(Sample::Failure);
    }
    assert!(gate.pass(Try::Again, now).is_err());
    let later = now + 3 * wait;
    assert!(gate.is_half_open(later) && !gate.is_half_open(now));
    gate.pass(Try::Again, later).ok().unwrap().report(Sample::Failure);
    assert!(matches!(gate.pass(Try::Again, now), Err(Shut::RetriesUntil(_))));
    pass(&gate, now).ok().unwrap().report(Sample::Success);
    assert_eq!(gate.breaker(), BreakerState::Closed);
}
