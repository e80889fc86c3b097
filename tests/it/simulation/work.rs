//! What shards do when nothing fails: take messages up, run them, read what they need, stage commits.

use super::handler::{handle, topic};
use super::outcome::is_done;
use super::world::World;
use super::{Bug, KEYS};
use rand::RngExt;
use sluicebox::invoke::Failure;
use sluicebox::log::ReadRequest;
use sluicebox::message::{Key, Message, NewMessage, Offset};
use sluicebox::pipeline::breaker::{Admit, Sample};
use sluicebox::routing::Routed;
use sluicebox::shard::{Finish, Scan, Setup};
use std::sync::Arc;

impl World {
    pub fn append(&mut self) {
        let count = self.rng.random_range(1..5);
        let messages = (0..count)
            .map(|_| {
                self.next_body += 1;
                let kind = match self.rng.random_range(0..40) {
                    0..3 => "fail 1".to_owned(),
                    3..5 => format!("fail {}", self.rng.random_range(1..6)),
                    5 => "reject".to_owned(),
                    6 => "boom".to_owned(),
                    7 => "later".to_owned(),
                    _ => "ok".to_owned(),
                };
                let mut message = NewMessage::new(topic("in.a"), format!("{kind} {}", self.next_body));
                if self.rng.random_bool(0.9) {
                    message.key = Key::parse(&format!("k{}", self.rng.random_range(0..KEYS))).unwrap();
                }
                if self.rng.random_bool(0.6) {
                    message.id = Some(format!("id{}", self.rng.random_range(0..self.next_body.max(2))).into());
                }
                message
            })
            .collect();
        self.log_clock.0 += self.rng.random_range(0..10);
        self.log.append(messages, self.log_clock).unwrap();
        self.archive();
    }

    pub fn read(&mut self, setup: &Setup, after: Offset, upto: Offset) -> (Vec<Routed>, Offset) {
        let request = ReadRequest {
            after,
            upto,
            patterns: setup.routing.patterns_after(after),
            messages_max: self.rng.random_range(1..12),
            bytes_max: usize::MAX,
        };
        let batch = self.log.read(&request);
        let routed = batch
            .messages
            .iter()
            .filter(|message| setup.routing.subscribes(message))
            .map(|message| self.route(setup, message))
            .filter(|routed| routed.shard(setup.routing.shards) == setup.id.index)
            .collect();
        (routed, batch.upto)
    }

    pub fn route(&self, setup: &Setup, message: &Arc<Message>) -> Routed {
        let mut routed = setup.routing.route(message);
        if self.bug == Some(Bug::DedupByWallClock) {
            routed.message = Arc::new(Message { time: self.wall, ..(**message).clone() });
        }
        routed
    }

    pub fn deliver(&mut self, at: usize) {
        let setup = self.setup_of(at);
        if self.instances[at].inbox.is_empty() {
            let after = self.instances[at].inbox_upto;
            let (mut routed, upto) = self.read(&setup, after, Offset::END);
            if self.bug == Some(Bug::TailGapIgnored) && self.fault(0.05) {
                routed.clear();
            }
            let instance = &mut self.instances[at];
            instance.inbox = routed.into();
            instance.inbox_upto = upto;
        }
        let flush = self.rng.random_bool(0.2);
        let take = self.rng.random_range(1..8);
        let instance = &mut self.instances[at];
        for _ in 0..take {
            if !instance.shard.wants_messages() {
                break;
            }
            let Some(routed) = instance.inbox.pop_front() else {
                instance.shard.reached(instance.inbox_upto, flush);
                break;
            };
            instance.shard.offer(routed);
        }
    }

    pub fn start(&mut self, at: usize) {
        let (wall, instant) = (self.wall, self.instant);
        let instance = &mut self.instances[at];
        instance.shard.wake(wall);
        let paused = instance.shard.control().paused;
        if instance.runs.len() >= 4 {
            return;
        }
        let breaker = self.breakers.get_mut(&instance.shard.id().handler).unwrap();
        let first = if breaker.is_half_open(instant) { instance.shard.next_first_try(wall) } else { None };
        if let Some(run) = first.or_else(|| instance.shard.next_run(wall)) {
            assert!(!paused, "a paused handler runs");
            let key = run.call.key.as_ref();
            assert!(key.is_none_or(|key| !instance.shard.control().paused_keys.contains(key)), "a paused key runs");
            match breaker.admit(run.tries, instant).0 {
                Admit::Run(ticket) => instance.runs.push((run, ticket)),
                Admit::Until(_) | Admit::Probing | Admit::RetriesAt(_) | Admit::Tripped => {
                    instance.shard.withdraw(run.lane);
                }
            }
        }
    }

    pub fn finish(&mut self, at: usize) {
        if self.instances[at].runs.is_empty() {
            return;
        }
        let pick = self.rng.random_range(0..self.instances[at].runs.len());
        let random = self.rng.random_range(0.0..1.0);
        let instance = &mut self.instances[at];
        let (run, ticket) = instance.runs.swap_remove(pick);
        let handler = instance.shard.id().handler.clone();
        let no_sandbox = self.faults && self.rng.random_bool(0.05);
        let result = match no_sandbox {
            true => Err(Failure::Host { reason: "no sandbox".into() }),
            false => handle(&handler, &run.call),
        };
        self.breakers.get_mut(&handler).unwrap().report(ticket, Sample::of(&result), self.instant, random);
        let digest = self.setup_of(at).digest;
        let is_ok = result.is_ok();
        let instance = &mut self.instances[at];
        let finished = instance.shard.finish(run.lane, result, digest, random, self.wall);
        if is_ok && finished == Finish::Settled {
            instance.finished.push(run.call.message.offset);
            if self.bug == Some(Bug::ReplyBeforeCommit) {
                let source = run.call.message.offset;
                self.shown.push((source, is_done(&self.archive, source, instance.shard.id())));
            }
            if self.bug == Some(Bug::CountBeforeCommit) {
                self.counted += 1;
            }
        }
    }

    pub fn answer_needs(&mut self, at: usize) {
        let needs = self.instances[at].shard.take_needs();
        if !needs.load.is_empty() || !needs.fetch.is_empty() || needs.scan.is_some() || needs.dead.is_some() {
            self.instances[at].needs.push(needs);
        }
        if self.instances[at].needs.is_empty() || (self.faults && self.chance(0.5)) {
            return;
        }
        let pick = self.rng.random_range(0..self.instances[at].needs.len());
        let needs = self.instances[at].needs.swap_remove(pick);
        let setup = self.setup_of(at);
        let source = if self.bug == Some(Bug::StaleStateLoaded) { &self.old_log } else { &self.log };
        let states = source.load(&setup.id.handler, &needs.load);
        let fetched = self.log.fetch(&needs.fetch);
        let fetched = fetched.into_iter().map(|message| message.map(|message| self.route(&setup, &message)));
        let fetched: Vec<_> = needs.fetch.iter().copied().zip(fetched).collect();
        if let Some(Scan { after, upto, .. }) = needs.scan {
            let (messages, upto) = self.read(&setup, after, upto);
            self.instances[at].shard.scanned(needs.scan.unwrap(), messages, upto);
        }
        let letters = needs.dead.map(|query| self.log.dead(&query));
        let shard = &mut self.instances[at].shard;
        if let Some(letters) = letters {
            shard.dead_found(letters);
        }
        shard.loaded(needs.load.into_iter().zip(states).collect());
        shard.fetched(fetched);
    }

    pub fn stage(&mut self, at: usize) {
        let instance = &mut self.instances[at];
        if let Some(mut commit) = instance.shard.stage() {
            if self.bug == Some(Bug::OpenNotWritten) {
                commit.open_put.clear();
            }
            if self.bug == Some(Bug::RetriedAndKept) {
                commit.dead_drop.clear();
            }
            instance.committing = std::mem::take(&mut instance.finished);
            instance.commit = Some(commit);
        }
    }
}
