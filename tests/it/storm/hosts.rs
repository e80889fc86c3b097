//! Three hosts as processes, each with a network of its own to every server.

use super::load::Told;
use super::servers::{NAMESPACE, Servers};
use crate::harness::PATIENCE;
use crate::harness::guests::ledger;
use crate::harness::process::{Place, Process};
use crate::harness::proxy::{Direction, Proxy};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const HOSTS: usize = 3;
/// A host that is silent for so long loses its shards.
const LEASE: Duration = Duration::from_secs(1);

/// A chain of two handlers that count by key. Whoever was asleep must not find that his run took too long.
const HANDLERS: &str = r#"
[handlers.first]
module = "ledger.wasm"
subscribe = ["in"]
start = "earliest"
publish = ["out.first"]
shards = 6
timeout = "1m"
config = { output = "out.first" }

[handlers.second]
module = "ledger.wasm"
subscribe = ["out.first"]
start = "earliest"
publish = ["out.second"]
shards = 5
timeout = "1m"
config = { output = "out.second" }
"#;

/// A host, whether it runs or not.
pub struct Member {
    at: usize,
    place: Arc<Place>,
    network: Vec<Proxy>,
    process: Option<Process>,
    told: Arc<Told>,
    /// Shards that it took over in the lives that ended.
    taken_over: u64,
}

impl Member {
    pub async fn start(at: usize, servers: &Servers, told: Arc<Told>) -> Self {
        Self::start_leased(at, servers, told, LEASE).await
    }

    /// As `start`, with another lease.
    pub async fn start_leased(at: usize, servers: &Servers, told: Arc<Told>, lease: Duration) -> Self {
        let network: Vec<Proxy> = servers.ports().into_iter().map(Proxy::to).collect();
        let ports: Vec<u16> = network.iter().map(Proxy::port).collect();
        let place = Place::new("", &[]);
        place.put("ledger.wasm", ledger(0));
        let lease = lease.as_secs();
        let host = format!("[host]\nname = \"host-{at}\"\nlease = \"{lease}s\"\n[http]\nlisten = \"127.0.0.1:0\"\n");
        let log = servers.settings(&ports);
        place.put("sluicebox.toml", format!("namespace = \"{NAMESPACE}\"\n{log}{host}{HANDLERS}"));
        let mut member = Self { at, place: Arc::new(place), network, process: None, told, taken_over: 0 };
        member.start_again().await;
        member
    }

    /// Returns when it is ready. One that finds no server that leads ends, and is started again, as whoever keeps it running would.
    pub async fn start_again(&mut self) {
        let began = Instant::now();
        let process = loop {
            let place = self.place.clone();
            let process = tokio::task::spawn_blocking(move || place.start_heard_at("warn")).await.unwrap();
            if !process.url.is_empty() {
                break process;
            }
            assert!(began.elapsed() < PATIENCE, "host {} does not start: {}", self.at, self.place.heard());
        };
        self.told.host_is_at(self.at, &process.url);
        self.process = Some(process);
    }

    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }

    /// Shards that it ever took over from one that was silent.
    pub async fn taken_over(&self) -> u64 {
        let now = match &self.process {
            Some(process) => process.metric("takeovers_total").await,
            None => 0,
        };
        self.taken_over + now
    }

    /// Nobody publishes to it any more; it is about to end.
    async fn take_out(&mut self) -> Process {
        self.taken_over = self.taken_over().await;
        self.told.host_is_at(self.at, "");
        self.process.take().expect("it runs")
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        self.take_out().await.kill();
    }

    /// SIGTERM.
    pub async fn stop(&mut self) {
        let process = self.take_out().await;
        let ended = tokio::task::spawn_blocking(move || process.stop()).await.unwrap();
        assert!(ended.success(), "host {} did not end well: {}", self.at, self.place.heard());
    }

    /// Waits until it ends by itself, and does not end well; what it said.
    pub async fn until_failed(&mut self) -> String {
        self.told.host_is_at(self.at, "");
        let process = self.process.take().expect("it runs");
        let ended = tokio::task::spawn_blocking(move || process.ended());
        let ended = tokio::time::timeout(PATIENCE, ended).await.expect("it goes on").unwrap();
        assert!(!ended.success());
        self.place.heard()
    }

    /// From now on its way leads to this server.
    pub fn is_led_to(&self, port: u16) {
        self.network.iter().for_each(|proxy| proxy.lead_to(port));
    }

    /// Waits until it says that it is ready.
    pub async fn until_ready(&mut self) {
        assert!(!self.process.as_mut().expect("it runs").has_ended(), "host {} ended: {}", self.at, self.place.heard());
        let process = self.process();
        let looks = async {
            let mut pace = tokio::time::interval(Duration::from_millis(20));
            while process.get("/readyz").await != "ready\n" {
                pace.tick().await;
            }
        };
        if tokio::time::timeout(PATIENCE, looks).await.is_err() {
            panic!("host {} is not ready: {}\n{}", self.at, process.get("/readyz").await, self.place.heard());
        }
    }

    /// What it ever said must not have in it.
    pub fn check_said(&self) {
        let heard = self.place.heard();
        assert!(!heard.contains("panicked"), "host {} panicked: {heard}", self.at);
    }

    pub fn hold(&self, direction: Direction) {
        self.network.iter().for_each(|proxy| proxy.hold(direction));
    }

    pub fn release(&self) {
        self.network.iter().for_each(Proxy::release);
    }

    pub fn cut(&self) {
        self.network.iter().for_each(Proxy::cut);
    }

    pub fn delay(&self, by: Duration) {
        for direction in [Direction::ToServer, Direction::ToClient] {
            self.network.iter().for_each(|proxy| proxy.delay(direction, by));
        }
    }
}
