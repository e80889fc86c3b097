//! What holds a handler, or one key of it, up, and nobody else.

use super::handlers::HANDLERS;
use super::model::{Failing, Paused, Published};
use super::world::World;
use crate::harness::PATIENCE;
use rand::RngExt as _;
use sluicebox::control::Command;
use sluicebox::log::ShardStatus;
use std::sync::atomic::Ordering;

impl World {
    /// Pauses a handler while others publish.
    pub async fn pause(&mut self) {
        self.quiet().await;
        let (name, ..) = HANDLERS[self.rng.random_range(0..HANDLERS.len())];
        self.say(name, &Command::Pause).await;
        let heard = async {
            let of_it = |shard: &ShardStatus| shard.shard.handler.as_str() == name;
            while !self
                .log
                .status()
                .await
                .unwrap()
                .iter()
                .filter(|shard| of_it(shard))
                .all(|shard| shard.control.paused)
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.expect("a pause is not heard");
        let before = self.effects(name).await.0.len();
        for _ in 0..self.rng.random_range(1..12) {
            self.publish().await;
        }
        self.settled(|other| other != name).await;
        let effects = [before, self.effects(name).await.0.len()];
        self.facts.paused.push(Paused { name, effects });
    }

    /// One key of `own` is never done while others publish.
    pub async fn fail_one_key(&mut self) {
        self.quiet().await;
        self.stubborn.is.store(true, Ordering::Relaxed);
        self.stubborn.tries.store(0, Ordering::Relaxed);
        let others = self.rng.random_range(1..12);
        for number in 0..=others {
            // Enough of another kind is in the rest of the story.
            let key = Some(format!("k{}", if number == 0 { 0 } else { self.rng.random_range(1..4) }));
            let message = Published { key, id: None, user: Some("u0".into()), field: None, bad: false, pad: 0 };
            self.send(message, number == 0).await;
        }
        let first = self.facts.published.len() - others;
        let left = async |world: &Self| {
            let effects = world.effects("own").await.0;
            others - effects.iter().filter(|effect| effect.of >= first).count()
        };
        let all = async {
            while left(self).await > 0 {
                tokio::task::yield_now().await;
            }
        };
        let _ = tokio::time::timeout(PATIENCE, all).await;
        let (left, tries) = (left(self).await, self.stubborn.tries.load(Ordering::Relaxed));
        self.facts.failing.push(Failing { others, left, tries });
        self.stubborn.is.store(false, Ordering::Relaxed);
    }
}
