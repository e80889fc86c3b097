//! The world that the model is held against: a host over the log in memory, its HTTP face, and what a seed does to both.

use super::handlers::{HANDLERS, Stubborn, handler};
use super::model::{self, Effect, Facts, Id, Letter, Life, Published};
use crate::harness::{PATIENCE, after};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use sluicebox::clock;
use sluicebox::commit::{DeadFilter, DeadQuery};
use sluicebox::config::{HttpSettings, Namespace};
use sluicebox::control::Command;
use sluicebox::handler::{HandlerName, ShardId};
use sluicebox::host::Host;
use sluicebox::http::{self, Face, Readiness};
use sluicebox::log::Log;
use sluicebox::log::memory::{MemoryCore, MemoryLog};
use sluicebox::message::{Message, Offset};
use sluicebox::reader::Options;
use sluicebox::telemetry::Metrics;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_util::sync::{CancellationToken, DropGuard};

pub struct World {
    pub(super) rng: StdRng,
    pub(super) log: Arc<dyn Log>,
    host: Option<Host>,
    url: String,
    client: reqwest::Client,
    pub(super) facts: Facts,
    /// Where the last life of each handler began.
    born: BTreeMap<&'static str, Offset>,
    pub(super) stubborn: Arc<Stubborn>,
    _face: DropGuard,
}

/// The steps of the machine's clock, in either direction.
const STEPS_MS: [i64; 5] = [0, 40_000, -40_000, 365 * 24 * 3_600_000, -365 * 24 * 3_600_000];

impl World {
    pub async fn start(seed: u64) -> Self {
        let log: Arc<dyn Log> = Arc::new(MemoryLog::with(MemoryCore::default(), clock::steady));
        let listener = http::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let listen = listener.local_addr().unwrap();
        let settings = HttpSettings { listen, token: None };
        let stop = CancellationToken::new();
        let (metrics, readiness) = (Arc::new(Metrics::new()), Readiness::starting("it is a test"));
        let namespace = Namespace::parse("test").unwrap();
        let face = Face::new(log.clone(), metrics, readiness, namespace, &settings, stop.clone());
        tokio::spawn(http::serve(listener, Arc::new(face)));
        let handlers = HANDLERS.map(|(name, _, rule, _)| {
            let (lives, letters) = (vec![Life::default()], vec![]);
            model::Handler { name, rule, lives, letters }
        });
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            log,
            host: None,
            url: format!("http://{listen}/v1/topics/in"),
            client: reqwest::Client::new(),
            facts: Facts { handlers: handlers.into(), ..Facts::default() },
            born: HANDLERS.map(|(name, ..)| (name, Offset::START)).into(),
            stubborn: Arc::default(),
            _face: stop.drop_guard(),
        };
        world.start_host().await;
        world
    }

    async fn start_host(&mut self) {
        let handlers = HANDLERS
            .map(|(name, subscribe, rule, shards)| handler(name, subscribe, rule, shards, self.stubborn.clone()));
        let (metrics, options) = (Arc::new(Metrics::new()), Options { inbox_messages_max: 16, ..Options::default() });
        self.host = Some(Host::start(self.log.clone(), handlers.into(), metrics, options).await.unwrap());
    }

    /// Everything that the seed does.
    pub async fn live(&mut self) {
        for _ in 0..self.rng.random_range(10..30) {
            match self.rng.random_range(0..24) {
                0 => self.command(&Command::Pause).await,
                1..3 => self.command(&Command::Resume).await,
                3 => self.restart(true).await,
                4 => self.restart(false).await,
                5..7 => self.return_letters().await,
                7..9 => self.forget().await,
                9 | 10 => self.pause().await,
                11 => self.fail_one_key().await,
                12 | 13 => clock::simulated::shift(STEPS_MS[self.rng.random_range(0..STEPS_MS.len())]),
                _ => {
                    for _ in 0..self.rng.random_range(1..12) {
                        self.publish().await;
                    }
                }
            }
        }
    }

    /// What was seen, when nothing is left to do.
    pub async fn end(mut self) -> Facts {
        self.quiet().await;
        for (name, ..) in HANDLERS {
            self.end_life(name).await;
            let letters = self.letters(name).await;
            self.handler(name).letters = letters;
        }
        self.facts.times = after(&*self.log, Offset::START).await.0.iter().map(|message| message.time.0).collect();
        if let Some(host) = self.host.take() {
            host.stop().await;
        }
        let status = self.log.status().await.unwrap();
        assert_eq!(status.iter().map(|shard| shard.open).sum::<u64>(), 0);
        self.facts
    }

    pub(super) async fn publish(&mut self) {
        let rng = &mut self.rng;
        let name = |prefix: &str, number: u32| format!("{prefix}{number}");
        let key = rng.random_bool(0.7).then(|| name("k", rng.random_range(0..4)));
        let user = rng.random_bool(0.9).then(|| name("u", rng.random_range(0..4)));
        let field = rng.random_bool(0.7).then(|| name("f", rng.random_range(0..20)));
        let id = match rng.random_range(0..10) {
            0..3 => None,
            3..7 => Some(Id::Plain(name("i", rng.random_range(0..12)))),
            _ => Some(Id::Event(name("/source/", rng.random_range(0..2)), name("i", rng.random_range(0..6)))),
        };
        // What is sent again is what it was.
        let bad = match &id {
            None => rng.random_bool(0.1),
            Some(Id::Plain(id)) => id.ends_with('7'),
            Some(Id::Event(source, id)) => source.ends_with('1') && id.ends_with('3'),
        };
        let pad = match rng.random_range(0..40) {
            0 | 1 => 500_000,
            2..5 => 20_000,
            _ => 0,
        };
        self.send(Published { key, id, user, field, bad, pad }, false).await;
    }

    /// Publishes it over HTTP.
    pub(super) async fn send(&mut self, message: Published, stubborn: bool) {
        let Published { key, id, user, field, bad, pad } = &message;
        let number = self.facts.published.len();
        let mut body = json!({ "number": number, "bad": bad, "stubborn": stubborn, "pad": "x".repeat(*pad) });
        let fields = [("user", user), ("id", field)];
        fields.into_iter().filter_map(|(name, text)| Some((name, text.clone()?))).for_each(|(name, text)| {
            body[name] = text.into();
        });
        let mut request = self.client.post(&self.url);
        if let Some(key) = key {
            request = request.header("sluicebox-key", key);
        }
        request = match id {
            None => request,
            Some(Id::Plain(id)) => request.header("sluicebox-id", id),
            Some(Id::Event(source, id)) => {
                let event = [("ce-specversion", "1.0"), ("ce-type", "made"), ("ce-source", source), ("ce-id", id)];
                event.into_iter().fold(request, |request, (name, value)| request.header(name, value))
            }
        };
        let answer = request.body(body.to_string()).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
        self.facts.published.push(message);
    }

    async fn command(&mut self, command: &Command) {
        let (name, ..) = HANDLERS[self.rng.random_range(0..HANDLERS.len())];
        self.say(name, command).await;
    }

    pub(super) async fn say(&self, name: &str, command: &Command) {
        self.log.append(vec![command.message(&HandlerName::parse(name).unwrap())]).await.unwrap();
    }

    async fn restart(&mut self, gently: bool) {
        let Some(host) = self.host.take() else { return };
        match gently {
            true => host.stop().await,
            // Its tasks end wherever they are.
            false => drop(host),
        }
        self.start_host().await;
    }

    /// Waits until every shard has settled all there is.
    pub(super) async fn quiet(&mut self) {
        for (name, ..) in HANDLERS {
            self.say(name, &Command::Resume).await;
        }
        self.settled(|_| true).await;
    }

    /// Waits until every shard of these handlers has settled all there is.
    pub(super) async fn settled(&self, these: impl Fn(&str) -> bool) {
        let host = self.host.as_ref().unwrap();
        let settled = async {
            loop {
                let end = self.log.end().await.unwrap();
                let these = HANDLERS.iter().filter(|(name, ..)| these(name));
                let mut shards = these.flat_map(|(name, .., shards)| {
                    let handler = HandlerName::parse(name).unwrap();
                    (0..*shards).map(move |index| ShardId { handler: handler.clone(), index })
                });
                if shards.all(|shard| host.passed(&shard) >= Some(end)) && self.log.end().await.unwrap() == end {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, settled).await.expect("something is never settled");
    }

    async fn return_letters(&mut self) {
        self.quiet().await;
        let (name, ..) = HANDLERS[self.rng.random_range(0..2)];
        let mine = DeadFilter { handler: Some(HandlerName::parse(name).unwrap()), ..DeadFilter::default() };
        let upto = Some(self.log.dead_count(mine.clone()).await.unwrap().newest);
        let filter = DeadFilter { upto, ..mine };
        self.say(name, &Command::RetryDead { filter: filter.clone(), to: None }).await;
        let gone = async {
            while self.log.dead_count(filter.clone()).await.unwrap().letters > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("dead letters do not return");
        let published = self.facts.published.len();
        self.handler(name).lives.last_mut().unwrap().returned.push(published);
        self.quiet().await;
    }

    /// Forgets a handler, which begins again at the earliest message.
    async fn forget(&mut self) {
        self.quiet().await;
        if let Some(host) = self.host.take() {
            host.stop().await;
        }
        // Those that have dead letters more often.
        let among = if self.rng.random_bool(0.5) { 2 } else { HANDLERS.len() };
        let (name, ..) = HANDLERS[self.rng.random_range(0..among)];
        self.end_life(name).await;
        self.handler(name).lives.push(Life::default());
        self.log.forget(HandlerName::parse(name).unwrap()).await.unwrap();
        self.start_host().await;
    }

    /// Writes down what the handler did since it was born.
    async fn end_life(&mut self, name: &'static str) {
        let (effects, upto) = self.effects(name).await;
        let published = self.facts.published.len();
        let life = self.handler(name).lives.last_mut().unwrap();
        (life.published, life.effects) = (published, effects);
        self.born.insert(name, upto);
    }

    /// What the handler did since it was born, and how far the log was looked at.
    pub(super) async fn effects(&self, name: &str) -> (Vec<Effect>, Offset) {
        let (messages, upto) = after(&*self.log, self.born[name]).await;
        let topic = format!("out.{name}");
        let outputs = messages.iter().filter(|message| message.topic.as_str() == topic);
        let effect = |message: &Arc<Message>| {
            let body: Value = serde_json::from_slice(&message.body).unwrap();
            Effect { of: number_of(message), pad: body["pad"].as_u64().unwrap() as usize }
        };
        (outputs.map(effect).collect(), upto)
    }

    async fn letters(&self, name: &str) -> Vec<Letter> {
        let mine = DeadFilter { handler: Some(HandlerName::parse(name).unwrap()), ..DeadFilter::default() };
        let mut letters = vec![];
        for found in self.log.dead(DeadQuery::newest(mine, usize::MAX)).await.unwrap() {
            let deaths = found.letter.deaths;
            let first = self.log.fetch(vec![deaths.first_offset]).await.unwrap().remove(0).unwrap();
            let (count, returns) = (deaths.count as usize, deaths.returns as usize);
            letters.push(Letter { first: number_of(&first), deaths: count, returns });
        }
        letters
    }

    fn handler(&mut self, name: &str) -> &mut model::Handler {
        self.facts.handlers.iter_mut().find(|handler| handler.name == name).unwrap()
    }
}

/// Which published message it is, or comes from.
fn number_of(message: &Message) -> usize {
    let body: Value = serde_json::from_slice(&message.body).unwrap();
    body["number"].as_u64().unwrap() as usize
}
