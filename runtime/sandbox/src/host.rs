//! The host's side of one sandbox: what the imports of its guest act on.

use super::diagnostics::{Diagnostics, Sink, locked};
use super::limits::Limiter;
use super::scheduler::{Account, Group};
use super::settings::Settings;
use super::staged::Staged;
use super::wasi;
use sluicebox_core::effects::{Effects, Entries};
use sluicebox_core::invoke::DelayedRoom;
use sluicebox_core::message::Offset;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

/// What all sandboxes of one version of a handler have in common.
pub(super) struct Profile {
    pub(super) settings: Settings,
    pub(super) sink: Sink,
    pub(super) group: Arc<Group>,
}

/// One message being handled.
pub(super) struct Run {
    offset: Offset,
    pub(super) has_key: bool,
    /// What may still be published with a delay.
    pub(super) delayed_room: DelayedRoom,
    /// A message with a delay was refused for want of room.
    pub(super) delay_refused: bool,
    pub(super) staged: Staged,
}

/// What bounds the processor time of a run.
#[derive(Clone)]
pub(super) struct TimeBudget {
    /// The guest is stopped at the first tick after it.
    pub(super) deadline: Instant,
    pub(super) account: Account,
}

/// The data of a store. Most calls use neither WASI nor diagnostics, so both are made when first used.
pub(super) struct Host {
    profile: Arc<Profile>,
    pub(super) limiter: Limiter,
    pub(super) budget: TimeBudget,
    run: Option<Run>,
    table: ResourceTable,
    wasi: Option<Box<WasiCtx>>,
    diagnostics: Option<Arc<Mutex<Diagnostics>>>,
}

impl Host {
    pub(super) fn new(profile: Arc<Profile>, budget: TimeBudget) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(super::limits::RESOURCES_MAX);
        let limiter = Limiter::new(profile.settings.memory_bytes);
        Self { profile, limiter, budget, run: None, table, wasi: None, diagnostics: None }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.profile.settings
    }

    /// The handler it runs for, among those that share the processor.
    pub(super) fn group(&self) -> &Arc<Group> {
        &self.profile.group
    }

    pub(super) fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }

    /// Begins a message.
    pub(super) fn begin(
        &mut self,
        offset: Offset,
        has_key: bool,
        state: Entries,
        delayed_room: DelayedRoom,
        budget: TimeBudget,
    ) {
        self.budget = budget;
        self.limiter.reset();
        if let Some(diagnostics) = &self.diagnostics {
            locked(diagnostics).begin(offset);
        }
        let staged = Staged::new(state);
        self.run = Some(Run { offset, has_key, delayed_room, delay_refused: false, staged });
    }

    /// Ends the message and returns what the run asked for.
    pub(super) fn end(&mut self) -> Effects {
        if let Some(diagnostics) = &self.diagnostics {
            locked(diagnostics).flush();
        }
        self.run.take().map(|run| run.staged.into_effects()).unwrap_or_default()
    }

    /// Whether the run was refused a message with a delay for want of room.
    pub(super) fn delay_refused(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.delay_refused)
    }

    /// The run, for imports that stage effects; an error outside of one, in the code that starts a component.
    pub(super) fn run_mut(&mut self) -> Result<&mut Run, String> {
        self.run.as_mut().ok_or_else(|| "no message is being handled".to_owned())
    }

    /// What the guest wrote to stderr before it gave up.
    pub(super) fn last_words(&self) -> Option<String> {
        let mut diagnostics = locked(self.diagnostics.as_ref()?);
        diagnostics.flush();
        diagnostics.last_words()
    }

    pub(super) fn diagnostics(&mut self) -> MutexGuard<'_, Diagnostics> {
        locked(self.own_diagnostics())
    }

    fn own_diagnostics(&mut self) -> &Arc<Mutex<Diagnostics>> {
        self.diagnostics.get_or_insert_with(|| {
            let mut diagnostics = Diagnostics::new(self.profile.sink.clone(), self.profile.settings.handler.clone());
            if let Some(run) = &self.run {
                diagnostics.begin(run.offset);
            }
            Arc::new(Mutex::new(diagnostics))
        })
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        if self.wasi.is_none() {
            let diagnostics = self.own_diagnostics().clone();
            self.wasi = Some(Box::new(wasi::context(diagnostics)));
        }
        let ctx = self.wasi.as_mut().expect("made above");
        WasiCtxView { ctx, table: &mut self.table }
    }
}
