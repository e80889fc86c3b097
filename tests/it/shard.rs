//! Situations of a single shard that the simulation meets rarely.

mod claimed;
mod intake;
mod marks;
mod memory;
mod now;
mod orders;
mod refused;
mod restart;
mod room;
mod states;

use sluicebox::clock::Timestamp;
use sluicebox::commit::{DeadFilter, DeadQuery, HeadScope, LogId, Record};
use sluicebox::effects::{Effects, Entries, Outgoing};
use sluicebox::handler::{HandlerName, Retry};
use sluicebox::handler::{OnFailure, Policy, ShardId};
use sluicebox::invoke::Failure;
use sluicebox::log::ReadRequest;
use sluicebox::log::memory::MemoryCore;
use sluicebox::message::{HEADERS_BYTES_MAX, HEADERS_MAX, Headers, Message, NewMessage, WorkId};
use sluicebox::message::{Key, Offset};
use sluicebox::pipeline::Settled;
use sluicebox::routing::{IdFrom, KeyFrom, Since, Span};
use sluicebox::routing::{Routed, Routing};
use sluicebox::shard::{Allowance, Bounds, Caution, Keep, Run, Setup, Shard};
use sluicebox::topic::{Pattern, Topic};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

const NOW: Timestamp = Timestamp(1_000_000);
const LATER: Timestamp = Timestamp(9_000_000);

fn setup(on_failure: OnFailure, bounds: Bounds) -> Setup {
    let retry = Retry { attempts: 9, min: Duration::from_secs(1), max: Duration::from_secs(1) };
    Setup {
        id: ShardId { handler: HandlerName::parse("h").unwrap(), index: 0 },
        routing: Arc::new(Routing {
            handler: HandlerName::parse("h").unwrap(),
            key: KeyFrom::Message,
            id: IdFrom::Message,
            shards: 1,
            recorded: Offset::START,
            identity: Since::default(),
            spans: vec![Span { after: Offset::START, subscribe: vec![Pattern::parse("in").unwrap()] }],
        }),
        policy: Arc::new(Policy { on_failure, retry, ..Policy::default() }),
        uses_state: false,
        digest: None,
        bounds,
        remembered: Default::default(),
    }
}

/// A shard over a log that holds `messages` messages of one key.
fn shard(setup: Setup, messages: usize) -> (Shard, MemoryCore, VecDeque<Routed>) {
    let mut log = MemoryCore::default();
    let message = NewMessage { key: Key::parse("k").unwrap(), ..NewMessage::new(Topic::parse("in").unwrap(), "body") };
    let appended = log.append(vec![message; messages], NOW).unwrap();
    let routed = appended.messages.iter().map(|message| setup.routing.route(message)).collect();
    let claim = log.claim(&setup.id, Offset::START);
    (Shard::new(setup, claim, Caution::default()), log, routed)
}

fn fail(shard: &mut Shard, run: &Run) {
    let failure = Failure::Retry { reason: "down".into(), after: None };
    shard.finish(run.lane, Err(failure), None, 0.5, NOW);
}

/// Writes what the shard staged, and returns the record a successor would read.
fn record(shard: &mut Shard, log: &mut MemoryCore) -> Record {
    let commit = shard.stage().unwrap();
    log.commit(commit, NOW).unwrap();
    shard.committed();
    log.clone().claim(shard.id(), Offset::START).record
}

/// Answers what the shard wants read; whether it wanted anything.
fn answer(shard: &mut Shard, log: &MemoryCore, setup: &Setup) -> bool {
    let needs = shard.take_needs();
    let route = |message: &Arc<Message>| setup.routing.route(message);
    let fetched = log.fetch(&needs.fetch).into_iter().map(|message| message.as_ref().map(route));
    shard.fetched(needs.fetch.iter().copied().zip(fetched).collect());
    if let Some(scan) = needs.scan {
        let (messages_max, bytes_max) = (100, scan.bytes_max);
        let (after, upto, patterns) = (scan.after, scan.upto, setup.routing.patterns_after(scan.after));
        let batch = log.read(&ReadRequest { after, upto, patterns, messages_max, bytes_max });
        shard.scanned(scan, batch.messages.iter().map(route).collect(), batch.upto);
    }
    !needs.fetch.is_empty() || needs.scan.is_some()
}

#[test]
fn a_message_that_fails_beside_one_that_gave_up_its_place_stays_in_the_record() {
    let bounds = Bounds { lane_items_max: 1, ..Bounds::default() };
    let (mut shard, mut log, mut messages) = shard(setup(OnFailure::Skip, bounds), 3);
    shard.offer(messages.pop_front().unwrap());
    let first = shard.next_run(NOW).unwrap();
    fail(&mut shard, &first);
    // The second runs, the third is only in the log, and the first comes back behind the second.
    let second_offset = messages[0].message.offset;
    shard.offer(messages.pop_front().unwrap());
    shard.offer(messages.pop_front().unwrap());
    let second = shard.next_run(NOW).unwrap();
    assert_eq!(second.call.message.offset, second_offset);
    shard.wake(LATER);
    fail(&mut shard, &second);
    let open = record(&mut shard, &mut log).open;
    let head = open.iter().find(|head| head.offset == second_offset).unwrap();
    assert_eq!((head.scope, head.attempt), (HeadScope::Lane, 1), "{open:?}");
}

#[test]
fn a_lane_that_cannot_be_filled_is_not_scanned_for() {
    let bounds = Bounds { lane_items_max: 8, held_bytes_max: 1, ..Bounds::default() };
    let (mut shard, _, mut messages) = shard(setup(OnFailure::Park, bounds), 3);
    shard.offer(messages.pop_front().unwrap());
    let run = shard.next_run(NOW).unwrap();
    messages.drain(..).for_each(|message| shard.offer(message));
    for _ in 0..3 {
        assert_eq!(shard.take_needs().scan, None, "memory is full, so a scan would bring nothing");
    }
    shard.finish(run.lane, Ok(Effects::default()), None, 0.0, NOW);
    assert!(shard.take_needs().scan.is_some());
}

#[test]
fn twins_without_a_key_wait_for_each_other() {
    let setup = setup(OnFailure::Park, Bounds::default());
    let mut log = MemoryCore::default();
    let message = NewMessage { id: Some("same".into()), ..NewMessage::new(Topic::parse("in").unwrap(), "body") };
    let appended = log.append(vec![message.clone(), message], NOW).unwrap();
    let claim = log.claim(&setup.id, Offset::START);
    let mut shard = Shard::new(setup.clone(), claim, Caution::default());
    appended.messages.iter().for_each(|message| shard.offer(setup.routing.route(message)));
    let run = shard.next_run(NOW).unwrap();
    assert!(shard.next_run(NOW).is_none(), "its twin runs");
    shard.finish(run.lane, Ok(Effects::default()), None, 0.0, NOW);
    assert!(shard.next_run(NOW).is_none(), "it is a duplicate now");
    let report = {
        let commit = shard.stage().unwrap();
        assert_eq!((commit.marks.len(), commit.open_put.len()), (1, 0));
        shard.committed()
    };
    let settled: Vec<[u64; 4]> = report.settled.iter().map(|(_, counts)| counts).collect();
    assert_eq!((Settled::ALL[0], Settled::ALL[1], settled), (Settled::Done, Settled::Duplicate, vec![[1, 1, 0, 0]]));
}

#[test]
fn a_trace_comes_out_when_the_commit_is_durable_and_its_outputs_are_in_it() {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let setup = setup(OnFailure::Park, Bounds::default());
    let mut log = MemoryCore::default();
    let plain = NewMessage::new(Topic::parse("in").unwrap(), "");
    let traced = NewMessage { headers: Headers::new(vec![("traceparent".into(), TRACE.into())]), ..plain.clone() };
    let appended = log.append(vec![plain, traced], NOW).unwrap().messages;
    let mut shard = Shard::new(setup.clone(), log.claim(&setup.id, Offset::START), Caution::default());
    appended.iter().for_each(|message| shard.offer(setup.routing.route(message)));
    run_all_with_an_output(&mut shard);
    let outputs = shard.stage().unwrap().outputs;
    let traces: Vec<Option<&str>> = outputs.iter().map(|output| output.headers.get("traceparent")).collect();
    assert_eq!(traces, [None, Some(TRACE)]);
    let report = shard.committed();
    let settled: Vec<(WorkId, String, Settled)> =
        report.traced.iter().map(|traced| (traced.work, traced.trace.to_string(), traced.outcome)).collect();
    assert_eq!(settled, [(appended[1].offset.into(), TRACE.to_owned(), Settled::Done)]);
    assert_eq!(report.oldest, Some(NOW));
}

/// Runs all that is ready, each with one output.
fn run_all_with_an_output(shard: &mut Shard) {
    while let Some(run) = shard.next_run(NOW) {
        let output = Outgoing {
            topic: Topic::parse("out").unwrap(),
            key: None,
            id: None,
            headers: Headers::default(),
            body: "".into(),
            delay: None,
        };
        shard.finish(run.lane, Ok(Effects { outputs: vec![output], ..Effects::default() }), None, 0.0, NOW);
    }
}

/// Runs all that the log holds in a shard of its own, each with one output, and returns the ids of the outputs.
fn output_ids(setup: &Setup, log: &MemoryCore, messages: &[Arc<Message>]) -> Vec<Arc<str>> {
    let claim = log.clone().claim(&setup.id, Offset::START);
    let mut shard = Shard::new(setup.clone(), claim, Caution::default());
    messages.iter().for_each(|message| shard.offer(setup.routing.route(message)));
    run_all_with_an_output(&mut shard);
    shard.stage().unwrap().outputs.into_iter().map(|output| output.id.unwrap()).collect()
}

#[test]
fn a_derived_id_names_one_run_and_is_the_same_at_every_try() {
    let mut setup = setup(OnFailure::Park, Bounds::default());
    setup.policy = Arc::new(Policy { dedup: None, ..Policy::default() });
    setup.routing = Arc::new(Routing {
        spans: vec![Span { after: Offset::START, subscribe: vec![Pattern::parse(">").unwrap()] }],
        ..Routing::clone(&setup.routing)
    });
    let message = |topic: &str| NewMessage {
        key: Key::parse("k").unwrap(),
        id: Some("same".into()),
        ..NewMessage::new(Topic::parse(topic).unwrap(), "body")
    };
    let messages = vec![message("in"), message("in"), message("other")];
    let mut log = MemoryCore::new(LogId(1));
    let appended = log.append(messages.clone(), NOW).unwrap().messages;
    let ids = output_ids(&setup, &log, &appended);
    assert_eq!(ids.len(), 3);
    assert_eq!(output_ids(&setup, &log, &appended), ids, "another try, by another host");
    // The same messages at the same offsets of another log, and under another handler.
    let mut other_log = MemoryCore::new(LogId(2));
    let same = other_log.append(messages, NOW).unwrap().messages;
    let mut all = [ids, output_ids(&setup, &other_log, &same)].concat();
    setup.id.handler = HandlerName::parse("other").unwrap();
    all.extend(output_ids(&setup, &log, &appended));
    let distinct: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), 9, "{all:?}");
}

/// Offers messages of these keys, lets each fail as often as told, and returns the offsets in the order they were done.
/// Every so many rounds the shard is at rest; 0: never.
fn work_off(keys: &[(u8, u32)], bounds: Bounds, rests: usize) -> Vec<(u8, u64)> {
    let setup = setup(OnFailure::Park, bounds);
    let mut log = MemoryCore::default();
    let messages = keys.iter().map(|(key, fails)| NewMessage {
        key: Key::parse(&format!("k{key}")).unwrap(),
        ..NewMessage::new(Topic::parse("in").unwrap(), fails.to_string())
    });
    let appended = log.append(messages.collect(), NOW).unwrap().messages;
    let mut waiting: VecDeque<Routed> = appended.iter().map(|message| setup.routing.route(message)).collect();
    let claim = log.claim(&setup.id, Offset::START);
    let mut shard = Shard::new(setup.clone(), claim, Caution::default());
    let (mut done, mut now) = (vec![], NOW);
    for round in 1..10_000 {
        while shard.wants_messages()
            && let Some(routed) = waiting.pop_front()
        {
            shard.offer(routed);
        }
        while let Some(run) = shard.next_run(now) {
            let message = &run.call.message;
            let fails: u32 = std::str::from_utf8(&message.body).unwrap().parse().unwrap();
            if run.call.attempt <= fails {
                shard.finish(run.lane, Err(Failure::Trap { reason: "x".into() }), None, 0.5, now);
            } else {
                let key = message.key.as_ref().unwrap().as_str()[1..].parse().unwrap();
                done.push((key, message.offset.0));
                shard.finish(run.lane, Ok(Effects::default()), None, 0.0, now);
            }
        }
        let plenty = Allowance { bytes_max: bounds.held_bytes_max, is_tight: false };
        if rests > 0 && round % rests == 0 {
            shard.rest(if round % 2 == 0 { Keep::Nothing } else { Keep::FirstTry });
            assert!(round % 2 > 0 || shard.held_bytes() == 0, "it holds {} bytes at rest", shard.held_bytes());
        } else {
            shard.allow(plenty);
        }
        let needs = shard.take_needs();
        let route = |message: &Arc<Message>| setup.routing.route(message);
        let fetched = log.fetch(&needs.fetch).into_iter().map(|message| message.as_ref().map(route));
        shard.fetched(needs.fetch.iter().copied().zip(fetched).collect());
        if let Some(scan) = needs.scan {
            let request = sluicebox::log::ReadRequest {
                after: scan.after,
                upto: scan.upto,
                patterns: vec![],
                messages_max: 3,
                bytes_max: usize::MAX,
            };
            let batch = log.read(&request);
            shard.scanned(scan, batch.messages.iter().map(route).collect(), batch.upto);
        }
        if shard.stage().is_some() {
            shard.committed();
        }
        assert!(shard.held_bytes_add_up());
        now = now.after(Duration::from_millis(700));
        shard.wake(now);
    }
    assert_eq!((waiting.len(), shard.open_len()), (0, 0), "something was never handled");
    done
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]

    #[test]
    fn every_lane_is_worked_off_in_order_whatever_fails_and_however_little_fits_in_memory(
        keys in proptest::collection::vec((0u8..4, 0u32..3), 1..40),
        lane_items_max in 1usize..6,
        held_bytes_max in 1usize..2_000,
        open_max in 2usize..6,
        rests in 0usize..4,
    ) {
        let bounds = Bounds { lane_items_max, held_bytes_max, open_max, ..Bounds::default() };
        let done = work_off(&keys, bounds, rests);
        proptest::prop_assert_eq!(done.len(), keys.len());
        for key in 0..4 {
            let offsets: Vec<u64> = done.iter().filter(|(of, _)| *of == key).map(|(_, offset)| *offset).collect();
            proptest::prop_assert!(offsets.is_sorted(), "{:?}", offsets);
        }
    }
}

#[test]
fn a_trace_goes_where_the_headers_have_room_for_it_and_its_state_with_it() {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let setup = setup(OnFailure::Park, Bounds::default());
    let mut log = MemoryCore::default();
    let headers = vec![("traceparent".into(), PARENT.into()), ("tracestate".into(), "a=1".into())];
    let input = NewMessage { headers: Headers::new(headers), ..NewMessage::new(Topic::parse("in").unwrap(), "") };
    let appended = log.append(vec![input], NOW).unwrap().messages;
    let mut shard = Shard::new(setup.clone(), log.claim(&setup.id, Offset::START), Caution::default());
    shard.offer(setup.routing.route(&appended[0]));
    let run = shard.next_run(NOW).unwrap();
    let output = |headers: Vec<(String, String)>| Outgoing {
        topic: Topic::parse("out").unwrap(),
        key: None,
        id: None,
        headers: Headers::new(headers),
        body: "".into(),
        delay: None,
    };
    let filled = |free: usize| vec![("h".to_owned(), "x".repeat(HEADERS_BYTES_MAX - 1 - free))];
    let parent_bytes = "traceparent".len() + PARENT.len();
    let outputs = vec![
        output(vec![]),
        output(vec![("traceparent".into(), "own".into())]),
        output(filled(0)),
        output(filled(parent_bytes)),
        output(vec![("h".to_owned(), String::new()); HEADERS_MAX]),
    ];
    shard.finish(run.lane, Ok(Effects { outputs, ..Effects::default() }), None, 0.0, NOW);
    let outputs = shard.stage().unwrap().outputs;
    let carried = |output: &NewMessage| {
        output.check().unwrap();
        (output.headers.get("traceparent") == Some(PARENT), output.headers.get("tracestate") == Some("a=1"))
    };
    let carried: Vec<(bool, bool)> = outputs.iter().map(carried).collect();
    assert_eq!(carried, [(true, true), (false, false), (false, false), (true, false), (false, false)]);
}
