//! The states of keys: what was written is seen, also while it is on its way to the log, and is in the commit once.

use super::*;
use sluicebox::effects::StateWrite;

fn write(entry: &str, value: u64) -> StateWrite {
    StateWrite { entry: entry.into(), value: Some(value.to_string().into()) }
}

fn writing(writes: Vec<StateWrite>) -> Effects {
    Effects { writes, ..Effects::default() }
}

/// A shard whose memory has no room for states that nobody needs, and messages of one key.
fn with_states(messages: usize) -> (Shard, MemoryCore, VecDeque<Routed>) {
    let bounds = Bounds { state_bytes_max: 1, ..Bounds::default() };
    shard(Setup { uses_state: true, ..setup(OnFailure::Park, bounds) }, messages)
}

/// Loads what is wanted; how many states that were.
fn load(shard: &mut Shard, log: &MemoryCore) -> usize {
    let keys = shard.take_needs().load;
    let handler = shard.id().handler.clone();
    let states = log.load(&handler, &keys);
    let loaded = keys.len();
    shard.loaded(keys.into_iter().zip(states).collect());
    loaded
}

#[test]
fn a_state_stays_in_memory_until_its_write_is_durable_and_no_longer() {
    let (mut shard, mut log, mut messages) = with_states(6);
    for round in 0..3_u64 {
        shard.offer(messages.pop_front().unwrap());
        assert_eq!(load(&mut shard, &log), 1, "round {round}: what is durable gave its memory back");
        let run = shard.next_run(NOW).unwrap();
        let before = round.checked_sub(1).map(|before| before.to_string());
        assert_eq!(run.call.state.get("e").map(|value| String::from_utf8_lossy(value).into_owned()), before);
        shard.finish(run.lane, Ok(writing(vec![write("e", round)])), None, 0.0, NOW);
        let commit = shard.stage().unwrap();
        // Room is needed while the write is on its way.
        shard.loaded(vec![]);
        shard.offer(messages.pop_front().unwrap());
        assert_eq!(load(&mut shard, &log), 0, "round {round}: the log has an older state");
        let run = shard.next_run(NOW).unwrap();
        assert_eq!(*run.call.state.get("e").unwrap(), round.to_string());
        log.commit(commit, NOW).unwrap();
        shard.committed();
        shard.finish(run.lane, Ok(Effects::default()), None, 0.0, NOW);
        record(&mut shard, &mut log);
    }
}

#[test]
fn of_several_writes_to_an_entry_in_one_commit_the_last_is_written() {
    let (mut shard, mut log, mut messages) = with_states(3);
    for writes in [vec![write("a", 1), write("b", 1)], vec![write("a", 2)], vec![write("c", 3)]] {
        shard.offer(messages.pop_front().unwrap());
        load(&mut shard, &log);
        let run = shard.next_run(NOW).unwrap();
        shard.finish(run.lane, Ok(writing(writes)), None, 0.0, NOW);
    }
    let commit = shard.stage().unwrap();
    assert_eq!(commit.state.len(), 1, "the writes of a key are together");
    assert_eq!(commit.state[0].writes, [write("a", 2), write("b", 1), write("c", 3)]);
    log.commit(commit, NOW).unwrap();
}
