//! What a shard holds in memory: within what it may, whatever waits.

use super::*;
use sluicebox::message::MESSAGE_BYTES_MAX;

/// A shard over a log with messages of these keys, of so many bytes each, offered as long as it wants them.
pub(super) fn shard_of(bounds: Bounds, messages: &[(&str, usize)]) -> (Shard, MemoryCore, VecDeque<Routed>, Setup) {
    let setup = setup(OnFailure::Park, bounds);
    let mut log = MemoryCore::default();
    let message = |(key, bytes): &(&str, usize)| NewMessage {
        key: Key::parse(key).unwrap(),
        ..NewMessage::new(Topic::parse("in").unwrap(), vec![0; *bytes])
    };
    let appended = log.append(messages.iter().map(message).collect(), NOW).unwrap();
    let routed = appended.messages.iter().map(|message| setup.routing.route(message)).collect();
    let claim = log.claim(&setup.id, Offset::START);
    (Shard::new(setup.clone(), claim, Caution::default()), log, routed, setup)
}

/// Takes up and runs what it can, lets `bad` keys fail, and returns the keys that were done.
fn run_all(shard: &mut Shard, waiting: &mut VecDeque<Routed>, now: Timestamp) -> Vec<String> {
    let mut done = vec![];
    loop {
        if let Some(run) = shard.next_run(now) {
            let key = run.call.key.clone().unwrap().as_str().to_owned();
            if key.starts_with("bad") {
                shard.finish(run.lane, Err(Failure::Trap { reason: "x".into() }), None, 0.5, now);
            } else {
                shard.finish(run.lane, Ok(Effects::default()), None, 0.0, now);
                done.push(key);
            }
            continue;
        }
        match waiting.pop_front() {
            Some(routed) if shard.wants_messages() => shard.offer(routed),
            Some(routed) => {
                waiting.push_front(routed);
                return done;
            }
            None => return done,
        }
    }
}

const BODY: usize = 512 * 1024;

#[test]
fn large_messages_that_wait_behind_a_failing_one_give_their_memory_back_before_intake_stops() {
    let mut messages = vec![("bad", BODY); 64];
    messages.extend(vec![("good", BODY); 64]);
    let (mut shard, _, mut waiting, _) = shard_of(Bounds::default(), &messages);
    let done = run_all(&mut shard, &mut waiting, NOW);
    assert_eq!((done.len(), waiting.len()), (64, 0), "a healthy key waits for a failing one");
    assert!(shard.held_bytes() < BODY * 17, "{}", shard.held_bytes());
    assert!(shard.held_bytes_add_up());
}

#[test]
fn large_messages_that_wait_behind_one_that_runs_give_their_memory_back_before_intake_stops() {
    let mut messages = vec![("slow", BODY); 64];
    messages.extend(vec![("good", BODY); 64]);
    let (mut shard, _, mut waiting, _) = shard_of(Bounds::default(), &messages);
    shard.offer(waiting.pop_front().unwrap());
    let slow = shard.next_run(NOW).unwrap();
    let done = run_all(&mut shard, &mut waiting, NOW);
    assert_eq!((done.len(), waiting.len()), (64, 0), "a healthy key waits for one that runs");
    shard.finish(slow.lane, Ok(Effects::default()), None, 0.0, NOW);
    assert!(shard.held_bytes_add_up());
}

#[test]
fn after_a_restart_failed_messages_are_fetched_within_the_memory_that_is_allowed() {
    let keys: Vec<String> = (0..200).map(|key| format!("bad{key}")).collect();
    let messages: Vec<(&str, usize)> = keys.iter().map(|key| (key.as_str(), BODY)).collect();
    let (mut shard, mut log, mut waiting, setup) = shard_of(Bounds::default(), &messages);
    run_all(&mut shard, &mut waiting, NOW);
    record(&mut shard, &mut log);
    let claim = log.claim(&setup.id, Offset::START);
    assert_eq!(claim.record.open.len(), 200);
    let mut shard = Shard::new(setup.clone(), claim, Caution::default());
    let allowed = 4 * 1024 * 1024;
    shard.allow(Allowance { bytes_max: allowed, is_tight: true });
    let good =
        NewMessage { key: Key::parse("good").unwrap(), ..NewMessage::new(Topic::parse("in").unwrap(), vec![0; BODY]) };
    let good = log.append(vec![good], NOW).unwrap().messages[0].clone();
    let mut waiting = VecDeque::from([setup.routing.route(&good)]);
    shard.wake(LATER);
    let (mut tried, mut most, mut done) = (0, 0, vec![]);
    for _ in 0..1000 {
        let needs = shard.take_needs();
        tried += needs.fetch.len();
        most = most.max(shard.held_bytes());
        // What is new does not wait for all that are to be fetched.
        done.extend(run_all(&mut shard, &mut waiting, LATER));
        let fetched = log.fetch(&needs.fetch).into_iter().map(|found| found.map(|found| setup.routing.route(&found)));
        shard.fetched(needs.fetch.iter().copied().zip(fetched).collect());
        most = most.max(shard.held_bytes());
        assert!(shard.held_bytes_add_up());
        assert!(!done.is_empty(), "the healthy key waits for the failed ones");
    }
    assert!(tried >= 200 && most <= allowed, "{tried} fetched, {most} bytes at most");
}

#[test]
fn after_a_restart_several_messages_are_fetched_at_a_time_while_the_host_has_plenty() {
    let keys: Vec<String> = (0..20).map(|key| format!("bad{key}")).collect();
    let messages: Vec<(&str, usize)> = keys.iter().map(|key| (key.as_str(), BODY)).collect();
    let (mut shard, mut log, mut waiting, setup) = shard_of(Bounds::default(), &messages);
    run_all(&mut shard, &mut waiting, NOW);
    record(&mut shard, &mut log);
    let mut shard = Shard::new(setup.clone(), log.claim(&setup.id, Offset::START), Caution::default());
    // What a host with plenty lets each shard take ahead for a turn.
    shard.allow(Allowance { bytes_max: 2 * 1024 * 1024 - MESSAGE_BYTES_MAX, is_tight: false });
    shard.wake(LATER);
    let fetched = shard.take_needs().fetch.len();
    assert!(fetched > 1, "{fetched} at a time");
}

/// Three messages of each of five keys, all in memory and none begun.
fn with_five_lanes() -> (Shard, MemoryCore, Setup) {
    let keys = ["a", "b", "c", "d", "e"];
    let messages: Vec<(&str, usize)> = (0..15).map(|number| (keys[number % 5], 1000)).collect();
    let (mut shard, log, waiting, setup) = shard_of(Bounds::default(), &messages);
    waiting.into_iter().for_each(|message| shard.offer(message));
    (shard, log, setup)
}

#[test]
fn at_rest_nothing_stays_in_memory_and_afterwards_all_is_done_in_order() {
    for keep in [Keep::Nothing, Keep::FirstTry] {
        let (mut shard, log, setup) = with_five_lanes();
        let one = shard.held_bytes() / 15;
        shard.rest(keep);
        assert_eq!(shard.held_bytes(), if keep == Keep::Nothing { 0 } else { one });
        assert!(shard.held_bytes_add_up());
        let mut done: Vec<(String, Offset)> = vec![];
        for _ in 0..1000 {
            while let Some(run) = shard.next_run(NOW) {
                let key = run.call.key.clone().unwrap().as_str().to_owned();
                done.push((key, run.call.message.offset));
                shard.finish(run.lane, Ok(Effects::default()), None, 0.0, NOW);
            }
            if shard.stage().is_some() {
                shard.committed();
            }
            answer(&mut shard, &log, &setup);
        }
        assert_eq!(done.len(), 15);
        for key in ["a", "b", "c", "d", "e"] {
            let offsets: Vec<Offset> = done.iter().filter(|(of, _)| of == key).map(|(_, offset)| *offset).collect();
            assert!(offsets.is_sorted(), "{offsets:?}");
        }
    }
}

#[test]
fn what_is_kept_to_be_tried_never_failed() {
    let messages = [("bad", 1000), ("good", 1000)];
    let (mut shard, _, mut waiting, _) = shard_of(Bounds::default(), &messages);
    shard.offer(waiting.pop_front().unwrap());
    let run = shard.next_run(NOW).unwrap();
    shard.finish(run.lane, Err(Failure::Trap { reason: "x".into() }), None, 0.5, NOW);
    shard.wake(LATER);
    shard.offer(waiting.pop_front().unwrap());
    shard.rest(Keep::FirstTry);
    let run = shard.next_first_try(LATER).expect("its message is there");
    assert_eq!(run.call.key.unwrap().as_str(), "good");
}

/// Answers what the shard wants read, states too; how many messages came.
pub(super) fn answer_with_states(shard: &mut Shard, log: &MemoryCore, setup: &Setup) -> usize {
    let needs = shard.take_needs();
    let fetched = log.fetch(&needs.fetch).into_iter().map(|found| found.map(|found| setup.routing.route(&found)));
    shard.fetched(needs.fetch.iter().copied().zip(fetched).collect());
    if !needs.load.is_empty() {
        shard.loaded(needs.load.into_iter().map(|key| (key, Entries::default())).collect());
    }
    needs.fetch.len()
}

/// States that no commit needs leave memory, which has no room for any.
fn evict(shard: &mut Shard) {
    shard.loaded(vec![]);
}

/// A shard at rest whose runs need a state that memory does not keep, with five lanes that failed before or not.
fn at_rest_with_states(failed: bool) -> (Shard, MemoryCore, Setup) {
    let messages = ["a", "b", "c", "d", "e"].map(|key| (key, 1000));
    let (_, log, waiting, setup) = shard_of(Bounds { state_bytes_max: 1, ..Bounds::default() }, &messages);
    let setup = Setup { uses_state: true, ..setup };
    let mut shard = Shard::new(setup.clone(), log.clone().claim(&setup.id, Offset::START), Caution::default());
    waiting.into_iter().for_each(|message| shard.offer(message));
    if failed {
        answer_with_states(&mut shard, &log, &setup);
        while let Some(run) = shard.next_run(NOW) {
            fail(&mut shard, &run);
        }
        shard.wake(LATER);
    }
    shard.rest(Keep::Nothing);
    while shard.expects_message() {
        answer_with_states(&mut shard, &log, &setup);
    }
    shard.rest(Keep::Nothing);
    evict(&mut shard);
    assert_eq!(shard.held_bytes(), 0);
    (shard, log, setup)
}

#[test]
fn at_rest_the_message_that_is_asked_for_waits_for_its_state_and_is_tried() {
    for (failed, evicted) in [(false, false), (true, false), (false, true), (true, true)] {
        let (mut shard, log, setup) = at_rest_with_states(failed);
        let (mut fetched, mut tried) = (0, 0);
        // As a breaker that is half-open asks, which rests in between.
        for round in 0..20 {
            if let Some(run) = shard.next_first_try(LATER).or_else(|| shard.next_run(LATER)) {
                fail(&mut shard, &run);
                tried += 1;
                break;
            }
            assert!(shard.expects_message(), "it is at rest until something comes");
            shard.rest(Keep::FirstTry);
            fetched += answer_with_states(&mut shard, &log, &setup);
            if evicted && round == 1 {
                // The state came, and went before it was asked for.
                evict(&mut shard);
            }
        }
        assert_eq!((fetched, tried), (1, 1), "failed before: {failed}, evicted: {evicted}");
        shard.rest(Keep::FirstTry);
        assert_eq!(shard.held_bytes(), 0);
        assert!(shard.held_bytes_add_up());
    }
}

#[test]
fn a_retry_that_waits_for_its_state_at_rest_gives_way_to_a_first_try() {
    let (mut shard, mut log, setup) = at_rest_with_states(true);
    // A retry was let through, and is not when its state comes.
    assert!(shard.next_run(LATER).is_none());
    answer_with_states(&mut shard, &log, &setup);
    shard.rest(Keep::FirstTry);
    assert!(shard.held_bytes() > 0);
    answer_with_states(&mut shard, &log, &setup);
    let good = NewMessage { key: Key::parse("good").unwrap(), ..NewMessage::new(Topic::parse("in").unwrap(), "") };
    shard.offer(setup.routing.route(&log.append(vec![good], NOW).unwrap().messages[0]));
    for _ in 0..20 {
        if let Some(run) = shard.next_first_try(LATER) {
            assert_eq!(run.call.key.unwrap().as_str(), "good");
            return;
        }
        shard.rest(Keep::FirstTry);
        answer_with_states(&mut shard, &log, &setup);
    }
    panic!("the first try waits for a retry");
}

#[test]
fn at_rest_one_message_is_asked_for_at_a_time_and_only_for_a_run() {
    let (mut shard, log, setup) = with_five_lanes();
    shard.rest(Keep::Nothing);
    assert_eq!(shard.take_needs().fetch, vec![], "nobody asked for a run");
    for _ in 0..3 {
        assert!(shard.next_run(NOW).is_none());
    }
    assert_eq!(shard.take_needs().fetch.len(), 1);
    shard.rest(Keep::Nothing);
    assert!(shard.next_run(NOW).is_none() && !answer(&mut shard, &log, &setup), "the one is under way");
}

#[test]
fn what_comes_at_rest_is_given_back_too_and_what_is_due_is_not_fetched() {
    let messages = [("bad", 1000), ("good", 1000)];
    let (mut shard, log, mut waiting, setup) = shard_of(Bounds::default(), &messages);
    run_all(&mut shard, &mut waiting, NOW);
    shard.rest(Keep::Nothing);
    assert_eq!(shard.held_bytes(), 0);
    shard.wake(LATER);
    assert!(!answer(&mut shard, &log, &setup), "it is due, and nobody asked for a run");
    assert!(shard.next_run(LATER).is_none() && answer(&mut shard, &log, &setup));
    assert!(shard.held_bytes() > 0);
    shard.rest(Keep::Nothing);
    assert_eq!(shard.held_bytes(), 0);
}

#[test]
fn a_run_under_way_keeps_its_message_at_rest() {
    let (mut shard, _, _) = with_five_lanes();
    let one = shard.held_bytes() / 15;
    let run = shard.next_run(NOW).unwrap();
    shard.rest(Keep::Nothing);
    assert_eq!(shard.held_bytes(), one);
    shard.finish(run.lane, Err(Failure::Trap { reason: "x".into() }), None, 0.5, NOW);
    shard.rest(Keep::Nothing);
    assert_eq!(shard.held_bytes(), 0);
}

#[test]
fn a_lane_is_filled_from_the_log_no_further_than_its_bound() {
    let bounds = Bounds { lane_items_max: 4, ..Bounds::default() };
    let (mut shard, log, messages, setup) = shard_of(bounds, &[("k", 10); 40]);
    let one = messages[0].message.bytes();
    messages.into_iter().for_each(|message| shard.offer(message));
    let (mut done, mut most) = (0, shard.held_bytes());
    for _ in 0..40 {
        while let Some(run) = shard.next_run(NOW) {
            shard.finish(run.lane, Ok(Effects::default()), None, 0.0, NOW);
            done += 1;
        }
        answer(&mut shard, &log, &setup);
        most = most.max(shard.held_bytes());
    }
    assert_eq!((done, most), (40, 4 * one));
}
