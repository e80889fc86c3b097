//! One host from its settings: opens the log, loads the modules, starts the shards and the HTTP face, and stops them in
//! the reverse order.

use crate::clock;
use crate::config::{HandlerSettings, LogSettings, SandboxMode, Settings};
use crate::handler::{HandlerName, ShardId};
use crate::host::{self, Host};
use crate::http::running::{BreakerView, Running, RunningHandler, VersionView};
use crate::http::{self, Face, Readiness};
use crate::log::embedded::{self, EmbeddedLog};
use crate::log::{Log, LogError};
use crate::message::Offset;
use crate::reader::{self, Reader};
use crate::sandbox::{self, Sandboxes};
use crate::telemetry::Metrics;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Compiled modules, inside the data directory.
const CACHE_FOLDER: &str = "compiled";

/// Why a host does not start. Each says what was tried on what.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("failed to open the log in `{}`", path.display())]
    Log { path: PathBuf, source: LogError },
    #[error("failed to prepare sandboxes")]
    Sandboxes(#[source] sandbox::StartError),
    #[error("failed to read module `{}` of handler `{handler}`: build it first (`sluicebox build` builds a folder of handlers)", path.display())]
    Read { handler: HandlerName, path: PathBuf, source: std::io::Error },
    #[error("failed to load handler `{handler}` from `{}`", path.display())]
    Load { handler: HandlerName, path: PathBuf, source: sandbox::LoadError },
    #[error("handler `{handler}` from `{}` cannot be started", path.display())]
    Start { handler: HandlerName, path: PathBuf, source: crate::invoke::Failure },
    #[error("failed to listen on {address}: is another host running? set `listen` in [http] to another port")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Host(#[from] host::StartError),
}

/// A running host.
pub struct Service {
    log: Arc<dyn Log>,
    host: Host,
    address: SocketAddr,
    http: JoinHandle<()>,
    stop_http: CancellationToken,
    readiness: Readiness,
    summary: String,
}

impl Service {
    /// Starts everything; when it returns, messages are handled and requests are answered.
    pub async fn start(settings: &Settings, metrics: Arc<Metrics>) -> Result<Self, StartError> {
        let LogSettings::Embedded { path } = &settings.log;
        let log = open_log(path).await?;
        let guarantees = log.guarantees();
        let pool = sandbox::Pool { cache: Some(path.join(CACHE_FOLDER)), ..sandbox::Pool::default() };
        let sandboxes = Sandboxes::new(&pool, sandbox::tracing_sink()).map_err(StartError::Sandboxes)?;
        tracing::info!(log = guarantees.kind, guarantee = %guarantees.summary, "opened the log");
        tracing::info!(in_force = sandboxes.describe(), "sandboxes are ready");
        let mut handlers = Vec::with_capacity(settings.handlers.len());
        let mut modules = Vec::with_capacity(settings.handlers.len());
        for handler in &settings.handlers {
            let (handler, version) = load(&sandboxes, handler, &metrics).await?;
            modules.push((handler.name.clone(), version));
            handlers.push(handler);
        }

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
        let host = Host::start(log.clone(), handlers, &metrics, reader::Options::default()).await?;
        face.attach(Arc::new(Started { reader: host.reader().clone(), places: host.places().clone(), modules }));
        readiness.set_ready();
        tracing::info!(%address, handlers = settings.handlers.len(), "the host is ready");
        Ok(Self { log, host, address, http, stop_http, readiness, summary: guarantees.summary })
    }

    /// Where HTTP is served; with port 0 in the settings, the port that was free.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The guarantee in force, for people.
    pub fn guarantee(&self) -> &str {
        &self.summary
    }

    /// Ends when the log cannot go on, with the reason: the host must stop then.
    pub async fn failed(&self) -> String {
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
        self.host.stop().await;
        self.stop_http.cancel();
        if let Err(error) = self.http.await {
            tracing::error!(%error, "the HTTP face ended badly");
        }
        // The last handle: closing waits for what the log took.
        let log = self.log;
        let _ = tokio::task::spawn_blocking(move || drop(log)).await;
    }
}

async fn open_log(path: &Path) -> Result<Arc<dyn Log>, StartError> {
    let directory = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || EmbeddedLog::open(&directory, embedded::Options::default())).await;
    match opened {
        Ok(Ok(log)) => Ok(Arc::new(log)),
        Ok(Err(source)) => Err(StartError::Log { path: path.to_owned(), source }),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// Reads, compiles, links and tries out a handler's module.
async fn load(
    sandboxes: &Sandboxes,
    settings: &HandlerSettings,
    metrics: &Metrics,
) -> Result<(host::Handler, VersionView), StartError> {
    let (handler, path) = (settings.name.clone(), settings.module.clone());
    let read = tokio::fs::read(&path).await;
    let bytes = read.map_err(|source| StartError::Read { handler: handler.clone(), path: path.clone(), source })?;
    let guest = sandbox::Settings {
        handler: handler.clone(),
        publish: settings.publish.clone(),
        timeout: settings.timeout,
        memory_bytes: settings.memory_bytes,
        mode: match settings.sandbox {
            SandboxMode::Fresh => sandbox::Mode::Fresh,
            SandboxMode::Warm => sandbox::Mode::Warm,
        },
        config: settings.config.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect(),
    };
    let sandboxes = sandboxes.clone();
    let linked = tokio::task::spawn_blocking(move || {
        let module = sandboxes.load(&bytes)?;
        sandboxes.handler(&module, guest).map(|handler| (handler, module.digest()))
    });
    let (linked, digest) = match linked.await {
        Ok(Ok(linked)) => linked,
        Ok(Err(source)) => return Err(StartError::Load { handler, path, source }),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    };
    linked.try_out().await.map_err(|source| StartError::Start {
        handler: handler.clone(),
        path: path.clone(),
        source,
    })?;
    crate::telemetry::events::module_in_force(&metrics.handler(&handler), digest);
    let handler = host::Handler {
        name: settings.name.clone(),
        subscribe: settings.subscribe.clone(),
        key: settings.key.clone(),
        id: settings.id.clone(),
        shards: settings.shards,
        start: settings.start,
        policy: settings.policy.clone(),
        invoke: Arc::new(linked),
    };
    Ok((handler, VersionView { digest, first_seen: clock::now() }))
}

/// What the HTTP face asks: the handlers as they were started.
struct Started {
    reader: Reader,
    places: HashMap<HandlerName, host::Places>,
    modules: Vec<(HandlerName, VersionView)>,
}

impl Running for Started {
    fn passed(&self, shard: &ShardId) -> Option<Offset> {
        self.reader.passed(shard)
    }

    fn handlers(&self) -> Vec<RunningHandler> {
        let running = |(name, version): &(HandlerName, VersionView)| {
            let places = self.places.get(name)?;
            Some(RunningHandler {
                name: name.clone(),
                digest: Some(version.digest),
                file_digest: Some(version.digest),
                versions: vec![*version],
                breaker: BreakerView::Off,
                running: places.taken(),
                concurrency: places.all(),
                problem: None,
            })
        };
        self.modules.iter().filter_map(running).collect()
    }
}
