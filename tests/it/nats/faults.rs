//! Three hosts' logs on three servers with three copies, under a load by key, while servers are killed, leaders step down, hosts
//! end in the middle of it, connections are cut, deaf, mute or slow: a history that is told by nobody of them shows each
//! message once and in order.
//!
//! `SLUICEBOX_FAULTS` sets how many faults there are, `SLUICEBOX_SEED` which.

mod checker;

use crate::harness::everything;
use crate::harness::logs::{commit, key, message, shard};
use crate::harness::nats::open_nats;
use crate::harness::nats_cluster::{Cluster, until};
use crate::harness::proxy::{Direction, Proxy};
use checker::{Account, check};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sluicebox::commit::ShardCommit;
use sluicebox::handler::ShardId;
use sluicebox::log::nats::{NatsLog, Options};
use sluicebox::log::{Log, ReadRequest};
use sluicebox::message::{Message, NewMessage, Offset};
use sluicebox::topic::Pattern;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

const NAMESPACE: &str = "faults";
const STREAM: &str = "sluicebox-faults";
const SHARDS: u16 = 4;
const KEYS: u16 = 16;
/// A fault lasts until so much came out in spite of it, or for so long.
const OUTPUTS: u64 = 20;
const LASTS: Duration = Duration::from_secs(2);

/// What all of them tell.
#[derive(Default)]
struct Told {
    outputs: AtomicU64,
    claims: AtomicU64,
    /// When something came out last, and the longest time between two.
    pause: Mutex<Option<(Instant, Duration)>>,
    /// Offsets that the log said it took.
    acknowledged: Mutex<Vec<Offset>>,
}

impl Told {
    fn came_out(&self, outputs: usize) {
        self.outputs.fetch_add(outputs as u64, Ordering::Relaxed);
        let now = Instant::now();
        let mut pause = self.pause.lock().unwrap();
        let longest = pause.map_or(Duration::ZERO, |(last, longest)| longest.max(now - last));
        *pause = Some((now, longest));
    }
}

fn shard_of(message: &Message) -> u16 {
    let key = message.key.as_ref().unwrap().as_str();
    key.parse::<u16>().unwrap() % SHARDS
}

/// Takes over one shard after the other and handles what it finds, by what the record says alone.
async fn work(log: Arc<NatsLog>, told: Arc<Told>, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    loop {
        pace.tick().await;
        let id = shard("h", random.random_range(0..SHARDS));
        let Ok(claim) = log.claim(id.clone(), Offset::START).await else { continue };
        told.claims.fetch_add(1, Ordering::Relaxed);
        let (mut read, mut number) = (claim.record.read, claim.record.commit_number);
        for _ in 0..random.random_range(1..10) {
            let Ok(handled) = handle(&log, &id, read).await else { break };
            let Some((upto, outputs)) = handled else { break };
            (read, number) = (upto, number + 1);
            let count = outputs.len();
            let next = ShardCommit { read, outputs, ..commit(&id, claim.term, number) };
            if log.commit(next).await.is_err() {
                break;
            }
            told.came_out(count);
        }
    }
}

/// What comes out of the next messages of a shard; `None` when there are none.
async fn handle(
    log: &NatsLog,
    id: &ShardId,
    after: Offset,
) -> Result<Option<(Offset, Vec<NewMessage>)>, sluicebox::log::LogError> {
    let patterns = vec![Pattern::parse("in").unwrap()];
    let request = ReadRequest { after, upto: Offset::END, patterns, messages_max: 100, bytes_max: usize::MAX };
    let batch = log.read(request).await?;
    let outputs = batch.messages.iter().filter(|message| shard_of(message) == id.index).map(|input| {
        let body = input.offset.0.to_string();
        NewMessage { key: input.key.clone(), ..message("out", body) }
    });
    let outputs: Vec<NewMessage> = outputs.collect();
    Ok((!outputs.is_empty()).then_some((batch.upto, outputs)))
}

/// Publishes messages of its keys, one after the other, each until it was taken.
async fn publish(log: Arc<NatsLog>, told: Arc<Told>, publisher: u16) {
    let mut pace = tokio::time::interval(Duration::from_millis(15));
    for number in 0.. {
        pace.tick().await;
        let key_text = ((number % (KEYS / 2)) * 2 + publisher).to_string();
        let input = NewMessage { key: Some(key(&key_text)), ..message("in", "") };
        if let Ok(offsets) = log.append(vec![input]).await {
            told.acknowledged.lock().unwrap().extend(offsets);
        }
    }
}

struct Host {
    proxy: Proxy,
    task: Option<AbortOnDropHandle<()>>,
}

struct Stage {
    cluster: Cluster,
    hosts: Vec<Host>,
    told: Arc<Told>,
    random: StdRng,
}

impl Stage {
    async fn set(seed: u64) -> Self {
        let cluster = Cluster::start().await;
        let proxies = cluster.servers.iter().map(|server| Proxy::to(server.port()));
        let hosts = proxies.map(|proxy| Host { proxy, task: None }).collect();
        let random = StdRng::seed_from_u64(seed);
        let mut stage = Self { cluster, hosts, told: Arc::default(), random };
        for host in 0..stage.hosts.len() {
            stage.start_host(host).await;
        }
        stage
    }

    async fn start_host(&mut self, host: usize) {
        let options = Options { replicas: 3, ..Options::new(self.hosts[host].proxy.url(), NAMESPACE) };
        let mut log = None;
        until("a host starts", async || {
            log = open_nats(options.clone()).ok();
            log.is_some()
        })
        .await;
        let work = work(log.unwrap(), self.told.clone(), self.random.random());
        self.hosts[host].task = Some(AbortOnDropHandle::new(tokio::spawn(work)));
    }

    /// Until enough came out in spite of what is going on, or for a while.
    async fn progress(&self) {
        let enough = self.told.outputs.load(Ordering::Relaxed) + OUTPUTS;
        let came = until("more comes out", async || self.told.outputs.load(Ordering::Relaxed) >= enough);
        drop(tokio::time::timeout(LASTS, came).await);
    }

    /// One fault from its beginning to its end; what it was.
    async fn fault(&mut self) -> &'static str {
        let host = self.random.random_range(0..self.hosts.len());
        match self.random.random_range(0..7) {
            0 => {
                let server = self.random.random_range(0..self.cluster.servers.len());
                self.kill(server).await;
                "a server killed"
            }
            1 => {
                let leader = self.cluster.leader_of(STREAM).await;
                self.kill(leader).await;
                "the leader killed"
            }
            2 => {
                let context = self.cluster.context().await;
                let asked: Result<serde_json::Value, _> =
                    context.request(format!("STREAM.LEADER.STEPDOWN.{STREAM}"), &()).await;
                drop(asked);
                self.progress().await;
                "the leader stepped down"
            }
            3 => {
                self.hosts[host].task = None;
                self.progress().await;
                self.start_host(host).await;
                "a host ended and started again"
            }
            4 => {
                self.hosts[host].proxy.cut();
                self.progress().await;
                "a connection cut"
            }
            5 => {
                let is_deaf = self.random.random_bool(0.5);
                let (direction, name) =
                    if is_deaf { (Direction::ToClient, "a deaf host") } else { (Direction::ToServer, "a mute host") };
                self.hosts[host].proxy.hold(direction);
                self.progress().await;
                if self.random.random_bool(0.5) {
                    self.hosts[host].proxy.cut();
                }
                self.hosts[host].proxy.release();
                name
            }
            _ => {
                for direction in [Direction::ToClient, Direction::ToServer] {
                    self.hosts[host].proxy.delay(direction, Duration::from_millis(50));
                }
                self.progress().await;
                for direction in [Direction::ToClient, Direction::ToServer] {
                    self.hosts[host].proxy.delay(direction, Duration::ZERO);
                }
                "a slow host"
            }
        }
    }

    async fn kill(&mut self, server: usize) {
        self.cluster.servers[server].kill();
        self.progress().await;
        self.cluster.servers[server].start_again();
        // A majority must be there when the next one goes.
        self.cluster.until_whole(STREAM).await;
        self.cluster.until_whole("sluicebox-faults-state").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_between_three_hosts_and_three_servers_each_message_comes_out_once_and_in_order() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = number("SLUICEBOX_SEED").unwrap_or_else(rand::random);
    let faults = number("SLUICEBOX_FAULTS").unwrap_or(20);
    println!("SLUICEBOX_SEED={seed}");
    let mut stage = Stage::set(seed).await;
    let open =
        |stage: &Stage| open_nats(Options { replicas: 3, ..Options::new(stage.cluster.url(), NAMESPACE) }).unwrap();
    let beside = open(&stage);
    let publishers: Vec<JoinHandle<()>> =
        (0..2).map(|publisher| tokio::spawn(publish(open(&stage), stage.told.clone(), publisher))).collect();
    stage.progress().await;
    for fault in 1..=faults {
        let began = Instant::now();
        let what = stage.fault().await;
        println!("fault {fault}: {what}, {:.1} s", began.elapsed().as_secs_f64());
    }
    for publisher in publishers {
        publisher.abort();
        drop(publisher.await);
    }
    let told = stage.told.clone();
    let acknowledged = told.acknowledged.lock().unwrap().clone();
    let mut account = Account::default();
    until("all came out", async || {
        account = Account::of(&everything(&*beside).await, acknowledged.clone());
        account.outputs.len() >= account.inputs.len()
    })
    .await;
    let longest = told.pause.lock().unwrap().map_or(Duration::ZERO, |(_, longest)| longest);
    println!(
        "{} messages, {faults} faults, {} takeovers, longest pause {:.1} s",
        account.inputs.len(),
        told.claims.load(Ordering::Relaxed),
        longest.as_secs_f64()
    );
    if let Err(broken) = check(&account) {
        panic!("{broken}, SLUICEBOX_SEED={seed}");
    }
}
