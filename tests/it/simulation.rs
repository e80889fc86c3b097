//! Shards stepped from a seed over the in-memory log, with faults at every boundary: refused commits, commits of
//! unknown fate (written or not, some arriving late), crashes, takeovers by another host, a machine's clock that is set by
//! seconds or a year in either direction, no sandbox, no memory, no room for delayed messages; and with all that operators
//! may do meanwhile: pauses, trips, dead letters retried and dropped, other modules, `retain`.
//!
//! A failure prints its seed; `SLUICEBOX_SEED=n` runs that seed alone. `the_checker_catches_…` tests seed known bugs
//! into the world around the shards and demand that the checker sees each of them.

mod clocks;
mod faults;
mod handler;
mod operators;
mod outcome;
mod work;
mod world;

use crate::checker;
use world::World;

const SEEDS: u64 = 2000;
const STEPS: usize = 600;
const KEYS: usize = 5;

/// A bug in the world around the shards, of the kinds this field is known for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bug {
    SkipTheFence,
    MarkBeforeCommit,
    EffectsBeforeMark,
    UnknownTakenAsDone,
    UnknownTakenAsFailed,
    ReplyBeforeCommit,
    CountBeforeCommit,
    DedupByWallClock,
    OpenDroppedAtClaim,
    OpenNotWritten,
    StaleStateLoaded,
    TailGapIgnored,
    MarksLostAtClaim,
    DelayedLostAtClaim,
    ReadNotMovedBack,
    ControlLostAtClaim,
    RetriedAndKept,
    RetriedAndLost,
    TrimmedUnsettled,
    MarksLeftBehind,
    WaitsLeftAhead,
}

fn run(seed: u64, bug: Option<Bug>) -> Result<(), String> {
    let mut world = World::new(seed, bug);
    for _ in 0..STEPS {
        world.step();
    }
    world.settle()?;
    let history = world.history();
    checker::check(&history)?;
    world.check_commands()
}

#[test]
fn every_message_has_exactly_one_effect_whatever_fails() {
    let only = std::env::var("SLUICEBOX_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let seeds = only.map_or(0..SEEDS, |seed| seed..seed + 1);
    for seed in seeds {
        let result = std::panic::catch_unwind(|| run(seed, None)).unwrap_or_else(|_| Err("panicked".into()));
        if let Err(why) = result {
            panic!("seed {seed}: {why}; run it alone with SLUICEBOX_SEED={seed}");
        }
    }
}

/// The checker must see the bug within the seeds that it is given: it would be worthless otherwise. Most show within a
/// dozen; an order must be under way when its shard is claimed again for its loss to show, which takes hundreds.
#[track_caller]
fn check_caught(bug: Bug) {
    let caught = (0..SEEDS).find_map(|seed| {
        let result = std::panic::catch_unwind(|| run(seed, Some(bug))).unwrap_or_else(|_| Err("panicked".into()));
        result.err().map(|why| (seed, why))
    });
    let (seed, why) = caught.unwrap_or_else(|| panic!("{bug:?} went unnoticed"));
    println!("{bug:?}: seed {seed}: {why}");
}

macro_rules! caught {
    ($($test:ident: $bug:ident,)*) => {
        $(#[test]
        fn $test() {
            check_caught(Bug::$bug);
        })*
    };
}

caught! {
    the_checker_catches_a_skipped_fence: SkipTheFence,
    the_checker_catches_marks_written_before_the_commit: MarkBeforeCommit,
    the_checker_catches_effects_written_before_the_mark: EffectsBeforeMark,
    the_checker_catches_an_unknown_fate_taken_as_done: UnknownTakenAsDone,
    the_checker_catches_an_unknown_fate_taken_as_failed: UnknownTakenAsFailed,
    the_checker_catches_a_reply_before_the_commit: ReplyBeforeCommit,
    the_checker_catches_a_counter_moved_before_the_commit: CountBeforeCommit,
    the_checker_catches_dedup_by_the_wall_clock: DedupByWallClock,
    the_checker_catches_open_heads_dropped_at_claim: OpenDroppedAtClaim,
    the_checker_catches_open_heads_that_are_not_written: OpenNotWritten,
    the_checker_catches_stale_state: StaleStateLoaded,
    the_checker_catches_an_ignored_gap_in_the_tail: TailGapIgnored,
    the_checker_catches_marks_lost_at_claim: MarksLostAtClaim,
    the_checker_catches_delayed_messages_lost_at_claim: DelayedLostAtClaim,
    the_checker_catches_a_read_position_not_moved_back: ReadNotMovedBack,
    the_checker_catches_operators_commands_lost_at_claim: ControlLostAtClaim,
    the_checker_catches_a_dead_letter_retried_and_kept: RetriedAndKept,
    the_checker_catches_a_dead_letter_retried_and_lost: RetriedAndLost,
    the_checker_catches_unsettled_messages_deleted_by_retain: TrimmedUnsettled,
    the_checker_catches_marks_left_behind_by_a_clock_that_was_set_ahead: MarksLeftBehind,
    the_checker_catches_waits_left_ahead_of_a_clock_that_was_set_back: WaitsLeftAhead,
}
