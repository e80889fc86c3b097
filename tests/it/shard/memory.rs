//! What a shard holds in memory: within what it may, whatever waits.

use super::*;
use sluicebox::message::MESSAGE_BYTES_MAX;

/// A shard over a log with messages of these keys, of so many bytes each, offered as long as it wants them.
fn shard_of(bounds: Bounds, messages: &[(&str, usize)]) -> (Shard, MemoryCore, VecDeque<Routed>, Setup) {
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
