//! Hosts that work together on one namespace, somebody who publishes to them without end, and what the log says of it all.

use crate::harness::guests::handler;
use crate::harness::nats::{fresh_namespace, url};
use crate::harness::process::{Place, Process};
use crate::harness::{PATIENCE, after, nats, redis};
use serde_json::Value;
use sluicebox::log::Log;
use sluicebox::message::Offset;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Of the handler.
pub const SHARDS: usize = 24;
const USERS: usize = 50;

/// A namespace, and a folder for each host.
pub struct Together {
    url: String,
    namespace: String,
    places: Vec<Place>,
    /// Lines of settings: below [host], [log] and the handler.
    more: [String; 3],
}

impl Together {
    pub fn new(lease: &str) -> Self {
        Self::on(&url(), &fresh_namespace(), lease)
    }

    pub fn on(url: &str, namespace: &str, lease: &str) -> Self {
        let places = (0..3).map(|_| Place::new("", &[&handler("order")])).collect();
        let more = [format!("lease = \"{lease}\""), String::new(), format!("shards = {SHARDS}")];
        let together = Self { url: url.into(), namespace: namespace.into(), places, more };
        (0..3).for_each(|at| together.write(at, &together.more));
        together
    }

    /// With more settings below [host], [log] and the handler, for all hosts.
    pub fn and(mut self, host: &str, log: &str, handler: &str) -> Self {
        for (lines, more) in self.more.iter_mut().zip([host, log, handler]) {
            *lines = format!("{lines}\n{more}");
        }
        (0..3).for_each(|at| self.write(at, &self.more));
        self
    }

    /// One host has this below the handler, and nothing of what the others have there.
    pub fn differs(&self, at: usize, handler: &str) {
        let [host, log, _] = self.more.clone();
        self.write(at, &[host, log, handler.to_owned()]);
    }

    fn write(&self, at: usize, [host, log, handler]: &[String; 3]) {
        let Self { url, namespace, .. } = self;
        let kind = if self.is_on_redis() { "redis" } else { "nats" };
        let settings = format!(
            r#"
namespace = "{namespace}"
[log]
kind = "{kind}"
url = "{url}"
{log}
[host]
name = "host-{at}"
{host}
[http]
listen = "127.0.0.1:0"
[handlers.order]
module = "order.wasm"
subscribe = ["events.*"]
start = "earliest"
publish = ["orders.*"]
key = ["/args/user"]
id = "/id"
{handler}
"#
        );
        self.places[at].put("sluicebox.toml", settings);
    }

    /// Starts as many, and waits until they are ready.
    pub fn start(&self, hosts: usize) -> Vec<Process> {
        self.places[..hosts].iter().map(Place::start).collect()
    }

    /// Starts as many at the same time.
    pub fn start_at_once(&self, hosts: usize) -> Vec<Process> {
        std::thread::scope(|scope| {
            let starting: Vec<_> = self.places[..hosts].iter().map(|place| scope.spawn(|| place.start())).collect();
            starting.into_iter().map(|host| host.join().unwrap()).collect()
        })
    }

    pub fn command(&self, arguments: &[&str]) -> (i32, String, String) {
        self.places[0].command(arguments)
    }

    pub fn log(&self) -> Arc<dyn Log> {
        let Self { url, namespace, .. } = self;
        let log = match self.is_on_redis() {
            true => redis::open_with(redis::Options::new(url, namespace)),
            false => nats::open_with(nats::Options::new(url, namespace)),
        };
        log.unwrap()
    }

    fn is_on_redis(&self) -> bool {
        self.url.starts_with("redis:")
    }

    /// Waits until all of these see these hosts and no others, and each shard is held by one of them.
    pub async fn until_shared<H: std::borrow::Borrow<Process>>(&self, hosts: &[H]) {
        for asked in hosts {
            let is_shared = async |host: &Process| {
                let live = live(host).await;
                let held: Vec<(String, u64)> = live.iter().flat_map(held_in).collect();
                let distinct: BTreeSet<_> = held.iter().collect();
                live.len() == hosts.len() && held.len() == SHARDS && distinct.len() == SHARDS
            };
            let what = format!("{} hosts share {SHARDS} shards", hosts.len());
            asked.borrow().until(&what, is_shared).await;
        }
    }

    /// Publishes to these without end.
    pub fn publish(&self, hosts: &[Process]) -> Publishing {
        let urls = Arc::new(Mutex::new(hosts.iter().map(|host| host.url.clone()).collect::<Vec<_>>()));
        let (sent, end) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn(publish(urls.clone(), sent.clone(), end.clone()));
        Publishing { urls, sent, end, task }
    }

    /// What the log says: of so many orders each was accepted once, each user's in the order in which they were published.
    pub async fn check_each_once(&self, orders: usize) {
        let log = self.log();
        let mut tail = log.tail().await.unwrap();
        let mut seen = Offset::START;
        let (mut published, mut accepted) =
            (BTreeMap::<String, Vec<String>>::new(), BTreeMap::<String, Vec<Value>>::new());
        let mut known = BTreeSet::new();
        let all = async {
            loop {
                let (messages, upto) = after(&*log, seen).await;
                seen = upto;
                for message in messages {
                    let Ok(body) = serde_json::from_slice::<Value>(&message.body) else { continue };
                    let text = |value: &Value| value.as_str().unwrap().to_owned();
                    match message.topic.as_str() {
                        // One that was sent again, since the answer was lost, is the same one.
                        "events.new_order" if known.insert(text(&body["id"])) => {
                            published.entry(text(&body["args"]["user"])).or_default().push(text(&body["id"]));
                        }
                        "orders.accepted" => accepted.entry(text(&body["user"])).or_default().push(body),
                        _ => {}
                    }
                }
                if accepted.values().map(Vec::len).sum::<usize>() >= orders {
                    return;
                }
                tail.next().await;
            }
        };
        if tokio::time::timeout(PATIENCE, all).await.is_err() {
            let accepted: usize = accepted.values().map(Vec::len).sum();
            panic!("{accepted} of {orders} orders are accepted");
        }
        assert_eq!(known.len(), orders);
        for (user, ids) in published {
            let accepted = accepted.remove(&user).unwrap();
            let order: Vec<&str> = accepted.iter().map(|body| body["order"].as_str().unwrap()).collect();
            assert_eq!(order, ids, "{user}");
            // The state that each run found was that of the run before.
            let counted: Vec<u64> = accepted.iter().map(|body| body["orders"].as_u64().unwrap()).collect();
            assert_eq!(counted, (1..=ids.len() as u64).collect::<Vec<_>>(), "{user}");
        }
        assert!(accepted.is_empty());
        println!("{orders} orders, each once and in order");
    }
}

/// Somebody who publishes orders, one after the other, each until a host says that it is durable.
pub struct Publishing {
    urls: Arc<Mutex<Vec<String>>>,
    sent: Arc<AtomicUsize>,
    end: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Publishing {
    /// Waits until so many more were taken.
    pub async fn go_on(&self, orders: usize) {
        let upto = self.sent.load(Ordering::Relaxed) + orders;
        let wait = async {
            let mut pace = tokio::time::interval(Duration::from_millis(10));
            while self.sent.load(Ordering::Relaxed) < upto {
                pace.tick().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("nothing is taken any more");
    }

    /// This host gets no more.
    pub fn leave_out(&self, host: &Process) {
        self.urls.lock().unwrap().retain(|url| *url != host.url);
    }

    /// Ends it; how many there were.
    pub async fn end(self) -> usize {
        self.end.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        self.sent.load(Ordering::Relaxed)
    }
}

async fn publish(urls: Arc<Mutex<Vec<String>>>, sent: Arc<AtomicUsize>, end: Arc<AtomicBool>) {
    // A host that sleeps does not answer.
    let client = reqwest::Client::builder().timeout(Duration::from_secs(2)).build().unwrap();
    let mut at = 0;
    while !end.load(Ordering::Relaxed) {
        let number = sent.load(Ordering::Relaxed);
        let user = number % USERS;
        let order =
            format!(r#"{{"type":"new_order","id":"o-{number}","args":{{"user":"user-{user}","amount_cents":100}}}}"#);
        loop {
            at += 1;
            let url = {
                let urls = urls.lock().unwrap();
                urls[at % urls.len()].clone()
            };
            let request = client.post(format!("{url}/v1/topics/events.new_order")).body(order.clone());
            match request.send().await {
                Ok(answer) if answer.status().is_success() => break,
                // Refused: the server of the log may be away.
                _ => tokio::task::yield_now().await,
            }
        }
        sent.fetch_add(1, Ordering::Relaxed);
    }
}

/// The hosts that live, as this one sees them.
pub async fn live(host: &Process) -> Vec<Value> {
    let page: Value = serde_json::from_str(&host.get("/v1/hosts").await).unwrap_or_default();
    let hosts = page["hosts"].as_array().cloned().unwrap_or_default();
    hosts.into_iter().filter(|host| host["state"] == "live").collect()
}

/// Handler and index of each shard of the settings' handler that a host holds.
fn held_in(host: &Value) -> Vec<(String, u64)> {
    let handlers = host["handlers"].as_array().unwrap().iter().filter(|handler| handler["name"] == "order");
    let held = |handler: &Value| {
        let name = handler["name"].as_str().unwrap().to_owned();
        let indices = handler["held"].as_array().unwrap().iter().map(|index| index.as_u64().unwrap());
        indices.map(|index| (name.clone(), index)).collect::<Vec<_>>()
    };
    handlers.flat_map(held).collect()
}

/// How many shards a host says that it holds.
pub async fn held_by(host: &Process) -> usize {
    let live = live(host).await;
    live.iter().filter(|host| host["is_this"] == true).map(|host| held_in(host).len()).sum()
}

/// Which of these holds the most, and how many.
pub async fn held_most(hosts: &[Process]) -> (usize, usize) {
    let mut most = (0, 0);
    for (at, host) in hosts.iter().enumerate() {
        let held = held_by(host).await;
        if held > most.1 {
            most = (at, held);
        }
    }
    most
}

/// A metric over all of these.
pub async fn sum(hosts: &[Process], name: &str) -> u64 {
    let mut sum = 0;
    for host in hosts {
        sum += host.metric(name).await;
    }
    sum
}
