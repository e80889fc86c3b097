//! Keys that only fail beside keys that never do: a shard and its breaker in virtual time, over random mixes of both.

use proptest::prelude::*;
use sluicebox::clock::{self, Timestamp};
use sluicebox::effects::Effects;
use sluicebox::handler::{BreakerSettings, HandlerName, OnFailure, Policy, ShardId, Trip};
use sluicebox::invoke::Failure;
use sluicebox::log::ReadRequest;
use sluicebox::log::memory::MemoryCore;
use sluicebox::message::{Key, NewMessage, Offset};
use sluicebox::pipeline::breaker::{Admit, Breaker, Sample, State};
use sluicebox::routing::{IdFrom, KeyFrom, Routed, Routing, Since, Span};
use sluicebox::shard::{Bounds, Caution, Run, Setup, Shard};
use sluicebox::topic::{Pattern, Topic};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The first wait of a breaker, with the most jitter, and a millisecond that the virtual clock may be late.
const FIRST_WAIT_MS: u64 = 751;
const EPOCH_MS: u64 = 1_000_000;

/// A message of a key that only fails, or never does, and how long after the one before it comes.
#[derive(Clone, Debug)]
struct Arrival {
    bad: bool,
    key: u8,
    gap_ms: u64,
}

/// What was seen until nothing was left to do.
#[derive(Default)]
struct Seen {
    opened: bool,
    runs: u32,
    /// How long each message of a good key waited until it was done.
    waits_ms: Vec<u64>,
}

struct World {
    shard: Shard,
    routing: Arc<Routing>,
    log: MemoryCore,
    breaker: Breaker,
    /// With the time when they come.
    arrivals: VecDeque<(u64, Routed)>,
    came_ms: Vec<(Offset, u64)>,
    began: Instant,
    now_ms: u64,
    seen: Seen,
}

impl World {
    fn new(trip: Trip, on_failure: OnFailure, arrivals: &[Arrival]) -> Self {
        Self::within(Bounds::default(), trip, on_failure, arrivals)
    }

    fn within(bounds: Bounds, trip: Trip, on_failure: OnFailure, arrivals: &[Arrival]) -> Self {
        let handler = HandlerName::parse("h").unwrap();
        let spans = vec![Span { after: Offset::START, subscribe: vec![Pattern::parse("in").unwrap()] }];
        let routing = Arc::new(Routing {
            handler: handler.clone(),
            key: KeyFrom::Message,
            id: IdFrom::Message,
            shards: 1,
            recorded: Offset::START,
            identity: Since::default(),
            spans,
        });
        let settings = BreakerSettings { trip, ..BreakerSettings::default() };
        let policy = Policy { on_failure, breaker: Some(settings.clone()), ..Policy::default() };
        let setup = Setup {
            id: ShardId { handler, index: 0 },
            routing: routing.clone(),
            policy: Arc::new(policy),
            uses_state: false,
            digest: None,
            bounds,
            remembered: Default::default(),
        };
        let message = |arrival: &Arrival| NewMessage {
            key: Key::parse(&format!("{}{}", arrival.bad, arrival.key)).unwrap(),
            ..NewMessage::new(Topic::parse("in").unwrap(), if arrival.bad { "bad" } else { "good" })
        };
        let mut log = MemoryCore::default();
        let messages = arrivals.iter().map(message).collect();
        let messages = log.append(messages, Timestamp(EPOCH_MS)).unwrap().messages;
        let times = arrivals.iter().scan(0, |ms, arrival| {
            *ms += arrival.gap_ms;
            Some(*ms)
        });
        let arrivals: VecDeque<_> =
            times.zip(messages.iter()).map(|(ms, message)| (ms, routing.route(message))).collect();
        let claim = log.claim(&setup.id, Offset::START);
        Self {
            shard: Shard::new(setup, claim, Caution::default()),
            routing,
            log,
            breaker: Breaker::new(settings),
            came_ms: arrivals.iter().map(|(ms, routed)| (routed.message.offset, *ms)).collect(),
            arrivals,
            began: clock::instant(),
            now_ms: 0,
            seen: Seen::default(),
        }
    }

    fn instant(&self) -> Instant {
        self.began + Duration::from_millis(self.now_ms)
    }

    fn wall(&self) -> Timestamp {
        Timestamp(EPOCH_MS + self.now_ms)
    }

    /// The next run, taking up what has come until there is one.
    fn next(&mut self, next: fn(&mut Shard, Timestamp) -> Option<Run>) -> Option<Run> {
        let now = self.wall();
        loop {
            if let Some(run) = next(&mut self.shard, now) {
                return Some(run);
            }
            let has_come = self.arrivals.front().is_some_and(|(ms, _)| *ms <= self.now_ms);
            if !has_come || !self.shard.wants_messages() {
                return None;
            }
            self.shard.offer(self.arrivals.pop_front()?.1);
        }
    }

    /// Reads what the shard asks for; whether it asked.
    fn answer(&mut self) -> bool {
        let needs = self.shard.take_needs();
        let fetched = self.log.fetch(&needs.fetch).into_iter();
        let fetched = fetched.map(|message| message.map(|message| self.routing.route(&message)));
        let fetched: Vec<_> = needs.fetch.iter().copied().zip(fetched).collect();
        let asked = !fetched.is_empty() || needs.scan.is_some();
        self.shard.fetched(fetched);
        if let Some(scan) = needs.scan {
            let patterns = self.routing.patterns_after(scan.after);
            let (messages_max, bytes_max) = (100, usize::MAX);
            let request = ReadRequest { after: scan.after, upto: scan.upto, patterns, messages_max, bytes_max };
            let batch = self.log.read(&request);
            let messages = batch.messages.iter().map(|message| self.routing.route(message)).collect();
            self.shard.scanned(scan, messages, batch.upto);
        }
        asked
    }

    fn run(&mut self, run: Run, ticket: sluicebox::pipeline::breaker::Ticket) {
        let message = run.call.message.clone();
        let bad = &message.body[..] == b"bad";
        let result = match bad {
            true => Err(Failure::Retry { reason: "down".into(), after: None }),
            false => Ok(Effects::default()),
        };
        // The longest wait of a breaker, and of a retry.
        let _ = self.breaker.report(ticket, Sample::of(&result), self.instant(), 1.0);
        self.shard.finish(run.lane, result, None, 0.99, self.wall());
        self.seen.runs += 1;
        self.seen.opened |= matches!(self.breaker.state(), State::Open { .. });
        if !bad {
            let came = self.came_ms.iter().find(|(offset, _)| *offset == message.offset).unwrap().1;
            self.seen.waits_ms.push(self.now_ms - came);
        }
        if let Some(commit) = self.shard.stage() {
            self.log.commit(commit, self.wall()).unwrap();
            self.shard.committed();
        }
    }

    /// Runs what may run now; until when nothing may, unless something comes.
    fn work(&mut self) -> Option<Instant> {
        loop {
            self.shard.wake(self.wall());
            let now = self.instant();
            if let State::Open { until } = self.breaker.state()
                && now < until
            {
                return Some(until);
            }
            let half_open = self.breaker.is_half_open(now);
            let first = if half_open { self.next(Shard::next_first_try) } else { None };
            let Some(run) = first.or_else(|| self.next(Shard::next_run)) else {
                if self.answer() {
                    continue;
                }
                return None;
            };
            match self.breaker.admit(run.tries, now).0 {
                Admit::Run(ticket) => self.run(run, ticket),
                Admit::Until(until) | Admit::RetriesAt(until) => {
                    self.shard.withdraw(run.lane);
                    return Some(until);
                }
                other => panic!("{other:?}, with one run at a time"),
            }
        }
    }

    fn settle(mut self) -> Seen {
        for _ in 0..100_000 {
            let until = self.work().map(|until| (until - self.began).as_micros().div_ceil(1000) as u64);
            let comes = self.arrivals.front().map(|(ms, _)| *ms).filter(|ms| *ms > self.now_ms);
            let due = self.shard.next_due().map(|due| due.0.saturating_sub(EPOCH_MS));
            match until.into_iter().chain(comes).chain(due).min() {
                Some(next) => self.now_ms = next.max(self.now_ms + 1),
                None => return self.seen,
            }
        }
        panic!("it does not come to rest");
    }
}

fn trips() -> impl Strategy<Value = Trip> {
    let window = Duration::from_secs(10);
    prop_oneof![
        Just(BreakerSettings::default().trip),
        (1u32..6).prop_map(|failures| Trip::Consecutive { failures }),
        (1u32..6).prop_map(move |failures| Trip::Count { failures, window }),
        (1u8..=100, 1u32..10).prop_map(move |(percent, samples)| Trip::Rate { percent, samples, window }),
    ]
}

fn arrivals(bad: f64) -> impl Strategy<Value = Vec<Arrival>> {
    let gap_ms = prop_oneof![3 => Just(0u64), 1 => 0u64..3000];
    let arrival = (prop::bool::weighted(bad), 0u8..40, gap_ms);
    prop::collection::vec(arrival.prop_map(|(bad, key, gap_ms)| Arrival { bad, key, gap_ms }), 1..80)
}

fn on_failure() -> impl Strategy<Value = OnFailure> {
    prop_oneof![Just(OnFailure::Park), Just(OnFailure::Skip)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_good_message_waits_no_longer_than_the_first_tries_that_fail_can_make_it(
        trip in trips(),
        on_failure in on_failure(),
        arrivals in (0.05f64..0.95).prop_flat_map(arrivals),
        // From room for one message to room for all.
        held_bytes_max in 1usize..20_000,
    ) {
        let bad = arrivals.iter().filter(|arrival| arrival.bad).count();
        let bounds = Bounds { held_bytes_max, ..Bounds::default() };
        let seen = World::within(bounds, trip, on_failure, &arrivals).settle();
        prop_assert_eq!(seen.waits_ms.len(), arrivals.len() - bad, "a message was not handled");
        let bound = bad as u64 * FIRST_WAIT_MS;
        let longest = seen.waits_ms.iter().max().copied().unwrap_or(0);
        prop_assert!(longest <= bound, "{longest} ms beside {bad} messages that fail");
    }

    #[test]
    fn when_everything_fails_it_opens(trip in trips(), on_failure in on_failure(), keys in 10u8..40) {
        let arrivals: Vec<_> = (0..keys).map(|key| Arrival { bad: true, key, gap_ms: 0 }).collect();
        prop_assert!(World::new(trip, on_failure, &arrivals).settle().opened);
    }
}

#[test]
fn a_good_key_behind_twenty_that_fail_runs_within_seconds_and_one_that_comes_later_at_once() {
    let bad = (0..20).map(|key| Arrival { bad: true, key, gap_ms: 0 });
    let good = |gap_ms| Arrival { bad: false, key: 0, gap_ms };
    let behind: Vec<_> = bad.clone().chain([good(0)]).collect();
    let trip = BreakerSettings::default().trip;
    let seen = World::new(trip, OnFailure::Park, &behind).settle();
    assert!(seen.opened && seen.waits_ms[0] < 10_000, "{:?}", seen.waits_ms);
    // By then each of the twenty was tried: whether the breaker is half-open or closed, nobody is ahead.
    for gap_ms in (10_000..60_000).step_by(500) {
        let later: Vec<_> = bad.clone().chain([good(gap_ms)]).collect();
        assert_eq!(World::new(trip, OnFailure::Park, &later).settle().waits_ms, [0], "after {gap_ms} ms");
    }
}

#[test]
fn one_failing_key_costs_the_others_nothing() {
    let good = (0..200).map(|key| Arrival { bad: false, key, gap_ms: 50 });
    let all: Vec<_> = [Arrival { bad: true, key: 0, gap_ms: 0 }].into_iter().chain(good).collect();
    let seen = World::new(BreakerSettings::default().trip, OnFailure::Park, &all).settle();
    assert_eq!((seen.opened, seen.waits_ms), (false, vec![0; 200]));
    assert_eq!(seen.runs, 200 + 8);
}
