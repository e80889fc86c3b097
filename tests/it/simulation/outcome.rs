//! What the world left behind, for the checker.

use super::KEYS;
use super::world::World;
use crate::checker::{Handler, History};
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
            came: self.came.clone(),
        }
    }

    /// Delayed messages appear once per handled `later`.
    pub fn check_delayed(&self, history: &History) -> Result<(), String> {
        for handler in ["first", "second"] {
            let mut due: Vec<u64> = history
                .messages
                .iter()
                .filter(|message| message.topic.as_str() == format!("out.{handler}"))
                .filter_map(|message| {
                    serde_json::from_slice::<serde_json::Value>(&message.body).ok()?["source"].as_u64()
                })
                .filter(|source| {
                    let input = history.messages.iter().find(|message| message.offset.0 == *source);
                    input.is_some_and(|input| input.body.starts_with(b"later"))
                })
                .collect();
            let mut came: Vec<u64> = history
                .messages
                .iter()
                .filter(|message| message.topic.as_str() == format!("later.{handler}"))
                .filter_map(|message| std::str::from_utf8(&message.body).ok()?.parse().ok())
                .collect();
            due.sort_unstable();
            came.sort_unstable();
            if due != came {
                return Err(format!("{handler}: delayed messages for {due:?} were due, {came:?} came"));
            }
        }
        Ok(())
    }
}

/// Whether the log holds, or held, the effect of this input.
pub fn is_done(archive: &[Arc<Message>], source: Offset, shard: &ShardId) -> bool {
    let (topic, wanted) = (format!("out.{}", shard.handler), format!(r#"{{"source":{source},"#));
    let is_it = |message: &Arc<Message>| message.topic.as_str() == topic && message.body.starts_with(wanted.as_bytes());
    archive.iter().rev().take_while(|message| message.offset > source).any(is_it)
}
