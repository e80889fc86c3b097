//! How long messages wait around a swap, while the next module compiles.
//!
//! Messages are published at an even pace, far below what the machine can do, so that a delay is not that of a queue. First
//! without swaps, then with one after the other: compile, link, try out, put in force, and the next one at once.

use super::{INPUT, Load, OUTPUT, handler, message, topic};
use crate::clock;
use crate::host::Host;
use crate::log::{Log, Tail};
use crate::message::NewMessage;
use crate::reader::Options;
use crate::sandbox::{Sandboxes, Settings};
use crate::telemetry::Metrics;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Messages of one measurement, published so many at a time, once in so long: 5,000 a second.
const MESSAGES: usize = 40_000;
const CHUNK: usize = 10;
const PACE: Duration = Duration::from_millis(2);

/// What is swapped.
pub(super) struct Swaps<'s> {
    pub(super) sandboxes: &'s Sandboxes,
    pub(super) settings: Settings,
    pub(super) module: &'s [u8],
}

/// When messages were published that did not come out yet, by key: outputs of one key come in order.
type Published = Arc<Mutex<HashMap<String, VecDeque<Instant>>>>;

impl Swaps<'_> {
    /// A line for each measurement.
    pub(super) async fn measure(
        &self,
        empty_log: impl Fn() -> anyhow::Result<Arc<dyn Log>>,
        load: &Load,
    ) -> anyhow::Result<Vec<String>> {
        let mut lines = vec![];
        for swapping in [false, true] {
            let (took, swaps) = self.delays(empty_log()?, load, swapping).await?;
            let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
            let how = if swapping { format!("{swaps} swaps, each after compiling") } else { "no swaps".to_owned() };
            lines.push(format!(
                "5,000 messages/s, {how}: publish to visible output p50 {:.2} ms, p99 {:.2} ms, longest {:.2} ms",
                at(0.5),
                at(0.99),
                at(1.0)
            ));
        }
        Ok(lines)
    }

    async fn delays(&self, log: Arc<dyn Log>, load: &Load, swapping: bool) -> anyhow::Result<(Vec<Duration>, usize)> {
        let host = Host::start(log.clone(), vec![handler(load)], Arc::new(Metrics::new()), Options::default()).await?;
        let tail = log.tail().await?;
        let (published, done) = (Published::default(), AtomicBool::new(false));
        let outputs = async {
            let took = outputs(tail, &published).await;
            done.store(true, Ordering::Release);
            took
        };
        let swaps = async {
            let mut swaps = 0;
            while swapping && !done.load(Ordering::Acquire) {
                swaps += 1;
                self.swap(&host, load, swaps).await?;
            }
            anyhow::Ok(swaps)
        };
        let ((), took, swaps) = tokio::try_join!(publish(&log, load, &published), outputs, swaps)?;
        host.stop().await;
        Ok((took, swaps))
    }

    /// Compiles another version of the module and puts it in force.
    async fn swap(&self, host: &Host, load: &Load, version: usize) -> anyhow::Result<()> {
        let (sandboxes, settings) = (self.sandboxes.clone(), self.settings.clone());
        let bytes = another(self.module, version);
        let prepared = tokio::task::spawn_blocking(move || sandboxes.handler(&sandboxes.load(&bytes)?, settings));
        let prepared = prepared.await??;
        prepared.try_out().await?;
        host.apply(vec![handler(&Load { invoke: Arc::new(prepared), ..load.clone() })]).await?;
        Ok(())
    }
}

async fn publish(log: &Arc<dyn Log>, load: &Load, published: &Published) -> anyhow::Result<()> {
    let mut pace = tokio::time::interval(PACE);
    for first in (0..MESSAGES).step_by(CHUNK) {
        pace.tick().await;
        let chunk: Vec<NewMessage> =
            (first..first + CHUNK).map(|number| message(number, load.keys, super::Identity::Given)).collect();
        let now = clock::instant();
        {
            let mut published = published.lock().unwrap_or_else(PoisonError::into_inner);
            for message in &chunk {
                let key = message.key.as_ref().map_or(INPUT, |key| key.as_str());
                published.entry(key.to_owned()).or_default().push_back(now);
            }
        }
        log.append(chunk).await?;
    }
    Ok(())
}

/// How long each message took until its output was visible, sorted.
async fn outputs(mut tail: Box<dyn Tail>, published: &Published) -> anyhow::Result<Vec<Duration>> {
    let wanted = topic(OUTPUT);
    let mut took = Vec::with_capacity(MESSAGES);
    while took.len() < MESSAGES {
        let batch = match tail.next().await {
            Some(Ok(batch)) => batch,
            Some(Err(_)) => anyhow::bail!("the tail fell behind at a pace that should not need it"),
            None => anyhow::bail!("the log was closed"),
        };
        let now = clock::instant();
        let mut published = published.lock().unwrap_or_else(PoisonError::into_inner);
        for message in batch.messages.iter().filter(|message| message.topic == wanted) {
            let key = message.key.as_ref().map_or(INPUT, |key| key.as_str());
            let began = published.get_mut(key).and_then(VecDeque::pop_front);
            took.push(now - began.ok_or_else(|| anyhow::anyhow!("an output of `{key}` that nothing caused"))?);
        }
    }
    took.sort();
    Ok(took)
}

/// The same component with another digest: a custom section at its end, which says nothing.
fn another(module: &[u8], version: usize) -> Vec<u8> {
    let name = format!("version-{version:08}");
    let length = u8::try_from(name.len()).expect("a short name");
    [module, &[0, length + 1, length], name.as_bytes()].concat()
}
