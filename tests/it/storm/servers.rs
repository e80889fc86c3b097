//! What the hosts' log is on: three NATS servers that keep three copies, one, or one Redis that syncs before it answers.

use crate::harness::nats_cluster::Cluster;
use crate::harness::{nats, redis};
use sluicebox::log::Log;
use std::sync::Arc;

pub const NAMESPACE: &str = "storm";
const STREAMS: [&str; 2] = ["sluicebox-storm", "sluicebox-storm-state"];

pub enum Servers {
    Nats(Cluster),
    OneNats(nats::OwnServer),
    Redis(redis::OwnServer),
}

impl Servers {
    /// Clients hear of none but those that they were told of, so that whatever they do goes through their proxies.
    pub async fn nats() -> Self {
        Self::Nats(Cluster::start_with(&["--no_advertise"]).await)
    }

    pub fn one_nats() -> Self {
        Self::OneNats(nats::OwnServer::start())
    }

    pub fn redis() -> Self {
        Self::Redis(redis::OwnServer::start())
    }

    pub fn ports(&self) -> Vec<u16> {
        match self {
            Self::Nats(cluster) => cluster.servers.iter().map(nats::OwnServer::port).collect(),
            Self::OneNats(server) => vec![server.port()],
            Self::Redis(server) => vec![server.port()],
        }
    }

    /// The settings of a log whose servers are behind these ports.
    pub fn settings(&self, ports: &[u16]) -> String {
        let (kind, more) = match self {
            Self::Nats(_) => ("nats", "replicas = 3"),
            Self::OneNats(_) => ("nats", ""),
            Self::Redis(_) => ("redis", ""),
        };
        let urls: Vec<String> = ports.iter().map(|port| format!("{kind}://127.0.0.1:{port}")).collect();
        format!("[log]\nkind = \"{kind}\"\nurl = \"{}\"\n{more}\n", urls.join(","))
    }

    /// The log, beside the hosts and their proxies.
    pub fn open(&self) -> Arc<dyn Log> {
        match self {
            Self::Nats(cluster) => {
                nats::open_with(nats::Options { replicas: 3, ..nats::Options::new(cluster.url(), NAMESPACE) })
            }
            Self::OneNats(server) => nats::open_with(nats::Options::new(server.url(), NAMESPACE)),
            Self::Redis(server) => redis::open_with(redis::Options::new(server.url(), NAMESPACE)),
        }
        .unwrap()
    }

    /// The server that decides the order of all that is written.
    pub async fn leader(&self) -> usize {
        match self {
            Self::Nats(cluster) => cluster.leader_of(STREAMS[0]).await,
            Self::OneNats(_) | Self::Redis(_) => 0,
        }
    }

    /// The leader gives its place to another server.
    pub async fn step_down(&self) {
        let Self::Nats(cluster) = self else { return };
        let asked = format!("STREAM.LEADER.STEPDOWN.{}", STREAMS[0]);
        let answer: Result<serde_json::Value, _> = cluster.context().await.request(asked, &()).await;
        // One that has no time to answer is as good.
        drop(answer);
    }

    /// SIGKILL.
    pub fn kill(&mut self, server: usize) {
        match self {
            Self::Nats(cluster) => cluster.servers[server].kill(),
            Self::OneNats(server) => server.kill(),
            Self::Redis(server) => server.kill(),
        }
    }

    /// With the same data, at the same place.
    pub fn start_again(&mut self, server: usize) {
        match self {
            Self::Nats(cluster) => cluster.servers[server].start_again(),
            Self::OneNats(server) => server.start_again(),
            Self::Redis(server) => server.start_again(),
        }
    }

    /// Waits until each server has all, so that any may be killed.
    pub async fn until_whole(&self) {
        let Self::Nats(cluster) = self else { return };
        for stream in STREAMS {
            cluster.until_whole(stream).await;
        }
    }

    /// Whether the log goes on while one of them is away.
    pub fn outlive_one(&self) -> bool {
        matches!(self, Self::Nats(_))
    }
}
