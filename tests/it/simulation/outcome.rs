//! What the world left behind, for the checker.

use super::KEYS;
use super::world::World;
use crate::checker::{Handler, History, Life};
use sluicebox::commit::{DeadFilter, DeadQuery};
use sluicebox::handler::{OnFailure, ShardId};
use sluicebox::message::{Key, Message, Offset};
use std::sync::Arc;

impl World {
    pub fn history(&self) -> History {
        let messages = self.archive.clone();
        let dead = self.log.dead(&DeadQuery::newest(DeadFilter::default(), usize::MAX));
        let mut keys: Vec<Key> = (0..KEYS).filter_map(|key| Key::parse(&format!("k{key}")).unwrap()).collect();
        keys.extend(Key::parse("*").unwrap());
        let mut handlers: Vec<Handler> = vec![];
        for setup in &self.setups {
            if setup.id.index > 0 {
                continue;
            }
            let states = self.log.load(&setup.id.handler, &keys);
            let count = |n: &bytes::Bytes| String::from_utf8(n.to_vec()).unwrap().parse().unwrap();
            let state = keys.iter().cloned().zip(states.iter().map(|state| state.get("n").map_or(0, count))).collect();
            handlers.push(Handler {
                routing: (*setup.routing).clone(),
                policy: (*setup.policy).clone(),
                output: format!("out.{}", setup.id.handler),
                state,
                ordered: setup.policy.on_failure == OnFailure::Park,
                life: Life::default(),
            });
        }
        let dead = dead.into_iter().map(|numbered| numbered.letter).collect();
        History {
            messages,
            dead,
            handlers,
            shown: self.shown.clone(),
            counted: Some(self.counted),
            removed: self.removed.clone(),
            retried: self.removed.iter().filter(|(handler, _)| !self.dropped.contains(handler)).cloned().collect(),
            came: self.came.clone(),
            ..History::default()
        }
    }
}

/// Whether the log holds, or held, the effect of this input.
pub fn is_done(archive: &[Arc<Message>], source: Offset, shard: &ShardId) -> bool {
    let (topic, wanted) = (format!("out.{}", shard.handler), format!(r#"{{"source":{source},"#));
    let is_it = |message: &Arc<Message>| message.topic.as_str() == topic && message.body.starts_with(wanted.as_bytes());
    archive.iter().rev().take_while(|message| message.offset > source).any(is_it)
}
