//! NATS JetStream: one server, one copy, files synced every two minutes, which is its default; the same for both.

mod by_hand;

use crate::engine::{Engine, Took, Work};
use crate::server::{Server, find};
use anyhow::Context as _;
use async_nats::jetstream::{self, stream};
use futures_util::TryStreamExt as _;
use sluicebox::log::Log;
use sluicebox::log::nats::{NatsLog, Options};
use std::sync::Arc;
use std::time::Duration;

pub struct Nats {
    server: Server,
    url: String,
    version: String,
}

impl Nats {
    pub async fn start() -> anyhow::Result<Self> {
        let program = find("nats-server", "SLUICEBOX_NATS_SERVER", "target/nats-server/bin/nats-server")?;
        let arguments = |folder: &std::path::Path| {
            let fixed = ["-a", "127.0.0.1", "-p", "-1", "-js", "-sd"].map(Into::into);
            fixed.into_iter().chain([folder.join("data").into()]).collect()
        };
        let mut port = None;
        let server = Server::start(&program, arguments, |line| {
            if let Some((_, found)) = line.split_once("client connections on 127.0.0.1:") {
                port = Some(found.trim().to_owned());
            }
            line.contains("Server is ready")
        })?;
        let url = format!("nats://127.0.0.1:{}", port.context("the server says its port")?);
        let version = async_nats::connect(&url).await?.server_info().version;
        Ok(Self { server, url, version })
    }

    /// A connection of its own, as each program has.
    async fn connect(&self) -> anyhow::Result<jetstream::Context> {
        Ok(jetstream::new(async_nats::connect(&self.url).await?))
    }

    async fn stream(&self, name: &str, subject: &str) -> anyhow::Result<stream::Stream> {
        let config = stream::Config { name: name.into(), subjects: vec![subject.into()], ..stream::Config::default() };
        Ok(self.connect().await?.create_stream(config).await?)
    }
}

impl Engine for Nats {
    const NAME: &str = "NATS JetStream";

    fn describe(&self) -> String {
        format!(
            "engine: nats-server {} on this machine, 1 replica, file storage, sync_interval 2m (both sides survive the death \
             of processes, not the loss of power); by hand: explicit ack, {} in flight, awaited publish acks, state in memory",
            self.version,
            by_hand::IN_FLIGHT
        )
    }

    fn process(&self) -> u32 {
        self.server.process
    }

    fn bytes(&self) -> u64 {
        self.server.bytes()
    }

    fn url(&self) -> &str {
        &self.url
    }

    async fn log(&self, namespace: &str) -> anyhow::Result<Arc<dyn Log>> {
        Ok(Arc::new(NatsLog::open(Options::new(&self.url, namespace)).await?))
    }

    async fn by_hand(&self, work: Work) -> anyhow::Result<Took> {
        by_hand::run(self, work).await
    }

    async fn latencies_by_hand(&self, messages: usize) -> anyhow::Result<Vec<Duration>> {
        by_hand::latencies(self, messages).await
    }

    async fn clear(&self) -> anyhow::Result<()> {
        let context = self.connect().await?;
        let names: Vec<String> = context.stream_names().try_collect().await?;
        for name in names {
            context.delete_stream(name).await?;
        }
        Ok(())
    }
}
