//! One host from its settings: opens the log, loads the modules, starts the shards and the HTTP face, takes changes up
//! while it runs, and stops everything in the reverse order.

mod host_clock;
mod host_data;
mod machine;
mod nats;
mod redis;
mod reload;
mod room;

pub use self::nats::options as nats_options;
pub use self::redis::options as redis_options;
pub use host_data::versions;
pub use reload::Source;

use crate::blocking::blocking;
use crate::clock;
use crate::cluster::{About, Cluster, Hosts, Known};
use crate::config::{HostSettings, LogSettings, Settings, ShowState};
use crate::delays::{Delaying, NoDelay};
use crate::handler::{HandlerName, ShardId};
use crate::host::{self, Host, Natives, Overview, Owned};
use crate::http::running::{BreakerView, ForgetError, Running, RunningHandler, TryError, VersionView};
use crate::http::views::{HostHandlerView, HostView, SILENT};
use crate::http::{self, Face, Readiness};
use crate::ingress::Intake;
use crate::log::embedded::{self, Opening};
use crate::log::{Guarantees, Log, LogError, Runs};
use crate::memory::Budget;
use crate::message::Offset;
use crate::reader;
use crate::registry::{self, Registry};
use crate::retention::Retention;
use crate::sandbox::{self, Sandboxes};
use crate::shard::Amount;
use crate::telemetry::{Metrics, TELL_EVERY};
use crate::vital::Vital;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use host_data::{HostData, HostDataError};
use reload::{Reload, Reloading};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Between two looks for modules that do not run: one that runs once in between is left alone.
const RELEASE_IDLE: Duration = Duration::from_secs(60);

/// A host that stops waits for its log so long.
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// A host that starts waits so long for the first claims of its shards, and looks so often.
const CLAIMS_WAIT: Duration = Duration::from_secs(5);
const CLAIMS_PAUSE: Duration = Duration::from_millis(5);
const CLAIMS_PAUSE_MAX: Duration = Duration::from_millis(200);

/// Why a host does not start. Each says what was tried on what.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("failed to open the log in `{}`", path.display())]
    Log { path: PathBuf, source: LogError },
    #[error("failed to open the log of `{namespace}` at {url}")]
    OnServer { url: String, namespace: String, source: LogError },
    #[error(
        "{described}, and `clock_skew_max` in [host] allows {skew_max}: put the clock right; or, if it is right now, take it \
         as it is with `sluicebox run --accept-clock`, which moves the times in the log along"
    )]
    Clock { described: String, skew_max: String },
    #[error("failed to compare the clock with the log's times")]
    ClockLog(#[source] LogError),
    #[error(transparent)]
    HostData(#[from] HostDataError),
    #[error("failed to prepare sandboxes")]
    Sandboxes(#[source] sandbox::StartError),
    #[error(transparent)]
    Versions(#[from] registry::StoreError),
    #[error(transparent)]
    Load(#[from] registry::LoadError),
    #[error("failed to listen on {address}: is another host running? set `listen` in [http] to another port")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Host(#[from] host::StartError),
}

/// A running host.
pub struct Service {
    log: Arc<dyn Log>,
    /// Nobody else may use it as long as the host runs.
    _host_data: HostData,
    host: Arc<Host>,
    /// Where other hosts may work on the same log.
    cluster: Option<Cluster>,
    registry: Arc<Registry>,
    reloading: Reloading,
    retention: (Retention, CancellationToken),
    address: SocketAddr,
    http: JoinHandle<()>,
    stop_http: CancellationToken,
    readiness: Readiness,
    guarantees: Guarantees,
}

impl Service {
    /// Starts everything; when it returns, messages are handled and requests are answered. With a `source`, changes of the
    /// settings and of what they name are taken up from then on.
    pub async fn start(settings: &Settings, source: Option<Source>, metrics: Arc<Metrics>) -> Result<Self, StartError> {
        let (log, host_data, retain, natives, intake) = match &settings.log {
            LogSettings::Embedded { path, retain } => {
                let (log, host_data) = open_log(path, retain.bytes_max, &settings.host).await?;
                (log, host_data, retain, Natives::new(settings.host.delayed), None)
            }
            LogSettings::Nats { retain, .. } => {
                let (log, host_data, natives, intake) = nats::open(settings, &metrics).await?;
                (log, host_data, retain, natives, intake)
            }
            LogSettings::Redis { retain, .. } => {
                let (log, host_data, natives, intake) = redis::open(settings, &metrics).await?;
                (log, host_data, retain, natives, intake)
            }
        };
        let guarantees = log.guarantees();
        let pool = sandbox::Pool { cache: Some(host_data.compiled()), ..sandbox::Pool::default() };
        let sandboxes = Sandboxes::new(&pool, sandbox::tracing_sink()).map_err(StartError::Sandboxes)?;
        tell_guarantees(&guarantees);
        tracing::info!(in_force = sandboxes.describe(), "sandboxes are ready");
        let idle = sandboxes.clone();
        metrics.count_sandboxes({
            let sandboxes = sandboxes.clone();
            move || sandboxes.in_use()
        });
        let registry = Arc::new(Registry::open(sandboxes, &host_data.versions(), log.clone(), metrics.clone())?);
        let pins = host::recorded_pins(&*log, |name| settings.handlers.iter().any(|handler| handler.name == *name))
            .await
            .map_err(host::StartError::from)?;
        let prepared = registry.prepare(&settings.handlers, &pins).await?;

        let address = settings.http.listen;
        let listener = http::listen(address).map_err(|source| StartError::Listen { address, source })?;
        let address = listener.local_addr().unwrap_or(address);
        let readiness = Readiness::starting("the host is starting");
        let stop_http = CancellationToken::new();
        let namespace = settings.namespace.clone();
        let face =
            Face::new(log.clone(), metrics.clone(), readiness.clone(), namespace, &settings.http, stop_http.clone());
        let face = Arc::new(face);
        let http = tokio::spawn(http::serve(listener, face.clone()));
        let waiting = Budget::new(settings.host.waiting_bytes_max);
        let options = reader::Options { waiting, ..reader::Options::default() };
        let handlers = prepared.handlers();
        // Where there may be others they are heard first.
        let owned = if guarantees.several_hosts { Owned::none() } else { Owned::All };
        let host = Host::start_with(log.clone(), handlers, metrics.clone(), options, owned, natives).await?;
        let host = Arc::new(host);
        registry.put_in_force(prepared).await;
        let vital = Vital::default();
        let cluster = guarantees.several_hosts.then(|| {
            let HostSettings { name, lease, .. } = settings.host.clone();
            Cluster::start(
                log.clone(),
                host.clone(),
                About { name: name.unwrap_or_else(machine::name), address, lease },
                &metrics,
                &vital,
            )
        });
        if let Some(cluster) = &cluster {
            cluster.settled().await;
        }
        let hosts = cluster.as_ref().map(|cluster| cluster.hosts().clone());
        let hosts_of = hosts.clone();
        face.attach(Arc::new(Started { host: host.clone(), registry: registry.clone(), hosts }));
        let stop_retention = CancellationToken::new();
        // The host goes on without these, but not as it should.
        let beside = |name: &'static str, task: BoxFuture<'static, ()>| {
            let guarded = vital.guard(name, task);
            tokio::spawn(stop_retention.clone().run_until_cancelled_owned(guarded));
        };
        beside("the care for sandboxes", Box::pin(care_for_sandboxes(idle, readiness.clone())));
        let goes_on = if guarantees.several_hosts { host_clock::GOES_BY_THE_LOG } else { host_clock::GOES_ON };
        beside("the watch of the clock", Box::pin(host_clock::watch(metrics.clock(), readiness.clone(), goes_on)));
        if let Some(intake) = intake {
            beside("the word of what is not taken up", Box::pin(tell_intake(intake, readiness.clone())));
        }
        beside("the account of failures", Box::pin(tell_failures(metrics.clone())));
        let retain = *retain;
        let host_of = Arc::downgrade(&host);
        let hurry = move |shard: &ShardId| {
            if let Some(host) = host_of.upgrade() {
                host.write_positions(&shard.handler);
            }
        };
        let retention =
            Retention::start(log.clone(), retain, host.holders(), &metrics, hurry, hosts_of, stop_retention.clone());
        let tell = room::tell(retention.retained(), host.clone(), readiness.clone());
        beside("the look at the log's room", Box::pin(tell));
        let tell = tell_panics([vital.clone(), retention.vital()], readiness.clone());
        tokio::spawn(stop_retention.clone().run_until_cancelled_owned(tell));
        first_claims(&*log, &host).await;
        readiness.set_ready();
        tracing::info!(%address, handlers = settings.handlers.len(), "the host is ready");
        let (settings, registry_of, host_of) = (settings.clone(), registry.clone(), host.clone());
        let reloading =
            Reloading::start(Reload { source, settings, registry: registry_of, host: host_of, metrics }, &vital);
        let retention = (retention, stop_retention);
        Ok(Self {
            log,
            _host_data: host_data,
            host,
            cluster,
            registry,
            reloading,
            retention,
            address,
            http,
            stop_http,
            readiness,
            guarantees,
        })
    }

    /// Where HTTP is served; with port 0 in the settings, the port that was free.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The guarantee in force.
    pub fn guarantees(&self) -> &Guarantees {
        &self.guarantees
    }

    /// Which versions run, and why not others.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Looks for changes now instead of when they show.
    pub fn reload(&self) {
        self.reloading.look();
    }

    /// Ends when the host cannot go on, with the reason: it must stop then.
    pub async fn failed(&self) -> String {
        let reason = tokio::select! {
            // A log that stopped ends the host's tails too, and knows why.
            biased;
            // Safe to cancel, both: they only watch.
            reason = self.log_failed() => format!("the log cannot go on: {reason}"),
            reason = self.host.failed() => reason,
        };
        self.readiness.set_unready(reason.clone());
        reason
    }

    async fn log_failed(&self) -> String {
        loop {
            // A log that stopped ends its tails.
            match self.log.tail().await {
                Ok(mut tail) => while tail.next().await.is_some() {},
                Err(error) => return error.to_string(),
            }
            if let Err(error) = self.log.end().await {
                return error.to_string();
            }
        }
    }

    /// Takes nothing new, lets runs finish, commits, leaves.
    pub async fn stop(self) {
        self.readiness.set_unready("the host is stopping");
        self.reloading.stop().await;
        // Others take its shards from here on.
        if let Some(cluster) = self.cluster {
            cluster.leave().await;
        }
        self.host.stop().await;
        let (retention, stop_retention) = self.retention;
        stop_retention.cancel();
        retention.ended().await;
        self.stop_http.cancel();
        if let Err(error) = self.http.await {
            tracing::error!(%error, "the HTTP face ended badly");
        }
        match tokio::time::timeout(SETTLE_MAX, self.log.settle()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the next start takes longer"),
            Err(_) => tracing::warn!("the log took too long to settle: the next start takes longer"),
        }
        // The last handle: closing waits for what the log took.
        let log = self.log;
        let _ = tokio::task::spawn_blocking(move || drop(log)).await;
    }
}

/// What a person must know before they trust it with messages is said in any case.
fn tell_guarantees(guarantees: &Guarantees) {
    let Guarantees { kind, summary, survives_power_loss, .. } = guarantees;
    tracing::info!(log = kind, guarantee = %guarantees.short(), "opened the log");
    match survives_power_loss {
        true => tracing::debug!(log = kind, guarantee = %summary, "the guarantee in full"),
        false => tracing::warn!(log = kind, "{summary}"),
    }
}

/// Says that tasks panicked without which the host goes on, but not as it should.
/// Waits until each shard of what runs here was claimed by somebody: a shard begins at the commands that come after its first
/// claim, so until then they are refused, and a host that is ready should not refuse them. Not for ever: a shard that cannot be
/// claimed is said elsewhere, and others work.
async fn first_claims(log: &dyn Log, host: &Host) {
    let are_claimed = async {
        let mut pause = CLAIMS_PAUSE;
        loop {
            let Ok(known) = log.status().await else { return };
            let claimed = |name: &HandlerName| known.iter().filter(|status| status.shard.handler == *name).count();
            if host.runs().iter().all(|(name, shards)| claimed(name) >= usize::from(*shards)) {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(CLAIMS_PAUSE_MAX);
        }
    };
    // Safe to cancel: it only looks.
    let _ = tokio::time::timeout(CLAIMS_WAIT, are_claimed).await;
}

async fn tell_panics([beside, retention]: [Vital; 2], readiness: Readiness) {
    let reason = tokio::select! {
        // Safe to cancel, both: they only watch.
        reason = beside.failed() => reason,
        reason = retention.failed() => reason,
    };
    readiness.in_the_way("task", Some(format!("{reason}; restart the host")));
}

/// Modules that did not run for a while let go of their memory, and the memory of sandboxes is looked at. Ends when it is
/// dropped.
async fn care_for_sandboxes(sandboxes: Sandboxes, readiness: Readiness) {
    let mut looks = tokio::time::interval(RELEASE_IDLE);
    loop {
        looks.tick().await;
        let sandboxes = sandboxes.clone();
        let unsafe_since = blocking(move || {
            sandboxes.release_idle();
            sandboxes.unsafe_memory()
        })
        .await;
        if let Some(reason) = unsafe_since {
            tracing::error!("{reason}");
            readiness.in_the_way("sandboxes", Some(reason));
        }
    }
}

/// Says why what plain clients send is not taken up, while it is so. Ends when it is dropped.
async fn tell_intake(intake: Arc<Intake>, readiness: Readiness) {
    let mut trouble = intake.trouble();
    loop {
        readiness.notice("ingress", trouble.borrow_and_update().clone());
        if trouble.changed().await.is_err() {
            return;
        }
    }
}

/// Says how many runs failed of which people heard only the first. Ends when it is dropped.
async fn tell_failures(metrics: Arc<Metrics>) {
    let mut looks = tokio::time::interval(TELL_EVERY / 4);
    loop {
        looks.tick().await;
        metrics.tell_failures(clock::instant());
    }
}

/// Opens the log and the host's own directory, and sets where the host's time begins.
async fn open_log(
    path: &Path,
    bytes_max: Option<u64>,
    settings: &HostSettings,
) -> Result<(Arc<dyn Log>, HostData), StartError> {
    let (directory, settings) = (path.to_owned(), settings.clone());
    let options = embedded::Options { bytes_max, clock: clock::steady, ..embedded::Options::default() };
    blocking(move || {
        let failed = |source| StartError::Log { path: directory.clone(), source };
        let opening = Opening::begin(&directory, options).map_err(failed)?;
        let host_data = HostData::open(&settings.data, &directory)?;
        host_clock::begin(&opening, &host_data, &settings)?;
        Ok((Arc::new(opening.open().map_err(failed)?) as Arc<dyn Log>, host_data))
    })
    .await
}

fn own_handler(own: &Overview) -> RunningHandler {
    RunningHandler {
        name: own.name.clone(),
        digest: own.digest,
        deployed: false,
        file_digest: None,
        versions: vec![],
        breaker: BreakerView::of(own.breaker),
        last_failure: own.last_failure.clone().map(Into::into),
        show_state: ShowState::Values,
        running: own.running,
        concurrency: own.concurrency,
        problem: None,
    }
}

fn host_view(known: Known) -> HostView {
    let Known { beat, silent_for, lives, is_this } = known;
    let state = match (lives, beat.leaving, beat.joining) {
        (false, ..) => SILENT,
        (true, true, _) => "leaving",
        (true, false, true) => "joining",
        (true, false, false) => "live",
    };
    let handler = |runs: &Runs| HostHandlerView {
        name: runs.handler.to_string(),
        shards: runs.shards,
        held: runs.held.iter().collect(),
    };
    HostView {
        id: beat.host.to_string(),
        name: beat.name.clone(),
        is_this,
        state: state.into(),
        address: beat.address.clone(),
        version: beat.version.clone(),
        features: beat.features,
        since: beat.started.to_string(),
        silent_ms: clock::millis(silent_for),
        handlers: beat.runs.iter().map(handler).collect(),
    }
}

/// What the HTTP face asks.
struct Started {
    host: Arc<Host>,
    registry: Arc<Registry>,
    hosts: Option<Hosts>,
}

impl Running for Started {
    fn passed(&self, shard: &ShardId) -> Option<Offset> {
        self.host.passed(shard)
    }

    fn handlers(&self) -> Vec<RunningHandler> {
        let unlike_file = self.registry.problem();
        let overviews = self.host.overview();
        let fixed = self.host.unlike_log();
        let unlike_log = |name: &HandlerName| Some(fixed.iter().find(|fixed| fixed.handler == *name)?.to_string());
        // The settings' handlers, also those whose shards are between two versions right now.
        let views = self.registry.views().into_iter().map(|view| {
            let overview = overviews.iter().find(|overview| overview.name == view.name);
            RunningHandler {
                digest: overview.map_or(Some(view.digest), |overview| overview.digest),
                deployed: view.deployed,
                file_digest: view.file_digest,
                versions: view
                    .versions
                    .iter()
                    .map(|version| VersionView {
                        digest: version.digest,
                        first_seen: version.first_seen,
                        deployed: false,
                    })
                    .collect(),
                breaker: overview.map_or(BreakerView::Off, |overview| BreakerView::of(overview.breaker)),
                last_failure: overview.and_then(|overview| overview.last_failure.clone()).map(Into::into),
                running: overview.map_or(0, |overview| overview.running),
                concurrency: overview.map_or(0, |overview| overview.concurrency),
                show_state: view.show_state,
                problem: view.problem.or_else(|| unlike_log(&view.name)).or_else(|| unlike_file.clone()),
                name: view.name,
            }
        });
        // The host's own handlers are in no settings.
        let own = overviews.iter().filter(|overview| overview.name.is_reserved()).map(own_handler);
        views.chain(own).collect()
    }

    fn hosts(&self) -> Vec<HostView> {
        self.hosts.iter().flat_map(Hosts::list).map(host_view).collect()
    }

    fn delay(&self, more: Amount) -> BoxFuture<'_, Result<Delaying, NoDelay>> {
        Box::pin(self.host.delay(more))
    }

    fn try_module(&self, handler: HandlerName, module: Bytes) -> BoxFuture<'_, Result<(), TryError>> {
        Box::pin(async move {
            let tried = self.registry.try_module(&handler, module).await;
            let reason = match tried.ok_or_else(|| TryError::DoesNotRun { handler: handler.clone() })? {
                Ok(()) => return Ok(()),
                Err(reason) => registry::told(&reason),
            };
            Err(TryError::Refused { handler, reason })
        })
    }

    fn forget(&self, log: Arc<dyn Log>, handler: HandlerName) -> BoxFuture<'_, Result<(), ForgetError>> {
        Box::pin(async move {
            if let Some(host) = self.hosts.as_ref().and_then(|hosts| hosts.runs(&handler)) {
                return Err(ForgetError::RunsElsewhere { handler, host });
            }
            let work = async {
                // Before the log forgets it: afterwards nobody could ask again after a failure.
                let versions = self.registry.forget(handler.clone()).await;
                versions.map_err(|source| ForgetError::Versions { handler: handler.clone(), source })?;
                Ok(log.forget(handler.clone()).await?)
            };
            let done = self.host.while_it_does_not_run(&handler, work).await;
            done.unwrap_or_else(|| Err(ForgetError::Runs { handler: handler.clone() }))
        })
    }
}
