//! The breaker against random sequences of what can happen to it: what must hold is known without looking inside.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Admit { tries: Try },
    Report { which: usize, sample: Sample, random: f64 },
    Pass { ms: u64 },
    Trip,
    Reset,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let sample = prop_oneof![3 => Just(Sample::Failure), 2 => Just(Sample::Success), 1 => Just(Sample::Ignored)];
    let report = (any::<usize>(), sample, 0.0..1.0);
    let tries = prop_oneof![3 => (0u64..3).prop_map(|key| Try::First { key }), 1 => Just(Try::Again)];
    let step = prop_oneof![
        8 => tries.prop_map(|tries| Step::Admit { tries }),
        8 => report.prop_map(|(which, sample, random)| Step::Report { which, sample, random }),
        3 => (0u64..2000).prop_map(|ms| Step::Pass { ms }),
        1 => Just(Step::Trip),
        1 => Just(Step::Reset),
    ];
    prop::collection::vec(step, 1..200)
}

fn trips() -> impl Strategy<Value = Trip> {
    prop_oneof![
        (1u32..6).prop_map(|failures| Trip::Consecutive { failures }),
        (1u32..6).prop_map(|failures| Trip::Count { failures, window: 10 * SECOND }),
        (1u8..=100, 1u32..10).prop_map(|(percent, samples)| Trip::Rate { percent, samples, window: 10 * SECOND }),
    ]
}

/// What must hold, known without the breaker.
#[derive(Default)]
struct Known {
    /// Rises when the state changes.
    era: u32,
    probes_out: u32,
    failures_in_a_row: u32,
    /// Of those failures.
    keys: std::collections::BTreeSet<u64>,
    /// While it is half-open.
    probes_failed: u32,
    retry_failed: bool,
    /// Openings since it was last closed.
    openings: i32,
    by_hand: bool,
}

impl Known {
    fn enter(&mut self, by_hand: bool) {
        *self = Self { era: self.era + 1, by_hand, openings: self.openings, ..Self::default() };
    }

    fn closed(&mut self) {
        self.enter(false);
        self.openings = 0;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_happens_it_keeps_its_promises(
        trip in trips(),
        wait_ms in 1u64..2000,
        max_wait_ms in 1u64..5000,
        steps in steps(),
    ) {
        let (wait, max_wait) = (Duration::from_millis(wait_ms), Duration::from_millis(max_wait_ms));
        let mut breaker = Breaker::new(BreakerSettings { trip, wait, max_wait });
        let mut known = Known::default();
        let mut tickets: Vec<(u32, Try, Ticket)> = vec![];
        let mut now = clock::instant();
        for step in steps {
            let before = breaker.state();
            match step {
                Step::Pass { ms } => now += Duration::from_millis(ms),
                Step::Trip => {
                    breaker.trip();
                    known.enter(true);
                }
                Step::Reset => {
                    let event = breaker.reset();
                    prop_assert_eq!(event.is_some(), before != State::Closed);
                    known.closed();
                }
                Step::Admit { tries } => {
                    let (admit, event) = breaker.admit(tries, now);
                    prop_assert!(!known.by_hand || matches!(admit, Admit::Tripped), "ran while tripped by hand");
                    match admit {
                        Admit::Run(ticket) => {
                            if let State::Open { until } = before {
                                prop_assert!(now >= until && event == Some(Event::Ready), "open, it ran too early");
                                known.enter(false);
                            }
                            prop_assert_eq!(ticket.is_probe(), breaker.state() == State::HalfOpen);
                            known.probes_out += u32::from(ticket.is_probe());
                            prop_assert!(known.probes_out <= 1, "two probes at once");
                            tickets.push((known.era, tries, ticket));
                        }
                        Admit::Until(until) => {
                            prop_assert!(until > now);
                            prop_assert_eq!(before, State::Open { until });
                        }
                        Admit::Probing => prop_assert_eq!(known.probes_out, 1, "it waits for a probe that is not there"),
                        Admit::RetriesAt(at) => {
                            prop_assert!(at > now && tries == Try::Again && known.retry_failed);
                            prop_assert_eq!(before, State::HalfOpen);
                        }
                        Admit::Tripped => prop_assert!(known.by_hand),
                    }
                }
                Step::Report { which, sample, random } => {
                    if tickets.is_empty() {
                        continue;
                    }
                    let (era, tries, ticket) = tickets.swap_remove(which % tickets.len());
                    let (probe, whole) = (ticket.is_probe(), format!("{breaker:?}"));
                    let events = breaker.report(ticket, sample, now, random);
                    if era != known.era {
                        prop_assert_eq!(events, [None, None]);
                        prop_assert_eq!(format!("{breaker:?}"), whole, "a stale ticket changed something");
                        continue;
                    }
                    known.probes_out -= u32::from(probe);
                    let failed = sample == Sample::Failure;
                    let counts = matches!(tries, Try::First { .. });
                    prop_assert_eq!(events.contains(&Some(Event::Fail)), failed && counts);
                    if !counts && !probe {
                        prop_assert_eq!(format!("{breaker:?}"), whole, "a retry changed something");
                        continue;
                    }
                    match (sample, tries) {
                        (Sample::Success, _) => {
                            known.failures_in_a_row = 0;
                            // The other kinds forget by time alone.
                            if matches!(trip, Trip::Consecutive { .. }) {
                                known.keys.clear();
                            }
                        }
                        (Sample::Failure, Try::First { key }) => {
                            known.failures_in_a_row += 1;
                            known.keys.insert(key);
                            known.probes_failed += u32::from(probe);
                        }
                        (Sample::Failure, Try::Again) => {
                            known.retry_failed = true;
                            prop_assert_eq!(breaker.state(), before, "a retry opened it");
                        }
                        (Sample::Ignored, _) => prop_assert_eq!(breaker.state(), before),
                    }
                    let due = match (trip, probe) {
                        (_, true) => known.probes_failed >= 1 << (known.openings - 1).min(5),
                        (Trip::Consecutive { failures }, _) => {
                            known.failures_in_a_row >= failures && known.keys.len() > 1
                        }
                        _ => false,
                    };
                    let is_open = matches!(breaker.state(), State::Open { .. });
                    prop_assert!(is_open || !(due && failed && counts), "it did not open");
                    prop_assert!(!is_open || probe || known.keys.len() > 1, "one key opened it");
                    if probe && sample == Sample::Success {
                        prop_assert_eq!(events, [Some(Event::Reset), None]);
                        prop_assert_eq!(breaker.state(), State::Closed);
                        known.closed();
                    }
                    if let [_, Some(Event::Tripped { wait: waits })] = events {
                        let base = wait.mul_f64(WAIT_GROWTH.powi(known.openings)).min(max_wait);
                        let (least, most) = (base.mul_f64(0.4999), base.mul_f64(1.5001).min(max_wait));
                        prop_assert!(least <= waits && waits <= most, "{waits:?}, not {least:?} to {most:?}");
                        prop_assert_eq!(breaker.state(), State::Open { until: now + waits });
                        known.enter(false);
                        known.openings += 1;
                    }
                }
            }
        }
    }
}
