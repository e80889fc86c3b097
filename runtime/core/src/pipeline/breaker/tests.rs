//! The claims of a breaker, one by one.

mod any_sequence;

use super::*;
use crate::clock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Barrier, Mutex};

const MIDDLE: f64 = 0.5;
const SECOND: Duration = Duration::from_secs(1);

fn with(trip: Trip) -> Breaker {
    Breaker::new(BreakerSettings { trip, ..BreakerSettings::default() })
}

/// The first try of a key of its own.
fn first() -> Try {
    static KEYS: AtomicU64 = AtomicU64::new(0);
    Try::First { key: KEYS.fetch_add(1, SeqCst) }
}

#[track_caller]
fn ticket(breaker: &mut Breaker, now: Instant) -> Ticket {
    match breaker.admit(first(), now).0 {
        Admit::Run(ticket) => ticket,
        other => panic!("not admitted: {other:?}"),
    }
}

/// Admits a run and reports it at once.
#[track_caller]
fn run(breaker: &mut Breaker, sample: Sample, now: Instant) -> [Option<Event>; 2] {
    let ticket = ticket(breaker, now);
    breaker.report(ticket, sample, now, MIDDLE)
}

/// Admits a run of this kind and reports it at once.
#[track_caller]
fn run_of(breaker: &mut Breaker, tries: Try, sample: Sample, now: Instant) -> [Option<Event>; 2] {
    match breaker.admit(tries, now).0 {
        Admit::Run(ticket) => breaker.report(ticket, sample, now, MIDDLE),
        other => panic!("not admitted: {other:?}"),
    }
}

/// Lets first tries fail until it opens: how many, and for how long it is open.
#[track_caller]
fn open(breaker: &mut Breaker, now: Instant) -> (u32, Duration) {
    for failures in 1..=100 {
        if let [_, Some(Event::Tripped { wait })] = run(breaker, Sample::Failure, now) {
            return (failures, wait);
        }
    }
    panic!("it does not open");
}

/// A breaker that has just opened, and when it will probe.
fn opened(now: Instant) -> (Breaker, Instant) {
    let mut breaker = with(Trip::Consecutive { failures: 2 });
    open(&mut breaker, now);
    let State::Open { until } = breaker.state() else { panic!("{:?}", breaker.state()) };
    (breaker, until)
}

#[test]
fn failures_in_a_row_open_it_and_a_success_between_them_begins_the_count_anew() {
    let now = clock::instant();
    let mut breaker = with(Trip::Consecutive { failures: 3 });
    for said in [Sample::Failure, Sample::Failure, Sample::Success, Sample::Failure, Sample::Ignored, Sample::Failure] {
        let _ = run(&mut breaker, said, now);
        assert_eq!(breaker.state(), State::Closed);
    }
    let wait = Duration::from_millis(500);
    assert_eq!(run(&mut breaker, Sample::Failure, now), [Some(Event::Fail), Some(Event::Tripped { wait })]);
    assert_eq!(breaker.state(), State::Open { until: now + wait });
}

#[test]
fn failures_that_arrive_late_and_together_cannot_skip_the_threshold() {
    let now = clock::instant();
    let mut breaker = with(Trip::Consecutive { failures: 5 });
    let tickets: Vec<Ticket> = (0..64).map(|_| ticket(&mut breaker, now)).collect();
    let events: Vec<Event> =
        tickets.into_iter().flat_map(|ticket| breaker.report(ticket, Sample::Failure, now, MIDDLE)).flatten().collect();
    assert_eq!(events[..5], [Event::Fail; 5]);
    assert!(matches!(events[5..], [Event::Tripped { .. }]), "tripped at the fifth, once: {events:?}");
}

#[test]
fn a_lower_threshold_than_what_was_counted_trips_at_the_next_failure() {
    let now = clock::instant();
    let mut breaker = with(Trip::Consecutive { failures: 100 });
    for _ in 0..50 {
        let _ = run(&mut breaker, Sample::Failure, now);
    }
    breaker.configure(BreakerSettings { trip: Trip::Consecutive { failures: 10 }, ..BreakerSettings::default() });
    assert_eq!(breaker.state(), State::Closed);
    assert!(matches!(run(&mut breaker, Sample::Failure, now), [_, Some(Event::Tripped { .. })]));
}

#[test]
fn a_count_within_the_window_opens_it_whatever_succeeds_between() {
    let mut now = clock::instant();
    let mut breaker = with(Trip::Count { failures: 3, window: 10 * SECOND });
    // Spread over more than the window: never three within it.
    for _ in 0..20 {
        assert_eq!(run(&mut breaker, Sample::Failure, now), [Some(Event::Fail), None]);
        now += 6 * SECOND;
    }
    now += 10 * SECOND;
    for said in [Sample::Failure, Sample::Success, Sample::Failure, Sample::Success] {
        let _ = run(&mut breaker, said, now);
        now += SECOND;
    }
    assert!(matches!(run(&mut breaker, Sample::Failure, now), [_, Some(Event::Tripped { .. })]));
}

#[test]
fn a_rate_opens_it_once_there_are_samples_enough() {
    let now = clock::instant();
    let mut breaker = with(Trip::Rate { percent: 50, samples: 10, window: 10 * SECOND });
    for said in [Sample::Failure, Sample::Failure, Sample::Failure, Sample::Failure] {
        assert_eq!(run(&mut breaker, said, now), [Some(Event::Fail), None], "too few samples");
    }
    for _ in 0..6 {
        let _ = run(&mut breaker, Sample::Success, now);
    }
    // Five of eleven are less than half, six of twelve are not.
    assert_eq!(run(&mut breaker, Sample::Failure, now), [Some(Event::Fail), None]);
    assert!(matches!(run(&mut breaker, Sample::Failure, now), [_, Some(Event::Tripped { .. })]));
}

#[test]
fn waits_grow_by_half_up_to_the_maximum_and_begin_anew_after_a_success() {
    let mut now = clock::instant();
    let settings = BreakerSettings {
        trip: Trip::Consecutive { failures: 1 },
        wait: Duration::from_millis(400),
        max_wait: Duration::from_millis(1000),
    };
    let mut breaker = Breaker::new(settings);
    let mut waits = vec![];
    for _ in 0..4 {
        waits.push(open(&mut breaker, now).1.as_millis());
        now += SECOND;
    }
    let _ = run(&mut breaker, Sample::Success, now);
    waits.push(open(&mut breaker, now).1.as_millis());
    assert_eq!(waits, [400, 600, 900, 1000, 400]);
}

#[test]
fn the_longest_waits_do_not_overflow() {
    let now = clock::instant();
    let trip = Trip::Consecutive { failures: 0 };
    let mut breaker = Breaker::new(BreakerSettings { trip, wait: Duration::MAX, max_wait: Duration::MAX });
    open(&mut breaker, now);
    assert_eq!(breaker.state(), State::Open { until: now + WAIT_MAX });
}

#[test]
fn a_probe_that_did_not_take_place_gives_its_place_to_another() {
    let (mut breaker, until) = opened(clock::instant());
    let (Admit::Run(probe), Some(Event::Ready)) = breaker.admit(first(), until) else { panic!() };
    assert!(probe.is_probe());
    assert!(matches!(breaker.admit(first(), until), (Admit::Probing, None)));
    assert_eq!(breaker.report(probe, Sample::Ignored, until, MIDDLE), [None, None]);
    let (Admit::Run(probe), None) = breaker.admit(first(), until) else { panic!("ready is told once") };
    assert!(probe.is_probe());
    assert_eq!(breaker.report(probe, Sample::Success, until, MIDDLE), [Some(Event::Reset), None]);
    assert!(!ticket(&mut breaker, until).is_probe());
}

#[test]
fn tripped_by_hand_it_stays_so_until_reset() {
    let now = clock::instant();
    let mut breaker = with(Trip::Consecutive { failures: 1 });
    let early = ticket(&mut breaker, now);
    breaker.trip();
    assert_eq!(breaker.report(early, Sample::Success, now, MIDDLE), [None, None]);
    assert!(matches!(breaker.admit(first(), now + 1_000_000 * SECOND), (Admit::Tripped, None)));
    assert_eq!(breaker.reset(), Some(Event::Reset));
    assert_eq!(breaker.reset(), None, "it is closed already");
    assert!(!ticket(&mut breaker, now).is_probe());
}

#[test]
fn of_a_thousand_tries_at_once_in_half_open_one_probes() {
    const TRIES: usize = 1000;
    let (breaker, until) = opened(clock::instant());
    let breaker = Mutex::new(breaker);
    let (start, admitted) = (Barrier::new(TRIES), Barrier::new(TRIES));
    let (probes, refused, ready) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    let one = || {
        start.wait();
        let (admit, event) = breaker.lock().unwrap().admit(first(), until);
        ready.fetch_add(u32::from(event == Some(Event::Ready)), SeqCst);
        let probe = match admit {
            Admit::Run(ticket) => Some(ticket),
            other => {
                assert!(matches!(other, Admit::Probing), "{other:?}");
                refused.fetch_add(1, SeqCst);
                None
            }
        };
        // Nobody reports before everybody has asked.
        admitted.wait();
        if let Some(ticket) = probe {
            assert!(ticket.is_probe());
            probes.fetch_add(1, SeqCst);
            let _ = breaker.lock().unwrap().report(ticket, Sample::Success, until, MIDDLE);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..TRIES {
            std::thread::Builder::new().stack_size(64 * 1024).spawn_scoped(scope, one).unwrap();
        }
    });
    assert_eq!((probes.into_inner(), refused.into_inner(), ready.into_inner()), (1, 999, 1));
    assert_eq!(breaker.into_inner().unwrap().state(), State::Closed);
}

#[test]
fn only_what_the_handler_did_counts() {
    let failures = [
        (Failure::Retry { reason: "busy".into(), after: None }, Sample::Failure),
        (Failure::Timeout { limit: SECOND }, Sample::Failure),
        (Failure::Trap { reason: "unreachable".into() }, Sample::Failure),
        (Failure::Memory { limit_bytes: 1, reason: "grow".into() }, Sample::Failure),
        (Failure::Reject { reason: "no such user".into() }, Sample::Ignored),
        (Failure::Host { reason: "no sandbox".into() }, Sample::Ignored),
    ];
    for (failure, expected) in failures {
        assert_eq!(Sample::of(&Err(failure.clone())), expected, "{failure}");
    }
    assert_eq!(Sample::of(&Ok(Effects::default())), Sample::Success);
}

#[test]
fn a_calm_breaker_gives_out_the_ticket_it_names_and_a_success_changes_nothing() {
    let now = clock::instant();
    let mut breaker = with(Trip::Consecutive { failures: 2 });
    let calm = breaker.calm().unwrap();
    assert_eq!(run(&mut breaker, Sample::Success, now), [None, None]);
    assert_eq!((breaker.calm(), ticket(&mut breaker, now).generation()), (Some(calm), calm));
    assert_eq!(breaker.report(Ticket::calm(calm, first()), Sample::Failure, now, MIDDLE), [Some(Event::Fail), None]);
    assert_eq!(breaker.calm(), None, "a success would take the failure back");
    let opened = breaker.report(Ticket::calm(calm, first()), Sample::Failure, now, MIDDLE);
    assert!(matches!(opened[1], Some(Event::Tripped { .. })) && breaker.calm().is_none());
    // Who counts successes has to hear of each.
    let rate = Trip::Rate { percent: 50, samples: 2, window: SECOND };
    assert_eq!(with(rate).calm(), None);
}

#[test]
fn retries_count_for_nothing_however_often_they_fail() {
    let now = clock::instant();
    for trip in [
        Trip::Consecutive { failures: 3 },
        Trip::Count { failures: 3, window: 10 * SECOND },
        Trip::Rate { percent: 50, samples: 3, window: 10 * SECOND },
    ] {
        let mut breaker = with(trip);
        for _ in 0..100 {
            assert_eq!(run_of(&mut breaker, Try::Again, Sample::Failure, now), [None, None]);
        }
        for _ in 0..2 {
            let _ = run(&mut breaker, Sample::Failure, now);
            // A retry that succeeds takes no failure back either.
            let _ = run_of(&mut breaker, Try::Again, Sample::Success, now);
        }
        assert_eq!(breaker.state(), State::Closed);
        assert!(matches!(run(&mut breaker, Sample::Failure, now), [_, Some(Event::Tripped { .. })]), "{trip:?}");
    }
}

#[test]
fn one_key_alone_opens_nothing_and_two_do() {
    let now = clock::instant();
    for trip in [
        Trip::Consecutive { failures: 3 },
        Trip::Count { failures: 3, window: 10 * SECOND },
        Trip::Rate { percent: 50, samples: 3, window: 10 * SECOND },
    ] {
        let mut breaker = with(trip);
        let fails = |breaker: &mut Breaker, key, now| run_of(breaker, Try::First { key }, Sample::Failure, now);
        for _ in 0..100 {
            assert_eq!(fails(&mut breaker, 7, now), [Some(Event::Fail), None]);
        }
        assert!(matches!(fails(&mut breaker, 8, now), [_, Some(Event::Tripped { .. })]), "{trip:?}");
    }
    // Another key that failed long ago is none.
    let mut breaker = with(Trip::Count { failures: 2, window: 10 * SECOND });
    let _ = run(&mut breaker, Sample::Failure, now);
    for seconds in [20, 21, 22] {
        let (tries, now) = (Try::First { key: u64::MAX }, now + seconds * SECOND);
        assert_eq!(run_of(&mut breaker, tries, Sample::Failure, now), [Some(Event::Fail), None]);
    }
}

#[test]
fn with_each_opening_twice_as_many_first_tries_may_fail_up_to_a_bound() {
    let mut now = clock::instant();
    let settings = BreakerSettings { trip: Trip::Consecutive { failures: 5 }, ..BreakerSettings::default() };
    let mut breaker = Breaker::new(settings);
    let mut rounds = vec![];
    for _ in 0..8 {
        rounds.push(open(&mut breaker, now).0);
        now += 100 * SECOND;
    }
    assert_eq!(rounds, [5, 1, 2, 4, 8, 16, 32, 32]);
    let _ = run(&mut breaker, Sample::Success, now);
    assert_eq!(open(&mut breaker, now).0, 5);
    now += 100 * SECOND;
    assert_eq!(open(&mut breaker, now).0, 1, "and anew after a success");
}

#[test]
fn half_open_a_failed_retry_puts_off_retries_alone_and_one_that_succeeds_closes_it() {
    let (mut breaker, until) = opened(clock::instant());
    assert_eq!(run_of(&mut breaker, Try::Again, Sample::Failure, until), [None, None]);
    assert_eq!(breaker.state(), State::HalfOpen);
    let (Admit::RetriesAt(at), None) = breaker.admit(Try::Again, until) else { panic!() };
    assert!(at > until);
    let first = ticket(&mut breaker, until);
    assert!(matches!(breaker.admit(Try::Again, at), (Admit::Probing, None)), "one at a time");
    assert_eq!(breaker.report(first, Sample::Ignored, until, MIDDLE), [None, None]);
    assert!(matches!(breaker.admit(Try::Again, until), (Admit::RetriesAt(_), None)), "as before");
    assert_eq!(run_of(&mut breaker, Try::Again, Sample::Success, at), [Some(Event::Reset), None]);
    assert_eq!(breaker.state(), State::Closed);
}
