//! Every published message counted through a chain of handlers, by a model of its own: `model` knows texts and numbers and
//! nothing of routing, shards, marks or derived ids, so it cannot share a mistake with them.
//!
//! `world` publishes over HTTP into a host with native handlers and does to it what a seed says: repeats ids, leaves keys
//! out, uses one id under other keys and of two sources, sends bodies as large as they may be, pauses handlers, makes one
//! key fail for as long as others take, restarts, sets the machine's clock, returns dead letters, forgets handlers and begins
//! them again at the earliest message. A failure prints its seed; `SLUICEBOX_SEED=n` runs it
//! alone.

mod handlers;
mod held_up;
mod model;
mod world;

use model::Facts;
use sluicebox::clock;
use std::time::Instant;
use world::World;

const SEEDS: u64 = 40;

async fn facts(seed: u64) -> Facts {
    // One that can be set; it goes on as the real one does.
    clock::simulated::begin(Instant::now);
    let mut world = World::start(seed).await;
    world.live().await;
    let facts = world.end().await;
    clock::simulated::end();
    facts
}

// On one thread: the clock that is set is of a thread.
#[tokio::test]
async fn every_published_message_counts_once_through_a_chain_of_handlers() {
    let only = std::env::var("SLUICEBOX_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let seeds = only.map_or(0..SEEDS, |seed| seed..seed + 1);
    for seed in seeds {
        if let Err(why) = model::check(&facts(seed).await) {
            panic!("seed {seed}: {why}; run it alone with SLUICEBOX_SEED={seed}");
        }
    }
}

/// Changes what was seen, if there is something of the kind; whether there was.
type Lie = fn(&mut Facts) -> bool;

/// What a host with such a bug would leave behind.
// On one thread: the clock that is set is of a thread.
#[tokio::test]
async fn the_model_catches_every_lie() {
    let lies: [(&str, Lie); 14] = [
        ("an effect is lost", |facts| facts.effects_of("own").pop().is_some()),
        ("an effect comes twice", |facts| {
            let effects = facts.effects_of("unordered");
            let last = effects.last().copied();
            effects.extend(last);
            last.is_some()
        }),
        ("a chain loses what is repeated", |facts| facts.effects_of("chained").pop().is_some()),
        ("a repeated id is handled again", |facts| {
            let again = facts.repeated("fields");
            facts.effects_of("fields").extend(again);
            again.is_some()
        }),
        ("a key is handled out of order", |facts| facts.swap_two_of_a_key("own")),
        ("a dead letter is lost", |facts| facts.letters_of("own").pop().is_some()),
        ("a dead letter comes twice", |facts| {
            let letters = facts.letters_of("own");
            let last = letters.last().copied();
            letters.extend(last);
            last.is_some()
        }),
        ("a death is not counted", |facts| {
            let letter = facts.letters_of("own").last_mut();
            letter.map(|letter| letter.deaths -= 1).is_some()
        }),
        ("a large body is cut", |facts| facts.large_effect().map(|effect| effect.pad -= 1).is_some()),
        ("a paused handler goes on", |facts| facts.paused.last_mut().map(|paused| paused.effects[1] += 1).is_some()),
        ("a key that fails holds another one back", |facts| {
            facts.failing.last_mut().map(|failing| failing.left += 1).is_some()
        }),
        ("a key that fails is tried without a pause", |facts| {
            facts.failing.last_mut().map(|failing| failing.tries += 1_000_000).is_some()
        }),
        ("a clock that is set ahead makes messages older", |facts| {
            facts.times.last_mut().map(|time| *time += 365 * 24 * 3_600_000).is_some()
        }),
        ("a clock that is set back turns time back", |facts| {
            facts.times.last_mut().map(|time| *time -= 365 * 24 * 3_600_000).is_some()
        }),
    ];
    let mut told = [0; 14];
    for seed in 0..3 {
        let truth = facts(seed).await;
        model::check(&truth).unwrap();
        for (at, (name, lie)) in lies.iter().enumerate() {
            let mut facts = truth.clone();
            if lie(&mut facts) {
                told[at] += 1;
                assert!(model::check(&facts).is_err(), "seed {seed}: {name}, and nobody saw it");
            }
        }
    }
    assert!(told.iter().all(|told| *told > 0), "lies that no seed could tell: {told:?}");
}
