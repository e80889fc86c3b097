//! Brings what runs in line with the settings file, the modules and what operators deployed or went back to, whenever one of them
//! changes.
//!
//! A changed settings file is taken as a whole or not at all. A changed module concerns its handler alone, and is looked at
//! although the settings file may be broken. What is refused changes nothing, is said once, and is tried again when it
//! changes; while the log cannot take a change it is tried again now and then. It all ends at stop: what is being prepared
//! is dropped, a change that the host is making is made first.

use crate::blocking::blocking;
use crate::config::{self, HandlerSettings, Loaded, Overrides, Problem, Settings};
use crate::host::{self, Host};
use crate::registry::{Pins, Registry, told};
use crate::telemetry::{Metrics, events};
use crate::vital::Vital;
use crate::watch::{Scope, Watch};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long to wait when the log could not take a change.
const RETRY: Duration = Duration::from_secs(5);
/// Settings may name files that were not followed yet: then they are read again, once these are followed. More rounds mean
/// that they change all the time, which is told like any change.
const READS_MAX: usize = 3;

/// Where the settings came from, to read them again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub file: PathBuf,
    pub overrides: Overrides,
}

/// The running task.
pub(super) struct Reloading {
    task: JoinHandle<()>,
    stop: CancellationToken,
    asked: Arc<Notify>,
}

/// What the task knows.
pub(super) struct Reload {
    /// `None`: only operators change anything.
    pub(super) source: Option<Source>,
    /// In force.
    pub(super) settings: Settings,
    pub(super) registry: Arc<Registry>,
    pub(super) host: Arc<Host>,
    pub(super) metrics: Arc<Metrics>,
}

/// Why a change is not in force.
enum Refusal {
    /// It cannot be; the reason.
    Never(String),
    /// It may be later.
    NotNow(String),
    /// The host is stopping.
    Stopping,
}

impl Reloading {
    pub(super) fn start(reload: Reload, vital: &Vital) -> Self {
        let (stop, asked) = (CancellationToken::new(), Arc::new(Notify::new()));
        let task = vital.guard("the watch for changes", reload.run(stop.clone(), asked.clone()));
        let task = tokio::spawn(task);
        Self { task, stop, asked }
    }

    /// Looks at everything now.
    pub(super) fn look(&self) {
        self.asked.notify_one();
    }

    /// Ends it. Afterwards nothing changes any more.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the task that takes up changes ended badly");
        }
    }
}

impl Reload {
    async fn run(mut self, stop: CancellationToken, asked: Arc<Notify>) {
        let mut watch = Watch::default();
        let mut pins = self.host.pins();
        let mut warned = None;
        loop {
            let in_force = pins.borrow_and_update().clone();
            let again = self.look(&mut watch, &in_force, &mut warned, &stop).await;
            tokio::select! {
                // Safe to cancel, all: a change, a request or a new pin that was not taken is told again, and a wait that
                // is cut short makes way for one of them.
                () = stop.cancelled() => return,
                () = watch.changed() => {}
                () = asked.notified() => tracing::info!("looking at the settings and the modules, as asked"),
                changed = pins.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(RETRY), if again => {}
            }
        }
    }

    /// Takes up what changed. True if it should be tried again although nothing changes.
    async fn look(
        &mut self,
        watch: &mut Watch,
        pins: &Pins,
        warned: &mut Option<Vec<Problem>>,
        stop: &CancellationToken,
    ) -> bool {
        let (mut again, mut problem, mut brought) = (false, None, false);
        let mut restart = None;
        match self.read(watch).await {
            None => {}
            Some(Err(reason)) => problem = Some(reason),
            Some(Ok(Loaded { settings: fresh, warnings })) => {
                if warned.as_ref().is_some_and(|warned| *warned != warnings) {
                    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                }
                *warned = Some(warnings);
                if fresh.handlers != self.settings.handlers {
                    match self.bring(&fresh.handlers, pins, stop).await {
                        Ok(behind) => {
                            (brought, again) = (true, behind);
                            self.settings.handlers.clone_from(&fresh.handlers);
                        }
                        Err(Refusal::Never(reason)) => problem = Some(reason),
                        Err(Refusal::NotNow(reason)) => (problem, again) = (Some(reason), true),
                        Err(Refusal::Stopping) => return false,
                    }
                }
                restart = needs_restart(&self.settings, &fresh);
            }
        }
        if !brought && !again {
            // The handlers as they are, on modules and versions as they are now.
            let handlers = self.settings.handlers.clone();
            match self.bring(&handlers, pins, stop).await {
                Ok(behind) => again = behind,
                Err(Refusal::NotNow(reason) | Refusal::Never(reason)) => {
                    (problem, again) = (problem.or(Some(reason)), true);
                }
                Err(Refusal::Stopping) => return false,
            }
        }
        self.tell(problem, restart);
        again
    }

    /// Reads the settings, once every file that they name is followed.
    async fn read(&self, watch: &mut Watch) -> Option<Result<Loaded, String>> {
        let source = self.source.clone()?;
        let modules: BTreeSet<PathBuf> = self.settings.handlers.iter().map(|handler| handler.module.clone()).collect();
        let mut read = Err("the settings were not read".to_owned());
        for _ in 0..READS_MAX {
            let file = source.file.clone();
            let files = blocking(move || config::files(&file)).await;
            let scope = Scope { files: &files | &modules, trees: BTreeSet::new() };
            let grew = watch.follow(scope).await;
            let source = source.clone();
            read = blocking(move || load(&source)).await;
            if !grew {
                break;
            }
        }
        Some(read)
    }

    /// Prepares the handlers and has the host run them. True if a version could not be had that may be had later.
    async fn bring(
        &self,
        handlers: &[HandlerSettings],
        pins: &Pins,
        stop: &CancellationToken,
    ) -> Result<bool, Refusal> {
        let mut pins = pins.clone();
        if handlers.iter().any(|handler| !self.registry.runs(&handler.name)) {
            // One that comes back goes on with the version it had.
            let recorded = self
                .host
                .recorded_pins(|name| handlers.iter().any(|handler| handler.name == *name))
                .await
                .map_err(|error| Refusal::NotNow(told(&error)))?;
            pins.extend(recorded.into_iter().filter(|(name, _)| !self.registry.runs(name)));
        }
        let prepared = tokio::select! {
            // Safe to cancel: nothing runs what is being prepared.
            prepared = self.registry.prepare(handlers, &pins) => prepared.map_err(|error| Refusal::Never(told(&error)))?,
            () = stop.cancelled() => return Err(Refusal::Stopping),
        };
        let behind = prepared.is_behind();
        let changed = prepared.is_swap() || handlers != self.settings.handlers;
        if changed {
            self.host.apply(prepared.handlers()).await.map_err(|error| match error {
                host::StartError::Log(_) => Refusal::NotNow(told(&error)),
                refused => Refusal::Never(told(&refused)),
            })?;
        }
        self.registry.put_in_force(prepared).await;
        if changed {
            events::reloaded(&self.metrics, handlers.len());
        }
        Ok(behind)
    }

    /// `problem`: nothing of the settings was taken up. `restart`: not all of it.
    fn tell(&self, problem: Option<String>, restart: Option<String>) {
        let is_refused = problem.is_some();
        let problem = problem.or(restart);
        if self.registry.set_problem(problem.clone()) {
            match problem {
                Some(reason) if !is_refused => events::settings_need_a_restart(&self.metrics, &reason),
                Some(reason) => events::settings_refused(&self.metrics, &reason),
                None => tracing::info!("the settings file and what is in force agree again"),
            }
        }
    }
}

fn load(source: &Source) -> Result<Loaded, String> {
    config::load(&source.file, &source.overrides).map_err(|problems| problems.to_string())
}

/// What of the fresh settings cannot be taken up while running.
fn needs_restart(in_force: &Settings, fresh: &Settings) -> Option<String> {
    let differs = [
        ("`namespace`", in_force.namespace != fresh.namespace),
        ("[log]", in_force.log != fresh.log),
        // The host's own data follows the log unless the settings say otherwise.
        ("[host]", in_force.host != fresh.host && in_force.log == fresh.log),
        ("[http]", in_force.http != fresh.http),
    ];
    let names: Vec<&str> = differs.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect();
    let what = names.join(" and ");
    (!names.is_empty()).then(|| format!("{what} cannot change while running: restart the host; the rest is in force"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sluicebox.toml");
        std::fs::write(&file, text).unwrap();
        let overrides = Overrides { data: Some("data".into()), ..Overrides::default() };
        config::load(&file, &overrides).unwrap().settings
    }

    #[test]
    fn what_needs_a_restart_is_named() {
        let in_force = settings("namespace = \"shop\"");
        assert_eq!(needs_restart(&in_force, &in_force), None);
        let fresh = settings("namespace = \"other\"\n[http]\nlisten = \"127.0.0.1:1\"\n");
        let told = needs_restart(&in_force, &fresh).unwrap();
        assert!(told.starts_with("`namespace` and [http] cannot change while running: restart the host"), "{told}");
        let fresh = settings("namespace = \"shop\"\n[log]\nretain = { age = \"3d\" }\n");
        assert!(needs_restart(&in_force, &fresh).unwrap().starts_with("[log] cannot"));
        let fresh = settings("namespace = \"shop\"\n[host]\ndata = \"/elsewhere\"\n");
        assert!(needs_restart(&in_force, &fresh).unwrap().starts_with("[host] cannot"));
    }
}
