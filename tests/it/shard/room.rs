//! Room in memory: what is given back, and what is asked for while there is little.

use super::memory::{answer_with_states, shard_of};
use super::*;

const BODY: usize = 10_000;

#[test]
fn with_memory_full_what_waits_behind_a_run_gives_its_memory_back_at_the_first_look() {
    let bounds = Bounds { held_bytes_max: 16 * BODY, ..Bounds::default() };
    let keys: Vec<String> = (0..20).map(|key| format!("k{key}")).collect();
    let mut messages = vec![("slow", BODY); 6];
    messages.extend(keys.iter().map(|key| (key.as_str(), BODY)));
    let (mut shard, _, mut waiting, _) = shard_of(bounds, &messages);
    for _ in 0..6 {
        shard.offer(waiting.pop_front().unwrap());
    }
    let mut running = 0;
    while shard.wants_messages() {
        while shard.next_run(NOW).is_some() {
            running += 1;
        }
        shard.offer(waiting.pop_front().unwrap());
    }
    assert!(running > 1 && !shard.wants_messages());
    // The last one that was taken up runs too, and then nothing is left to begin.
    assert!(shard.next_run(NOW).is_some() && shard.next_run(NOW).is_none());
    assert!(shard.wants_messages(), "{} bytes are held", shard.held_bytes());
    assert!(shard.held_bytes_add_up());
}

#[test]
fn with_memory_full_messages_that_gave_up_their_place_give_their_memory_back_too() {
    let bounds = Bounds { held_bytes_max: 16 * BODY, ..Bounds::default() };
    let keys: Vec<String> = (0..20).map(|key| format!("k{key}")).collect();
    let messages: Vec<(&str, usize)> = keys.iter().map(|key| (key.as_str(), BODY)).collect();
    let (_, log, mut waiting, setup) = shard_of(bounds, &messages);
    let setup = Setup { policy: self::setup(OnFailure::Skip, bounds).policy, ..setup };
    let mut shard = Shard::new(setup.clone(), log.clone().claim(&setup.id, Offset::START), Caution::default());
    for number in 0..20 {
        if !shard.wants_messages() {
            break;
        }
        shard.offer(waiting.pop_front().unwrap());
        let run = shard.next_run(NOW).unwrap();
        // The first few wait for a moment, the others run on.
        if number < 6 {
            fail(&mut shard, &run);
        }
    }
    assert!(!shard.wants_messages());
    let full = shard.held_bytes();
    assert!(shard.next_run(NOW).is_none());
    assert!(shard.wants_messages() && shard.held_bytes() < full - 5 * BODY, "{} bytes are held", shard.held_bytes());
    assert!(shard.held_bytes_add_up());
}

#[test]
fn what_fits_nowhere_is_fetched_one_by_one_however_often_it_is_asked_for() {
    let keys: Vec<String> = (0..20).map(|key| format!("bad{key}")).collect();
    let messages: Vec<(&str, usize)> = keys.iter().map(|key| (key.as_str(), BODY)).collect();
    let (mut shard, mut log, waiting, setup) = shard_of(Bounds::default(), &messages);
    for message in waiting {
        shard.offer(message);
        let run = shard.next_run(NOW).unwrap();
        fail(&mut shard, &run);
    }
    record(&mut shard, &mut log);
    let mut shard = Shard::new(setup.clone(), log.claim(&setup.id, Offset::START), Caution::default());
    shard.wake(LATER);
    for tried in 0..20 {
        shard.allow(Allowance { bytes_max: 1, is_tight: true });
        let fetched = [(); 3].map(|()| shard.take_needs().fetch);
        assert_eq!(fetched.each_ref().map(Vec::len), [1, 0, 0], "after {tried}");
        let offset = fetched[0][0];
        let message = log.fetch(&[offset]).remove(0).map(|message| setup.routing.route(&message));
        shard.fetched(vec![(offset, message)]);
        // The next one waits until this one has left memory.
        assert_eq!(shard.take_needs().fetch, []);
        let run = shard.next_run(LATER).unwrap();
        shard.finish(run.lane, Ok(Effects::default()), None, 0.0, LATER);
    }
}

#[test]
fn at_rest_messages_that_gave_up_their_place_give_their_memory_back_too() {
    let (mut shard, _, mut messages) = shard(setup(OnFailure::Skip, Bounds::default()), 2);
    shard.offer(messages.pop_front().unwrap());
    let run = shard.next_run(NOW).unwrap();
    fail(&mut shard, &run);
    // The next of its key waits in its lane.
    shard.offer(messages.pop_front().unwrap());
    assert!(shard.held_bytes() > 0);
    shard.rest(Keep::Nothing);
    assert_eq!(shard.held_bytes(), 0);
    assert!(shard.held_bytes_add_up());
}

#[test]
fn at_rest_of_those_that_wait_for_their_state_one_that_never_failed_is_kept() {
    let bounds = Bounds { state_bytes_max: 1, ..Bounds::default() };
    let (_, log, mut waiting, setup) = shard_of(bounds, &[("bad", 1000), ("good", 1000)]);
    let setup = Setup { uses_state: true, ..setup };
    let mut shard = Shard::new(setup.clone(), log.clone().claim(&setup.id, Offset::START), Caution::default());
    shard.offer(waiting.pop_front().unwrap());
    answer_with_states(&mut shard, &log, &setup);
    let run = shard.next_run(NOW).unwrap();
    fail(&mut shard, &run);
    // Its state leaves memory, so both wait for one.
    shard.loaded(vec![]);
    shard.wake(LATER);
    shard.offer(waiting.pop_front().unwrap());
    shard.rest(Keep::FirstTry);
    assert_eq!(answer_with_states(&mut shard, &log, &setup), 0, "no message is fetched");
    let run = shard.next_first_try(LATER).expect("its message is there");
    assert_eq!(run.call.key.unwrap().as_str(), "good");
}
