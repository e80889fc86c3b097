//! Somebody beside the hosts who reads the log: how far each key is while faults go on, and all there is at the end.

use super::checker::{Account, Entry};
use super::load::{KEYS, Told};
use crate::harness::{after, counts};
use sluicebox::log::{Batch, Log, ReadRequest};
use sluicebox::message::{Key, Message, Offset};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_util::task::AbortOnDropHandle;

/// Where publishers write, and where each handler of the chain does.
pub const TOPICS: [&str; 3] = ["in", "out.first", "out.second"];
const LAST_HANDLER: &str = "second";

#[derive(Default)]
struct Seen {
    /// How many came out at the end of the chain, by key.
    out: BTreeMap<String, usize>,
    /// Of what was published.
    ids: BTreeSet<String>,
    /// When something came out last, and the longest time between two.
    last: Option<Instant>,
    longest: Duration,
}

pub struct Observer {
    log: Arc<dyn Log>,
    seen: Arc<Mutex<Seen>>,
    _task: AbortOnDropHandle<()>,
}

impl Observer {
    pub async fn start(log: Arc<dyn Log>) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let mut tail = log.tail().await.unwrap();
        let (to, from) = (seen.clone(), log.clone());
        let task = tokio::spawn(async move {
            let mut upto = tail.start();
            while let Some(batch) = tail.next().await {
                match batch {
                    Ok(batch) => to.lock().unwrap().see_all(&batch, &mut upto),
                    // On a busy machine it may be late: what it did not hear it reads.
                    Err(_) => read_missed(&*from, &to, &mut upto).await,
                }
            }
        });
        Self { log, seen, _task: AbortOnDropHandle::new(task) }
    }

    /// Whether of each key something came out that was published after this.
    pub fn each_goes_on_after(&self, published: &BTreeMap<String, Vec<String>>) -> bool {
        let seen = self.seen.lock().unwrap();
        // One may have been on its way, and of the next one it is certain.
        published.iter().all(|(key, ids)| *key == CUT_KEY || seen.out.get(key).is_some_and(|out| *out > ids.len() + 1))
    }

    /// Whether something of each key came out.
    pub fn has_all(&self) -> bool {
        self.seen.lock().unwrap().out.len() >= KEYS
    }

    /// Whether the log has it.
    pub fn has(&self, id: &str) -> bool {
        self.seen.lock().unwrap().ids.contains(id)
    }

    /// How many came out at the end of the chain.
    pub fn came_out(&self) -> usize {
        self.seen.lock().unwrap().out.values().sum()
    }

    pub fn longest_pause(&self) -> Duration {
        self.seen.lock().unwrap().longest
    }

    /// What there is, as the checker wants it.
    pub async fn account(&self, told: &Told) -> Account {
        let published = told.published();
        let routings = self.log.routings().await.unwrap().routings;
        let routing = routings.iter().find(|routing| routing.handler.as_str() == LAST_HANDLER).unwrap();
        let keys: Vec<Key> = published.keys().map(|key| Key::parse(key).unwrap().unwrap()).collect();
        let state = counts(&*self.log, routing, &keys).await;
        let entries = after(&*self.log, Offset::START).await.0.iter().map(|message| entry(message)).collect();
        Account {
            published,
            topics: TOPICS.map(str::to_owned).into(),
            entries,
            state: state.into_iter().map(|(key, n)| (key.as_str().to_owned(), n)).collect(),
        }
    }
}

/// What is published by the way, by one fault at a time.
pub const CUT_KEY: &str = "cut";

/// Reads on to the end, also where the servers do not answer for a while.
async fn read_missed(log: &dyn Log, to: &Mutex<Seen>, upto: &mut Offset) {
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    loop {
        let (after, patterns) = (*upto, vec![]);
        let request = ReadRequest { after, upto: Offset::END, patterns, messages_max: 1000, bytes_max: usize::MAX };
        match log.read(request).await {
            Ok(batch) => to.lock().unwrap().see_all(&batch, upto),
            Err(_) => drop(pace.tick().await),
        }
        if *upto == after && log.end().await.is_ok_and(|end| end <= after) {
            return;
        }
    }
}

impl Seen {
    /// Each message once, whatever comes again.
    fn see_all(&mut self, batch: &Batch, upto: &mut Offset) {
        batch.messages.iter().filter(|message| message.offset > *upto).for_each(|message| self.see(message));
        *upto = batch.upto.max(*upto);
    }

    fn see(&mut self, message: &Message) {
        let key = || message.key.as_ref().map_or_else(String::new, |key| key.as_str().to_owned());
        match message.topic.as_str() {
            topic if topic == TOPICS[0] => self.ids.extend(message.id.as_ref().map(ToString::to_string)),
            topic if topic == TOPICS[TOPICS.len() - 1] => {
                *self.out.entry(key()).or_default() += 1;
                let now = Instant::now();
                self.longest = self.last.map_or(Duration::ZERO, |last| self.longest.max(now - last));
                self.last = Some(now);
            }
            _ => {}
        }
    }
}

fn entry(message: &Message) -> Entry {
    let fact: Option<serde_json::Value> = serde_json::from_slice(&message.body).ok();
    Entry {
        offset: message.offset.0,
        topic: message.topic.as_str().to_owned(),
        key: message.key.as_ref().map_or_else(String::new, |key| key.as_str().to_owned()),
        id: message.id.as_ref().map_or_else(String::new, ToString::to_string),
        version: fact.as_ref().and_then(|fact| fact["version"].as_u64()).unwrap_or(0),
        fact: fact.and_then(|fact| Some((fact["source"].as_u64()?, fact["n"].as_u64()?))),
    }
}
