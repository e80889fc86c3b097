//! Which version of each handler's module runs: the one in its file, one that was deployed, or one that an operator went back to.
//!
//! [`Registry::prepare`] reads the files, compiles what is new, links it and tries it out, off the hot path and without
//! touching what runs; [`Registry::put_in_force`] takes the result over once the host runs it. In between whoever called
//! can still give up, so a change is taken as a whole or not at all.
//!
//! Guarantees: a handler whose module and guest settings did not change keeps its very code, so a host that compares by
//! identity swaps nothing; a file that cannot be run never replaces what runs, and the reason is kept for people
//! ([`View::problem`]); a version that was in force can be had again from disk, and one that was deployed from the log, also
//! on a host that never had it.
//!
//! When to look again, and bringing shards to run what is prepared, is for others.

mod load;
mod store;

pub use load::{LoadError, Reason};
pub use store::{StoreError, VERSIONS_MAX, Version, version_in};

use crate::clock;
use crate::commit::{Over, Pin};
use crate::config::{HandlerSettings, SandboxMode, ShowState};
use crate::handler::{Digest, HandlerName};
use crate::host;
use crate::invoke::Invoke;
use crate::log::Log;
use crate::sandbox::{self, Sandboxes};
use crate::telemetry::{Metrics, events};
use bytes::Bytes;
use load::{InFile, Loader};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use store::{InForce, Store};

/// What operators deployed or went back to, by handler.
pub type Pins = BTreeMap<HandlerName, Pin>;

/// The versions in force on one host.
pub struct Registry {
    loader: Loader,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    handlers: BTreeMap<HandlerName, Entry>,
    problem: Option<String>,
}

/// One handler.
#[derive(Clone)]
struct Entry {
    path: PathBuf,
    guest: sandbox::Settings,
    /// The file as it was read last, whether it is in force or not; `None`: it could not be read.
    file: Option<InFile>,
    digest: Digest,
    /// It is in force whatever is in the file.
    deployed: bool,
    invoke: Arc<dyn Invoke>,
    problem: Option<String>,
    /// What should be in force may come without a change here.
    again: bool,
    show_state: ShowState,
}

/// A handler as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub name: HandlerName,
    /// In force.
    pub digest: Digest,
    /// It was deployed: it is in force whatever is in the file.
    pub deployed: bool,
    /// In the file when it was read last; `None`: it could not be read.
    pub file_digest: Option<Digest>,
    /// Versions to go back to; the one that was in the file last is the last one.
    pub versions: Vec<Version>,
    /// Why another version is in force than should be.
    pub problem: Option<String>,
    /// What operators see of its state.
    pub show_state: ShowState,
}

/// Handlers ready to run, not in force yet.
pub struct Prepared {
    entries: BTreeMap<HandlerName, Entry>,
    handlers: Vec<host::Handler>,
    swapped: bool,
}

impl Prepared {
    /// What the host is to run.
    pub fn handlers(&self) -> Vec<host::Handler> {
        self.handlers.clone()
    }

    /// Whether some handler has other code than before.
    pub fn is_swap(&self) -> bool {
        self.swapped
    }

    /// Whether some version should be in force that could not be had, and may be had later although nothing changes here.
    pub fn is_behind(&self) -> bool {
        self.entries.values().any(|entry| entry.again)
    }
}

impl Registry {
    /// `versions`: the directory where versions are kept; this host's own.
    pub fn open(
        sandboxes: Sandboxes,
        versions: &Path,
        log: Arc<dyn Log>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StoreError> {
        let loader = Loader::new(sandboxes, Store::open(versions)?, log);
        Ok(Self { loader, metrics, state: Mutex::default() })
    }

    /// Makes the handlers of these settings ready. A module that cannot be run is an error, unless its handler runs and
    /// nothing but its file changed: then what runs stays, and the reason becomes its problem.
    pub async fn prepare(&self, wanted: &[HandlerSettings], pins: &Pins) -> Result<Prepared, LoadError> {
        let before = self.lock().handlers.clone();
        // One after the other: compiling takes every core by itself, and handlers of the same module share what the first
        // of them compiled.
        let mut entries = Vec::with_capacity(wanted.len());
        for settings in wanted {
            let (pin, before) = (pins.get(&settings.name).copied(), before.get(&settings.name));
            let entry = self.entry(settings, pin, before).await?;
            entries.push((settings, Entry { show_state: settings.show_state, ..entry }));
        }
        let is_same = |name: &HandlerName, entry: &Entry| {
            before.get(name).is_some_and(|before| Arc::ptr_eq(&before.invoke, &entry.invoke))
        };
        Ok(Prepared {
            swapped: entries.len() != before.len()
                || entries.iter().any(|(settings, entry)| !is_same(&settings.name, entry)),
            handlers: entries.iter().map(|(settings, entry)| runnable(settings, entry.invoke.clone())).collect(),
            entries: entries.into_iter().map(|(settings, entry)| (settings.name.clone(), entry)).collect(),
        })
    }

    /// Takes over what the host runs now, and tells what changed.
    pub async fn put_in_force(&self, prepared: Prepared) {
        let in_force = prepared.entries.iter().map(|(name, entry)| {
            // A deployed version is what the file is otherwise: the last of the versions.
            let file = if entry.deployed { Some(entry.digest) } else { entry.file.as_ref().map(|file| file.digest) };
            (name.clone(), InForce { digest: entry.digest, file })
        });
        self.loader.note(in_force.collect(), clock::now()).await;
        let mut state = self.lock();
        let before = std::mem::replace(&mut state.handlers, prepared.entries);
        for (name, entry) in &state.handlers {
            let (metrics, before) = (self.metrics.handler(name), before.get(name));
            if before.is_none_or(|before| before.digest != entry.digest) {
                events::module_in_force(&metrics, entry.digest);
            }
            let stood_back = before.is_some_and(|before| before.deployed && before.file == entry.file);
            if entry.deployed && !stood_back {
                events::file_stands_back(name, entry.digest, entry.file.as_ref().map(|file| file.digest));
            }
            match (before.and_then(|before| before.problem.as_ref()), &entry.problem) {
                (before, Some(problem)) if before != Some(problem) => {
                    events::module_refused(&self.metrics, name, problem);
                }
                (Some(_), None) => {
                    tracing::info!(handler = %name, "the version in force is the one that should be again")
                }
                _ => {}
            }
        }
        for name in before.keys().filter(|name| !state.handlers.contains_key(name)) {
            events::handler_left(&self.metrics.handler(name));
        }
    }

    /// Whether some version of this handler is in force.
    pub fn runs(&self, handler: &HandlerName) -> bool {
        self.lock().handlers.contains_key(handler)
    }

    /// Every handler that runs, by name.
    pub fn views(&self) -> Vec<View> {
        let view = |(name, entry): (&HandlerName, &Entry)| View {
            name: name.clone(),
            digest: entry.digest,
            deployed: entry.deployed,
            file_digest: entry.file.as_ref().map(|file| file.digest),
            versions: self.loader.versions(name),
            problem: entry.problem.clone(),
            show_state: entry.show_state,
        };
        self.lock().handlers.iter().map(view).collect()
    }

    /// Why the settings in force are not those of the file; `None`: they are.
    pub fn problem(&self) -> Option<String> {
        self.lock().problem.clone()
    }

    /// Records why the settings in force are not those of the file. True if that is news.
    pub fn set_problem(&self, problem: Option<String>) -> bool {
        let mut state = self.lock();
        let news = state.problem != problem;
        state.problem = problem;
        news
    }

    /// Deletes the versions of a handler that does not run.
    pub async fn forget(&self, handler: HandlerName) -> std::io::Result<()> {
        self.loader.forget(handler).await
    }

    /// Compiles, links and tries a module out under the settings of a handler that runs, and puts nothing in force. `None`:
    /// it does not run.
    pub async fn try_module(&self, handler: &HandlerName, module: Bytes) -> Option<Result<(), Reason>> {
        let guest = self.lock().handlers.get(handler)?.guest.clone();
        Some(self.loader.try_bytes(module, guest).await)
    }

    /// What is to be in force for one handler.
    async fn entry(
        &self,
        settings: &HandlerSettings,
        pin: Option<Pin>,
        before: Option<&Entry>,
    ) -> Result<Entry, LoadError> {
        let (path, guest) = (&settings.module, guest_of(settings));
        let unchanged = before.filter(|before| before.path == *path && before.guest == guest);
        let known = before.filter(|before| before.path == *path).and_then(|before| before.file.as_ref());
        let refused = |reason| LoadError { handler: settings.name.clone(), path: path.clone(), reason };
        // What runs stays, if all that changed is that the file is no good.
        let or_stay = |file: Option<InFile>, reason: Reason| {
            let error = refused(reason);
            match unchanged {
                Some(before) => Ok(Entry { file, problem: Some(told(&error)), ..Entry::clone(before) }),
                None => Err(error),
            }
        };
        let running = |digest| before.filter(|before| before.guest == guest && before.digest == digest);
        let version = async |digest| match running(digest) {
            Some(before) => Ok(before.invoke.clone()),
            None => self.loader.load_version(&settings.name, digest, guest.clone()).await,
        };
        let entry = |file: Option<InFile>, digest, invoke| Entry {
            path: path.clone(),
            guest: guest.clone(),
            file,
            digest,
            deployed: false,
            invoke,
            problem: None,
            again: false,
            show_state: settings.show_state,
        };

        let file = self.loader.look(path, known).await;
        let (mut problem, mut again) = (None, false);
        if let Some(pin) = pin.filter(|pin| stands_in(*pin, file.as_ref().ok())) {
            let deployed = pin.over == Over::AnyFile;
            let reason = match version(pin.digest).await {
                Ok(invoke) => return Ok(Entry { deployed, ..entry(file.ok(), pin.digest, invoke) }),
                Err(reason) => reason,
            };
            let what = if deployed { "run" } else { "go back to" };
            let what = format!("cannot {what} version {} of handler `{}`", pin.digest, settings.name);
            (problem, again) = (Some(format!("{what}: {}", told(&reason))), reason.may_pass());
            // What this host had goes on, as where a file is refused: at a start what it noted last. Only where it has none
            // there is nothing but the file.
            let had = match before {
                Some(before) => Some((before.digest, before.deployed)),
                None => self.loader.versions(&settings.name).last().map(|last| {
                    let is_file = file.as_ref().is_ok_and(|file| file.digest == last.digest);
                    (last.digest, !is_file)
                }),
            };
            if let Some((digest, deployed)) = had.filter(|_| deployed)
                && let Ok(invoke) = version(digest).await
            {
                return Ok(Entry { deployed, problem, again, ..entry(file.ok(), digest, invoke) });
            }
        }
        let file = match file {
            Ok(file) => file,
            Err(reason) => return or_stay(None, reason),
        };
        let (file, invoke) = match running(file.digest) {
            Some(before) => (file, before.invoke.clone()),
            None => match self.loader.load_file(path, guest.clone()).await {
                Ok(loaded) => loaded,
                Err(reason) => return or_stay(Some(file), reason),
            },
        };
        let digest = file.digest;
        Ok(Entry { problem, again, ..entry(Some(file), digest, invoke) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held left a whole state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads, compiles, links and tries out a handler's module as [`Registry::prepare`] does, but keeps nothing and touches no
/// data: whether it would run.
pub async fn try_out(sandboxes: &Sandboxes, settings: &HandlerSettings) -> Result<Digest, LoadError> {
    let tried = load::try_file(sandboxes, &settings.module, guest_of(settings)).await;
    tried.map_err(|reason| LoadError { handler: settings.name.clone(), path: settings.module.clone(), reason })
}

/// Whether a pinned version is to run instead of the file as it is now.
fn stands_in(pin: Pin, file: Option<&InFile>) -> bool {
    match pin.over {
        Over::AnyFile => true,
        Over::File(over) => file.is_some_and(|file| file.digest == over && file.digest != pin.digest),
    }
}

/// An error with its causes, on one line.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn guest_of(settings: &HandlerSettings) -> sandbox::Settings {
    sandbox::Settings {
        handler: settings.name.clone(),
        publish: settings.publish.clone(),
        timeout: settings.timeout,
        memory_bytes: settings.memory_bytes,
        mode: match settings.sandbox {
            SandboxMode::Fresh => sandbox::Mode::Fresh,
            SandboxMode::Warm => sandbox::Mode::Warm,
        },
        config: settings.config.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect(),
    }
}

fn runnable(settings: &HandlerSettings, invoke: Arc<dyn Invoke>) -> host::Handler {
    host::Handler {
        name: settings.name.clone(),
        subscribe: settings.subscribe.clone(),
        key: settings.key.clone(),
        id: settings.id.clone(),
        shards: settings.shards,
        start: settings.start,
        policy: settings.policy.clone(),
        invoke,
    }
}
