//! Publishers that send the messages of their keys one after the other, each until a host says that it is durable: through
//! whichever host answers, and under the same id again when it is not known what became of it.

use crate::harness::PATIENCE;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

const PUBLISHERS: usize = 4;
const KEYS_OF_EACH: usize = 6;
/// Between two messages of a publisher.
const PACE: Duration = Duration::from_millis(20);
/// Between two tries to send one.
const AGAIN: Duration = Duration::from_millis(10);
/// A host that does not answer within this is left for another one.
const ANSWER: Duration = Duration::from_secs(1);

/// What publishers know.
#[derive(Default)]
pub struct Told {
    /// Where the hosts are; empty while one is known to be away.
    urls: Mutex<Vec<String>>,
    /// By key the ids that were acknowledged, in the order in which they were sent.
    published: Mutex<BTreeMap<String, Vec<String>>>,
    /// How often it was not known what became of a message.
    doubts: AtomicU64,
    end: AtomicBool,
}

impl Told {
    pub fn published(&self) -> BTreeMap<String, Vec<String>> {
        self.published.lock().unwrap().clone()
    }

    pub fn doubts(&self) -> u64 {
        self.doubts.load(Ordering::Relaxed)
    }

    pub fn host_is_at(&self, host: usize, url: &str) {
        let mut urls = self.urls.lock().unwrap();
        let count = urls.len().max(host + 1);
        urls.resize(count, String::new());
        url.clone_into(&mut urls[host]);
    }

    /// Sends one message until a host says that it is durable; which host did. The first one that is asked is `host`.
    pub async fn publish(&self, client: &reqwest::Client, mut host: usize, key: &str, id: &str) -> usize {
        let mut pace = tokio::time::interval(AGAIN);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            pace.tick().await;
            let url = {
                let urls = self.urls.lock().unwrap();
                host %= urls.len();
                urls[host].clone()
            };
            if !url.is_empty() && send(client, &url, key, id).await {
                self.published.lock().unwrap().entry(key.to_owned()).or_default().push(id.to_owned());
                return host;
            }
            if !url.is_empty() {
                self.doubts.fetch_add(1, Ordering::Relaxed);
            }
            host += 1;
        }
    }
}

/// True if the host said that the message is durable.
pub async fn send(client: &reqwest::Client, url: &str, key: &str, id: &str) -> bool {
    let request = client.post(format!("{url}/v1/topics/in")).header("sluicebox-key", key).header("sluicebox-id", id);
    request.body("ok").send().await.is_ok_and(|answer| answer.status().is_success())
}

/// As publishers use it.
pub fn client() -> reqwest::Client {
    reqwest::Client::builder().timeout(ANSWER).build().unwrap()
}

/// How many keys there are.
pub const KEYS: usize = PUBLISHERS * KEYS_OF_EACH;

pub struct Load {
    told: Arc<Told>,
    publishers: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn start(told: Arc<Told>) -> Self {
        let publishers = (0..PUBLISHERS).map(|publisher| tokio::spawn(publish(told.clone(), publisher))).collect();
        Self { told, publishers }
    }

    /// Returns when everything that was sent was acknowledged.
    pub async fn end(self) {
        self.told.end.store(true, Ordering::Relaxed);
        for publisher in self.publishers {
            tokio::time::timeout(PATIENCE, publisher).await.expect("nothing is taken any more").unwrap();
        }
    }
}

async fn publish(told: Arc<Told>, publisher: usize) {
    let client = client();
    let mut pace = tokio::time::interval(PACE);
    // What was not sent during an outage is not sent all at once after it.
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut host = publisher;
    for number in 0.. {
        pace.tick().await;
        if told.end.load(Ordering::Relaxed) {
            return;
        }
        // Now and then another host than the one that answered last.
        host += usize::from(number % 50 == 0);
        let key = format!("k{publisher}-{}", number % KEYS_OF_EACH);
        host = told.publish(&client, host, &key, &format!("{publisher}/{number}")).await;
    }
}
