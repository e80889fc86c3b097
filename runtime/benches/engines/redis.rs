//! Redis: one server, an append-only file that is synced as the arguments say; the same for both.

mod by_hand;

use crate::Sync;
use crate::engine::{Engine, Took, Work};
use crate::server::{Server, find};
use anyhow::Context as _;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client};
use sluicebox::log::Log;
use sluicebox::log::redis::{Options, RedisLog};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub struct Redis {
    server: Server,
    url: String,
    version: String,
    sync: Sync,
}

impl Redis {
    pub async fn start(sync: Sync) -> anyhow::Result<Self> {
        let program = find("redis-server", "SLUICEBOX_REDIS_SERVER", "target/redis-server/usr/bin/redis-server")?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
        let arguments = |folder: &Path| {
            let bound = ["--bind", "127.0.0.1", "--port", &port];
            let durable = ["--appendonly", "yes", "--save", "", "--appendfsync", sync.name(), "--dir"];
            bound.iter().chain(&durable).map(Into::into).chain([folder.into()]).collect()
        };
        let server = Server::start(&program, arguments, |line| line.contains("Ready to accept connections"))?;
        let mut redis = Self { server, url: format!("redis://127.0.0.1:{port}"), version: String::new(), sync };
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut redis.connect().await?).await?;
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
        redis.version = version.context("the server says its version")?.trim().to_owned();
        Ok(redis)
    }

    /// A connection of its own, as each program has.
    async fn connect(&self) -> anyhow::Result<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(60)));
        Ok(Client::open(&*self.url)?.get_multiplexed_async_connection_with_config(&config).await?)
    }
}

impl Engine for Redis {
    const NAME: &str = "Redis";

    fn describe(&self) -> String {
        let survives = match self.sync {
            Sync::Everysec => "both sides survive the death of processes, not the loss of power",
            Sync::Always => "both sides survive the loss of power",
        };
        format!(
            "engine: redis-server {} on this machine, no replica, appendonly yes, appendfsync {} ({survives}); by hand: \
             XREADGROUP, then XADD of all outputs and XACK in one pipeline, {} messages at a time, state in memory",
            self.version,
            self.sync.name(),
            by_hand::TOGETHER
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
        Ok(Arc::new(RedisLog::open(Options::new(&self.url, namespace)).await?))
    }

    async fn by_hand(&self, work: Work) -> anyhow::Result<Took> {
        by_hand::run(self, work).await
    }

    async fn latencies_by_hand(&self, messages: usize) -> anyhow::Result<Vec<Duration>> {
        by_hand::latencies(self, messages).await
    }

    async fn clear(&self) -> anyhow::Result<()> {
        redis::cmd("FLUSHALL").exec_async(&mut self.connect().await?).await?;
        // Not its file: that shrinks when it is written anew, which must not go on while something is measured.
        let mut connection = self.connect().await?;
        redis::cmd("BGREWRITEAOF").exec_async(&mut connection).await?;
        loop {
            let info: String = redis::cmd("INFO").arg("persistence").query_async(&mut connection).await?;
            let is_over = |name: &str| info.lines().any(|line| line.trim() == format!("{name}:0"));
            if is_over("aof_rewrite_in_progress") && is_over("aof_rewrite_scheduled") {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
