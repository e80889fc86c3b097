//! Sandboxes: handlers as WebAssembly components, each message in an instance of its own.
//!
//! A sandbox sees the message, the state of its key, and nothing else. What it asks for is staged and handed back as
//! [`Effects`](sluicebox_core::effects::Effects) when it returns ok. It is stopped at its deadline whether it computes or waits, it
//! is bounded in memory, stack, effects and diagnostics, and when it ends badly only its own message fails.
//!
//! A sandbox lives for one message (*fresh*) or many (*warm*). What it costs is in `benches/sandbox.rs`.
//!
//! wasmtime is named in this crate alone. What to run, and what becomes of the result, is for others.

pub mod atomic_file;
pub mod bare;
mod bindings;
mod cache;
mod compile;
mod config;
mod counter_names;
mod counters;
mod deadline;
mod diagnostics;
mod engine;
mod error;
mod handler;
mod host;
mod idle;
mod inspect;
mod instance;
mod keyvalue;
mod limits;
mod link;
mod logging;
mod module;
mod outbox;
mod resources;
mod scheduler;
mod settings;
mod staged;
mod stripe;
mod text;
mod ticker;
mod trap;
mod wasi;

pub use cache::CacheError;
pub use diagnostics::{Level, Line, RUN_BYTES_MAX, Sink, tracing_sink};
pub use error::LoadError;
pub use handler::Handler;
pub use limits::MODULE_BYTES_MAX;
pub use module::Module;
pub use settings::{Mode, Pool, Settings, WARM_RUNS};
pub use staged::COUNTERS_MAX;

use cache::Cache;
use compile::Compiler;
use idle::IdleSlots;
use link::Linkers;
use module::Loaded;
use scheduler::Scheduler;
use sluicebox_core::handler::Digest;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use ticker::Ticker;
use tokio::sync::Semaphore;
use wasmtime::Engine;

/// The sandboxes of a host: one engine, one pool. Cheap to clone.
#[derive(Clone)]
pub struct Sandboxes(Arc<Inner>);

struct Inner {
    engine: Engine,
    linkers: Linkers,
    ticker: Ticker,
    permits: Arc<Semaphore>,
    running_max: usize,
    idle: Arc<IdleSlots>,
    scheduler: Arc<Scheduler>,
    cache: Option<Cache>,
    compiler: Compiler,
    loaded: Loaded,
    sink: Sink,
    description: String,
    reset: engine::Reset,
    /// It was found that memory may not be put back: that stays so although swap is off again, since what was swapped out
    /// and came back was not looked at.
    is_memory_unsafe: AtomicBool,
}

/// Why there can be no sandboxes.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("a pool of {running} sandboxes is too small: at least {} are needed", limits::MEMORIES_MAX)]
    PoolTooSmall { running: u32 },
    #[error("failed to make the engine for sandboxes: {reason}")]
    Engine { reason: String },
    #[error("failed to start the threads that compile modules: {reason}")]
    Compiler { reason: String },
    #[error("failed to start the thread that keeps deadlines")]
    Ticker(#[source] std::io::Error),
}

impl Sandboxes {
    /// Reserves the pool's address space and starts the thread that keeps deadlines.
    pub fn new(pool: &Pool, sink: Sink) -> Result<Self, StartError> {
        // Otherwise a component with the most memories allowed would wait for ever.
        if pool.running < limits::MEMORIES_MAX {
            return Err(StartError::PoolTooSmall { running: pool.running });
        }
        let failed = |error: wasmtime::Error| StartError::Engine { reason: format!("{error:#}") };
        let engine::Built { engine, description, reset } = engine::build(pool).map_err(failed)?;
        let linkers = Linkers::new(&engine).map_err(failed)?;
        // A convenience: without it each start compiles anew.
        let cache = pool.cache.as_deref().and_then(|directory| match Cache::open(directory) {
            Ok(cache) => Some(cache),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::warn!(cause, "compiled modules are not kept, each start compiles them anew: {error}");
                None
            }
        });
        let compiler = Compiler::new().map_err(|error| StartError::Compiler { reason: error.to_string() })?;
        let running_max = pool.running as usize;
        let permits = Arc::new(Semaphore::new(running_max));
        // Whoever runs has a permit: no second count of them, which every call would write to.
        let given = permits.clone();
        let runs = move || given.available_permits() < running_max;
        let ticker = Ticker::start(engine.clone(), runs).map_err(StartError::Ticker)?;
        let idle = IdleSlots::new(pool.idle);
        Ok(Self(Arc::new(Inner {
            engine,
            linkers,
            ticker,
            permits,
            running_max,
            idle,
            scheduler: Scheduler::new(),
            cache,
            compiler,
            loaded: Loaded::default(),
            sink,
            description,
            reset,
            is_memory_unsafe: AtomicBool::new(false),
        })))
    }

    /// What is in force on this host, for people.
    pub fn describe(&self) -> &str {
        &self.0.description
    }

    /// The slots of the pool: a call takes its own and waits for it.
    pub fn permits(&self) -> &Arc<Semaphore> {
        &self.0.permits
    }

    /// Slots of the pool that runs take now; a large sandbox takes several.
    pub fn in_use(&self) -> usize {
        self.0.running_max.saturating_sub(self.0.permits.available_permits())
    }

    /// Checks and compiles a module, or finds it compiled. Blocks for as long as compiling takes: not for an async thread.
    pub fn load(&self, bytes: &[u8]) -> Result<Module, LoadError> {
        if let Some(module) = self.0.loaded.get(&Digest::of(bytes)) {
            return Ok(module);
        }
        let module = Module::load(&self.0.engine, &self.0.compiler, self.0.cache.as_ref(), bytes)?;
        self.0.loaded.put(&module);
        Ok(module)
    }

    /// Lets go of the memory of modules that did not run since the last time this was called, which is some milliseconds of
    /// work for the next message of each: call it every few minutes. Only of those that are in the cache on disk. Returns
    /// how many.
    pub fn release_idle(&self) -> usize {
        self.0.loaded.release_idle()
    }

    /// Why the memory of sandboxes may not be put back between messages, if that was found, now or before. Ask it every
    /// minute: the machine may change under the host.
    pub fn unsafe_memory(&self) -> Option<String> {
        if self.0.reset.is_unsafe() {
            self.0.is_memory_unsafe.store(true, Ordering::Relaxed);
        }
        self.0.is_memory_unsafe.load(Ordering::Relaxed).then(|| engine::SWAP_APPEARED.to_owned())
    }

    /// Links a module as a handler. An import that its settings do not grant is an error, and so is too little memory.
    pub fn handler(&self, module: &Module, settings: Settings) -> Result<Handler, LoadError> {
        let (needed, limit) = (module.memory_bytes(), settings.memory_bytes);
        if needed > limit {
            return Err(LoadError::Memory { needed, limit, handler: settings.handler });
        }
        let component = self.0.linkers.link(module, &settings)?;
        Ok(Handler::new(self.0.clone(), module, component, settings))
    }
}
