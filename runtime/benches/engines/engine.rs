//! What is measured of an engine: the product's log on it, and a consumer written by hand for it.

use sluicebox::log::Log;
use std::sync::Arc;
use std::time::Duration;

/// How the messages come to the consumer written by hand.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    pub messages: usize,
    pub keys: usize,
    /// While they are handled; otherwise before.
    pub publishing: bool,
}

/// What it took.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    /// Until the last output was acknowledged by the server.
    pub time: Duration,
    /// Processor time of this process, and of the server.
    pub used: Duration,
    pub server_used: Duration,
}

/// A server that runs for this bench alone.
pub trait Engine {
    /// What it is called.
    const NAME: &str;

    /// Version, durability and what the consumer does, for people.
    fn describe(&self) -> String;

    /// The process of the server.
    fn process(&self) -> u32;

    /// Where it is.
    fn url(&self) -> &str;

    /// Its data on the disk.
    fn bytes(&self) -> u64;

    /// Where the product's log of this name is.
    async fn log(&self, namespace: &str) -> anyhow::Result<Arc<dyn Log>>;

    /// The consumer handles all messages once.
    async fn by_hand(&self, work: Work) -> anyhow::Result<Took>;

    /// One message at a time through the consumer: from publishing until a reader has its output, sorted.
    async fn latencies_by_hand(&self, messages: usize) -> anyhow::Result<Vec<Duration>>;

    /// Nothing is left on the server.
    async fn clear(&self) -> anyhow::Result<()>;
}
