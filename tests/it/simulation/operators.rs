//! What operators do meanwhile: commands, other modules, `retain`.

use super::world::World;
use super::{Bug, KEYS};
use rand::RngExt;
use sluicebox::clock::Timestamp;
use sluicebox::commit::DeadFilter;
use sluicebox::control::{Applied, Command};
use sluicebox::handler::{Digest, HandlerName};
use sluicebox::log::{ReadRequest, Trim};
use sluicebox::message::{Key, Offset};
use sluicebox::pipeline::breaker::{Breaker, Sample};
use sluicebox::routing::reserved;
use sluicebox::topic::Pattern;

impl World {
    pub fn breaker(&mut self, handler: &HandlerName) -> &mut Breaker {
        self.breakers.get_mut(handler).unwrap()
    }

    /// The runs of an instance end with it: none of them took place.
    pub fn drop_runs(&mut self, at: usize) {
        let handler = self.instances[at].shard.id().handler.clone();
        for (_, ticket) in std::mem::take(&mut self.instances[at].runs) {
            let instant = self.instant;
            self.breaker(&handler).report(ticket, Sample::Ignored, instant, 0.0);
        }
    }

    /// Keeps what is new in the log.
    pub fn archive(&mut self) {
        let after = self.archive.last().map_or(Offset::START, |message| message.offset);
        let (messages_max, bytes_max) = (usize::MAX, usize::MAX);
        let request = ReadRequest { after, upto: Offset::END, patterns: vec![], messages_max, bytes_max };
        let messages = self.log.read(&request).messages;
        self.came.extend(messages.iter().map(|message| (message.offset, self.passed)));
        self.archive.extend(messages);
    }

    fn any_handler(&mut self) -> HandlerName {
        let at = self.rng.random_range(0..self.setups.len());
        self.setups[at].id.handler.clone()
    }

    fn any_key(&mut self) -> Key {
        let number = self.rng.random_range(0..=KEYS);
        let text = if number == KEYS { "*".to_owned() } else { format!("k{number}") };
        Key::parse(&text).unwrap().unwrap()
    }

    fn publish_command(&mut self, handler: &HandlerName, command: &Command) -> Offset {
        let appended = self.log.append(vec![command.message(handler)], self.log_clock).unwrap();
        self.archive();
        appended.upto
    }

    /// An operator says something.
    pub fn order(&mut self) {
        let handler = self.any_handler();
        let command = match self.rng.random_range(0..14) {
            0 => Command::Pause,
            1..3 => Command::Resume,
            3 => Command::PauseKey { key: self.any_key() },
            4..6 => Command::ResumeKey { key: self.any_key() },
            6 => Command::Trip,
            7..9 => Command::Reset,
            12..14 => Command::RetryNow { key: self.chance(0.5).then(|| self.any_key()), offset: None },
            choice => {
                let mine = DeadFilter { handler: Some(handler.clone()), ..DeadFilter::default() };
                let filter = DeadFilter {
                    key: self.chance(0.3).then(|| self.any_key()),
                    kind: self.chance(0.3).then(|| "reject".to_owned()),
                    upto: Some(self.log.dead_count(&mine).newest),
                    ..mine
                };
                let command = match choice {
                    11 => {
                        self.dropped.insert(handler.clone());
                        Command::DropDead { filter: filter.clone() }
                    }
                    _ => Command::RetryDead { filter: filter.clone(), to: None },
                };
                let offset = self.publish_command(&handler, &command);
                return self.dead_commands.push((offset, handler, filter));
            }
        };
        self.publish_command(&handler, &command);
    }

    /// A shard reads what operators said.
    pub fn hear(&mut self, at: usize) {
        let shard = &self.instances[at].shard;
        let (id, after) = (shard.id().clone(), shard.controlled());
        let patterns = vec![Pattern::from(&reserved::control_topic(&id.handler))];
        let messages_max = self.rng.random_range(1..4);
        let request = ReadRequest { after, upto: Offset::END, patterns, messages_max, bytes_max: usize::MAX };
        let batch = self.log.read(&request);
        for message in batch.messages {
            let command = Command::read(&message).unwrap();
            let wall = self.wall;
            if let Applied::Refused(_) = self.instances[at].shard.command(message.offset, command.clone(), wall) {
                self.refused.insert((message.offset, id.clone()));
            }
            match command {
                Command::Trip => self.breaker(&id.handler).trip(),
                Command::Reset => drop(self.breaker(&id.handler).reset()),
                _ => {}
            }
        }
        let flush = self.rng.random_bool(0.2);
        let shard = &mut self.instances[at].shard;
        shard.commands_reached(batch.upto);
        shard.reached(shard.read(), flush);
    }

    /// Another module comes into force, on every host that runs the handler.
    pub fn swap(&mut self) {
        let handler = self.any_handler();
        self.swaps += 1;
        let digest = Some(Digest::of(&self.swaps.to_le_bytes()));
        self.setups.iter_mut().filter(|setup| setup.id.handler == handler).for_each(|setup| setup.digest = digest);
        let wall = self.wall;
        let running = self.instances.iter_mut().filter(|instance| instance.shard.id().handler == handler);
        running.for_each(|instance| instance.shard.swapped(digest, wall));
    }

    /// `retain` deletes what is old, as far as the shards let it.
    pub fn trim(&mut self) {
        let age_ms = self.rng.random_range(0..100);
        let mut holders: Vec<HandlerName> = self.setups.iter().map(|setup| setup.id.handler.clone()).collect();
        if self.bug == Some(Bug::TrimmedUnsettled) {
            holders.clear();
        }
        self.log.trim(&Trim {
            older_than: Some(Timestamp(self.log_clock.0.saturating_sub(age_ms))),
            bytes_max: self.rng.random_bool(0.3).then(|| self.rng.random_range(0..5000)),
            holders,
            messages_max: self.rng.random_range(1..50),
        });
    }

    /// No operator holds anything back any more.
    pub fn let_everything_go(&mut self) {
        let handlers: Vec<HandlerName> = self.breakers.keys().cloned().collect();
        for handler in handlers {
            self.publish_command(&handler, &Command::Resume);
            self.publish_command(&handler, &Command::Reset);
            for number in 0..=KEYS {
                let text = if number == KEYS { "*".to_owned() } else { format!("k{number}") };
                let key = Key::parse(&text).unwrap().unwrap();
                self.publish_command(&handler, &Command::ResumeKey { key });
            }
        }
    }

    /// What an operator said about dead letters was done to all of them.
    pub fn check_commands(&self) -> Result<(), String> {
        for (offset, handler, filter) in &self.dead_commands {
            for setup in self.setups.iter().filter(|setup| setup.id.handler == *handler) {
                if self.refused.contains(&(*offset, setup.id.clone())) {
                    continue;
                }
                let left = self.log.dead_count(&DeadFilter { shard: Some(setup.id.index), ..filter.clone() });
                if left.letters > 0 {
                    return Err(format!("{}: {} dead letters of command {offset} are left", setup.id, left.letters));
                }
            }
        }
        Ok(())
    }
}
