//! What every request reaches: the log, the metrics, the running host, and how much clients may take.

use super::error::ApiError;
use super::guard::Guard;
use super::running::Running;
use crate::config::{HttpSettings, Namespace};
use crate::delays::Delaying;
use crate::log::{Log, LogError};
use crate::message::{NewMessage, Offset};
use crate::routing::reserved;
use crate::shard::Amount;
use crate::telemetry::{HttpMetrics, Metrics};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// What clients may take.
#[derive(Clone, Copy)]
pub(super) struct ClientLimits {
    /// More are served when one ends, or when a client was waited for too long, see
    /// [`connection_limit`](super::connection_limit).
    pub(super) connections_max: usize,
    /// No connection is cut whose client was waited for less than this.
    pub(super) idle_min: Duration,
    /// Open tails; each holds a connection for as long as its client likes, so publishers must keep some.
    pub(super) tails_max: usize,
    /// Large answers in memory: those about many handlers or dead letters, and some clients read slowly.
    pub(super) large_answers_max: usize,
    /// A request for a large answer waits this long for others, then it is refused.
    pub(super) large_answer_wait: Duration,
    /// Room for bodies while they come, in KiB: as many as their clients announced, or as they may have at most.
    pub(super) bodies_kib_max: usize,
    /// A client that has not sent a whole head by then, or has been idle as long, is hung up on.
    pub(super) head_timeout: Duration,
    /// A client that sends hardly anything of its body for this long is hung up on.
    pub(super) body_timeout: Duration,
    /// A client that reads hardly anything of its answer for this long is hung up on.
    pub(super) write_timeout: Duration,
    /// A client that still sends after its last answer has this long to read it.
    pub(super) linger_timeout: Duration,
}

impl Default for ClientLimits {
    fn default() -> Self {
        let patience = Duration::from_secs(30);
        Self {
            connections_max: 512,
            idle_min: Duration::from_secs(1),
            tails_max: 128,
            large_answers_max: 16,
            large_answer_wait: Duration::from_secs(5),
            bodies_kib_max: 128 * 1024,
            head_timeout: patience,
            body_timeout: patience,
            write_timeout: patience,
            linger_timeout: Duration::from_secs(1),
        }
    }
}

/// Whether the host is ready for traffic, set by whoever starts it and shown by `/readyz`; and what else people should know.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Mutex<Words>>);

#[derive(Debug, Default)]
struct Words {
    /// Why the host as a whole is not ready.
    host: Option<String>,
    /// Why not, by what is in the way.
    in_the_way: BTreeMap<&'static str, String>,
    /// What people should look at although it goes on, by what it is about.
    notices: BTreeMap<&'static str, String>,
}

impl Readiness {
    /// Not ready, for this reason.
    pub fn starting(reason: impl Into<String>) -> Self {
        Self(Arc::new(Mutex::new(Words { host: Some(reason.into()), ..Words::default() })))
    }

    pub fn set_ready(&self) {
        self.words().host = None;
    }

    pub fn set_unready(&self, reason: impl Into<String>) {
        self.words().host = Some(reason.into());
    }

    /// Why it is not ready; `None`: it is.
    pub fn reason(&self) -> Option<String> {
        let words = self.words();
        let reasons: Vec<&str> = words.host.iter().chain(words.in_the_way.values()).map(String::as_str).collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// `what` is in the way, for this reason; `None`: no more.
    pub fn in_the_way(&self, what: &'static str, reason: Option<String>) {
        set(&mut self.words().in_the_way, what, reason);
    }

    /// What to know about `about`; `None`: nothing any more.
    pub fn notice(&self, about: &'static str, notice: Option<String>) {
        set(&mut self.words().notices, about, notice);
    }

    /// What people should look at although the host goes on.
    pub fn notices(&self) -> Vec<String> {
        self.words().notices.values().cloned().collect()
    }

    fn words(&self) -> MutexGuard<'_, Words> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn set(words: &mut BTreeMap<&'static str, String>, about: &'static str, word: Option<String>) {
    match word {
        Some(word) => drop(words.insert(about, word)),
        None => drop(words.remove(about)),
    }
}

/// All that the face shows and reaches.
pub struct Face {
    pub(super) log: Arc<dyn Log>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) counts: HttpMetrics,
    /// When what waits was counted for the metrics.
    pub(super) waiting_counted: Mutex<Option<Instant>>,
    pub(super) readiness: Readiness,
    pub(super) namespace: Namespace,
    pub(super) guard: Guard,
    pub(super) limits: ClientLimits,
    pub(super) tails: Arc<Semaphore>,
    pub(super) large_answers: Arc<Semaphore>,
    pub(super) bodies_kib: Arc<Semaphore>,
    pub(super) running: OnceLock<Arc<dyn Running>>,
    pub(super) stop: CancellationToken,
}

impl Face {
    /// `stop` ends tails and, through [`serve`](super::serve), everything else.
    pub fn new(
        log: Arc<dyn Log>,
        metrics: Arc<Metrics>,
        readiness: Readiness,
        namespace: Namespace,
        settings: &HttpSettings,
        stop: CancellationToken,
    ) -> Self {
        let limits = ClientLimits::default();
        let permits = |count| Arc::new(Semaphore::new(count));
        Self {
            log,
            counts: metrics.http(),
            waiting_counted: Mutex::default(),
            metrics,
            readiness,
            namespace,
            guard: Guard::new(settings),
            limits,
            tails: permits(limits.tails_max),
            large_answers: permits(limits.large_answers_max),
            bodies_kib: permits(limits.bodies_kib_max),
            running: OnceLock::new(),
            stop,
        }
    }

    /// The message as it is appended when it is to appear `delay` later, and its room.
    pub(super) async fn delayed(
        &self,
        message: NewMessage,
        delay: Duration,
    ) -> Result<(NewMessage, Delaying), ApiError> {
        let running = self.running.get().ok_or_else(|| ApiError::unavailable("the host is starting: try again"))?;
        let room = running.delay(Amount { messages: 1, bytes: message.bytes() }).await?;
        Ok((reserved::delayed(message, delay), room))
    }

    /// Appends messages, some of which have `rooms` because they are to appear later.
    pub(super) async fn append(
        &self,
        messages: Vec<NewMessage>,
        rooms: Vec<Delaying>,
    ) -> Result<Vec<Offset>, LogError> {
        if rooms.is_empty() {
            return self.log.append(messages).await;
        }
        let log = self.log.clone();
        // A task of its own: when a client hangs up meanwhile the log may take them all the same.
        let append = async move {
            let appended = log.append(messages).await;
            rooms.into_iter().for_each(|room| room.settle(&appended));
            appended
        };
        let appended = tokio::spawn(append.in_current_span()).await;
        appended.unwrap_or_else(|panic| Err(LogError::Unknown { reason: panic.to_string() }))
    }

    /// From now on handlers can be commanded, and looks at them show how they fare. The first one counts.
    pub fn attach(&self, running: Arc<dyn Running>) {
        let _ = self.running.set(running);
    }
}
