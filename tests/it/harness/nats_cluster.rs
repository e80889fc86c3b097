//! Three servers that are one JetStream cluster, each of which may be killed and started again.

use super::PATIENCE;
use super::nats::{OwnServer, free_port};
use async_nats::jetstream::{self, stream::Info};
use std::ffi::OsString;
use std::time::Duration;

pub struct Cluster {
    pub servers: Vec<OwnServer>,
}

impl Cluster {
    /// Returns when it takes streams with three copies.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With these arguments for each server.
    pub async fn start_with(more: &[&str]) -> Self {
        let routes: Vec<String> = (0..3).map(|_| free_port()).collect();
        let all: Vec<String> = routes.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        let servers = (0..3).map(|at| {
            let texts = [
                "-js",
                "-n",
                &format!("n{at}"),
                "--cluster_name",
                "c",
                "--cluster",
                &all[at],
                "--routes",
                &all.join(","),
            ];
            let arguments: Vec<OsString> = texts.iter().chain(more).map(OsString::from).collect();
            std::thread::spawn(move || OwnServer::start_at(tempfile::tempdir().unwrap(), &free_port(), arguments))
        });
        let servers: Vec<_> = servers.collect();
        let cluster = Self { servers: servers.into_iter().map(|server| server.join().unwrap()).collect() };
        let config = jetstream::stream::Config { name: "ready".into(), num_replicas: 3, ..Default::default() };
        let context = cluster.context().await;
        until("the cluster takes streams", async || context.create_stream(config.clone()).await.is_ok()).await;
        context.delete_stream("ready").await.unwrap();
        cluster
    }

    /// Of all servers.
    pub fn url(&self) -> String {
        self.servers.iter().map(OwnServer::url).collect::<Vec<_>>().join(",")
    }

    pub async fn context(&self) -> jetstream::Context {
        let urls: Vec<String> = self.servers.iter().map(OwnServer::url).collect();
        jetstream::new(async_nats::connect(urls).await.unwrap())
    }

    /// What is known of a stream that has a leader.
    pub async fn stream(&self, name: &str) -> Info {
        let context = self.context().await;
        let mut found = None;
        until("the stream has a leader", async || {
            found = context.get_stream(name).await.ok().map(|stream| stream.cached_info().clone());
            found.as_ref().is_some_and(|info| info.cluster.as_ref().is_some_and(|cluster| cluster.leader.is_some()))
        })
        .await;
        found.unwrap()
    }

    /// Which server leads a stream.
    pub async fn leader_of(&self, name: &str) -> usize {
        let leader = self.stream(name).await.cluster.unwrap().leader.unwrap();
        leader.strip_prefix('n').unwrap().parse().unwrap()
    }

    /// Every copy of the stream is there and up to date.
    pub async fn until_whole(&self, name: &str) {
        until("all copies are up to date", async || {
            let cluster = self.stream(name).await.cluster.unwrap();
            cluster.replicas.len() == 2 && cluster.replicas.iter().all(|copy| copy.current && !copy.offline)
        })
        .await;
    }
}

/// Asks again until it is so, at most for the patience of the tests.
pub async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let asks = async {
        let mut pace = tokio::time::interval(Duration::from_millis(30));
        while !done().await {
            pace.tick().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, asks).await.is_ok(), "waited in vain until {what}");
}
