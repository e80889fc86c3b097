//! When a shard takes messages up, each bound alone; and when all that it took up was tried.

use super::*;
use sluicebox::control::Command;

/// A shard over a log that holds a message of each of these keys; an empty one is none.
fn shard_of_keys(setup: &Setup, keys: impl IntoIterator<Item = String>) -> (Shard, MemoryCore, VecDeque<Routed>) {
    let mut log = MemoryCore::default();
    let message = |key: String| NewMessage {
        key: Key::parse(&key).unwrap(),
        ..NewMessage::new(Topic::parse("in").unwrap(), "body")
    };
    let appended = log.append(keys.into_iter().map(message).collect(), NOW).unwrap().messages;
    let routed = appended.iter().map(|message| setup.routing.route(message)).collect();
    let claim = log.claim(&setup.id, Offset::START);
    (Shard::new(setup.clone(), claim, Caution::default()), log, routed)
}

fn numbered(keys: usize) -> impl Iterator<Item = String> {
    (0..keys).map(|key| format!("k{key}"))
}

/// Offers as much as it wants. How many messages that were.
fn take_up(shard: &mut Shard, waiting: &mut VecDeque<Routed>) -> usize {
    let before = waiting.len();
    while shard.wants_messages()
        && let Some(routed) = waiting.pop_front()
    {
        shard.offer(routed);
    }
    before - waiting.len()
}

fn run_one(shard: &mut Shard) {
    let run = shard.next_run(NOW).unwrap();
    shard.finish(run.lane, Ok(Effects::default()), None, 0.0, NOW);
}

#[test]
fn as_many_open_messages_as_may_be_stop_intake_until_one_is_settled() {
    let setup = setup(OnFailure::Park, Bounds { open_max: 3, ..Bounds::default() });
    let (mut shard, _, mut waiting) = shard_of_keys(&setup, numbered(9));
    assert_eq!(take_up(&mut shard, &mut waiting), 3);
    run_one(&mut shard);
    assert_eq!(take_up(&mut shard, &mut waiting), 1);
}

#[test]
fn full_memory_stops_intake_until_there_is_room() {
    let setup = setup(OnFailure::Park, Bounds { held_bytes_max: 1, ..Bounds::default() });
    let (mut shard, _, mut waiting) = shard_of_keys(&setup, numbered(9));
    for _ in 0..3 {
        assert_eq!(take_up(&mut shard, &mut waiting), 1, "one at any rate");
        run_one(&mut shard);
    }
}

#[test]
fn states_that_are_awaited_stop_intake_until_one_comes() {
    let setup = Setup { uses_state: true, ..setup(OnFailure::Park, Bounds::default()) };
    let (mut shard, _, mut waiting) = shard_of_keys(&setup, numbered(5_000));
    let most = take_up(&mut shard, &mut waiting);
    assert!((1..5_000).contains(&most), "{most} at a time");
    let key = shard.take_needs().load.remove(0);
    assert!(!shard.wants_messages(), "they are on their way");
    shard.loaded(vec![(key, Entries::default())]);
    assert_eq!(take_up(&mut shard, &mut waiting), 1);
}

#[test]
fn as_many_outcomes_as_fit_a_commit_stop_intake_and_runs_until_it_is_on_its_way() {
    let setup = setup(OnFailure::Park, Bounds::default());
    let (mut shard, _, mut waiting) = shard_of_keys(&setup, numbered(10_000));
    let mut outcomes = 0;
    while shard.wants_messages() && outcomes < 9_000 {
        shard.offer(waiting.pop_front().unwrap());
        run_one(&mut shard);
        outcomes += 1;
    }
    assert!(outcomes < 9_000, "a commit without a bound");
    assert!(shard.next_run(NOW).is_none());
    assert_eq!(shard.stage().unwrap().marks.len(), 0, "they have no ids");
    assert!(shard.wants_messages(), "the next commit has room");
}

#[test]
fn a_pause_stops_intake_until_it_is_over() {
    let setup = setup(OnFailure::Park, Bounds::default());
    let (mut shard, _, mut waiting) = shard_of_keys(&setup, numbered(2));
    shard.command(Offset(100), Command::Pause, NOW);
    assert_eq!(take_up(&mut shard, &mut waiting), 0);
    shard.command(Offset(101), Command::Resume, NOW);
    assert_eq!(take_up(&mut shard, &mut waiting), 2);
}

/// With one lane for all messages, and room for three of them in it.
fn one_lane(key: KeyFrom, shed_after: Duration) -> Setup {
    let setup = setup(OnFailure::Park, Bounds { lane_items_max: 3, shed_after, ..Bounds::default() });
    Setup { routing: Arc::new(Routing { key, ..Routing::clone(&setup.routing) }), ..setup }
}

#[test]
fn the_only_lane_stops_intake_when_it_is_full_and_one_of_many_does_not() {
    let one_second = Duration::from_secs(1);
    for (key, wanted) in [(KeyFrom::All, 3), (KeyFrom::Message, 8)] {
        let setup = one_lane(key, one_second);
        let (mut shard, _, mut waiting) = shard_of_keys(&setup, vec!["k".to_owned(); 8]);
        assert_eq!(take_up(&mut shard, &mut waiting), wanted, "{:?}", setup.routing.key);
    }
    let setup = one_lane(KeyFrom::All, one_second);
    let (mut shard, _, mut waiting) = shard_of_keys(&setup, vec!["k".to_owned(); 8]);
    take_up(&mut shard, &mut waiting);
    run_one(&mut shard);
    assert_eq!(take_up(&mut shard, &mut waiting), 1);
}

#[test]
fn the_only_lane_stops_intake_while_some_of_it_is_only_in_the_log() {
    let setup = one_lane(KeyFrom::All, Duration::ZERO);
    let (mut shard, log, mut waiting) = shard_of_keys(&setup, vec!["k".to_owned(); 8]);
    (0..2).for_each(|_| shard.offer(waiting.pop_front().unwrap()));
    let run = shard.next_run(NOW).unwrap();
    fail(&mut shard, &run);
    assert_eq!((shard.held_bytes(), take_up(&mut shard, &mut waiting)), (0, 0), "it would be read twice");
    shard.wake(LATER);
    answer(&mut shard, &log, &setup);
    run_one(&mut shard);
    while answer(&mut shard, &log, &setup) {}
    assert!(take_up(&mut shard, &mut waiting) > 0);
}

#[test]
fn a_lane_is_filled_from_the_log_again_when_little_of_it_is_left() {
    let setup = setup(OnFailure::Park, Bounds { lane_items_max: 8, ..Bounds::default() });
    let (mut shard, _, mut waiting) = shard_of_keys(&setup, vec!["k".to_owned(); 20]);
    assert_eq!(take_up(&mut shard, &mut waiting), 20);
    for left in (0..8).rev() {
        assert_eq!(shard.take_needs().scan, None, "{} are left", left + 1);
        run_one(&mut shard);
        if let Some(scan) = shard.take_needs().scan {
            assert_eq!((left, scan.upto), (2, shard.read()), "a quarter of its room");
            return;
        }
    }
    panic!("it waits until nothing is left");
}

#[test]
fn a_lane_that_waits_shortly_keeps_what_comes_and_one_that_gave_its_memory_back_does_not() {
    for (shed_after, kept) in [(Duration::from_secs(1), 3), (Duration::ZERO, 0)] {
        let setup = setup(OnFailure::Park, Bounds { shed_after, ..Bounds::default() });
        let (mut shard, _, mut waiting) = shard_of_keys(&setup, vec!["k".to_owned(); 3]);
        shard.offer(waiting.pop_front().unwrap());
        let one = shard.held_bytes();
        let run = shard.next_run(NOW).unwrap();
        fail(&mut shard, &run);
        take_up(&mut shard, &mut waiting);
        assert_eq!(shard.held_bytes(), kept * one, "{shed_after:?}");
    }
}

#[test]
fn a_place_is_written_when_that_is_asked_for_once_and_only_if_the_shard_moved() {
    let setup = setup(OnFailure::Park, Bounds::default());
    let (mut shard, mut log, _) = shard_of_keys(&setup, []);
    shard.reached(Offset(50), false);
    assert!(shard.stage().is_none(), "nobody asked for it");
    shard.reached(Offset(50), true);
    assert_eq!(record(&mut shard, &mut log).read, Offset(50));
    shard.reached(Offset(50), true);
    assert!(shard.stage().is_none(), "the record says so already");
    shard.commands_reached(Offset(60));
    assert_eq!(record(&mut shard, &mut log).controlled, Offset(60));
}

#[test]
fn all_are_tried_when_what_was_taken_up_failed_here_and_nothing_is_under_way() {
    for on_failure in [OnFailure::Park, OnFailure::Skip] {
        // They keep their messages in memory while they wait, or give them back.
        for shed_after in [Duration::from_secs(1), Duration::ZERO] {
            let setup = setup(on_failure, Bounds { shed_after, ..Bounds::default() });
            let (mut shard, mut log, mut waiting) = shard_of_keys(&setup, numbered(2));
            assert!(shard.are_all_tried(), "there is none");
            for _ in 0..2 {
                shard.offer(waiting.pop_front().unwrap());
                assert!(!shard.are_all_tried(), "one was not begun");
                let run = shard.next_run(NOW).unwrap();
                assert!(!shard.are_all_tried() && !shard.is_idle(), "it runs");
                fail(&mut shard, &run);
                assert!(!shard.are_all_tried(), "its outcome is not written");
                record(&mut shard, &mut log);
                assert!(shard.are_all_tried(), "{on_failure:?}, {shed_after:?}");
            }
            shard.wake(LATER);
            while answer(&mut shard, &log, &setup) {}
            let run = shard.next_run(LATER).unwrap();
            assert!(!shard.are_all_tried() && !shard.is_idle(), "its retry runs");
            shard.finish(run.lane, Ok(Effects::default()), None, 0.0, LATER);
            record(&mut shard, &mut log);
            assert!(shard.are_all_tried(), "the other one is due");
        }
    }
}

#[test]
fn what_is_only_in_the_log_was_not_tried() {
    let setup = setup(OnFailure::Park, Bounds { lane_items_max: 1, ..Bounds::default() });
    let (mut shard, mut log, mut waiting) = shard_of_keys(&setup, vec!["k".to_owned(); 2]);
    shard.offer(waiting.pop_front().unwrap());
    let run = shard.next_run(NOW).unwrap();
    fail(&mut shard, &run);
    shard.offer(waiting.pop_front().unwrap());
    record(&mut shard, &mut log);
    assert!(shard.is_idle() && !shard.are_all_tried());
}

#[test]
fn after_a_restart_what_the_record_names_was_tried_when_it_failed_again() {
    for on_failure in [OnFailure::Park, OnFailure::Skip] {
        let setup = setup(on_failure, Bounds::default());
        let (mut shard, mut log, mut waiting) = shard_of_keys(&setup, numbered(1));
        shard.offer(waiting.pop_front().unwrap());
        let run = shard.next_run(NOW).unwrap();
        fail(&mut shard, &run);
        record(&mut shard, &mut log);
        let mut shard = Shard::new(setup.clone(), log.claim(&setup.id, Offset::START), Caution::default());
        assert!(shard.is_idle() && !shard.are_all_tried(), "{on_failure:?}");
        shard.wake(LATER);
        while answer(&mut shard, &log, &setup) {}
        let run = shard.next_run(LATER).unwrap();
        assert_eq!(run.call.attempt, 2);
        fail(&mut shard, &run);
        record(&mut shard, &mut log);
        assert!(shard.are_all_tried(), "{on_failure:?}");
    }
}
