//! The host's side of one sandbox: what the imports of its guest act on.

use super::diagnostics::{Diagnostics, Sink, locked};
use super::limits::Limiter;
use super::settings::Settings;
use super::shares::Meter;
use super::staged::Staged;
use super::wasi;
use sluicebox_core::effects::Effects;
use sluicebox_core::invoke::Call;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

/// What every sandbox of a handler shares.
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) sink: Sink,
}

/// One message being handled.
pub(super) struct Run {
    pub(super) call: Call,
    pub(super) staged: Staged,
}

/// What bounds the processor time of a run.
#[derive(Clone)]
pub(super) struct Bounds {
    /// The guest is stopped at the first tick after it.
    pub(super) deadline: Instant,
    pub(super) meter: Meter,
}

/// The data of a store. Most calls use neither WASI nor diagnostics, so both are made when first used.
pub(super) struct Host {
    shared: Arc<Shared>,
    pub(super) limiter: Limiter,
    pub(super) bounds: Bounds,
    run: Option<Run>,
    table: ResourceTable,
    wasi: Option<Box<WasiCtx>>,
    diagnostics: Option<Arc<Mutex<Diagnostics>>>,
}

impl Host {
    pub(super) fn new(shared: Arc<Shared>, bounds: Bounds) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(super::limits::RESOURCES_MAX);
        let limiter = Limiter::new(shared.settings.memory_bytes);
        Self { shared, limiter, bounds, run: None, table, wasi: None, diagnostics: None }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    pub(super) fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }

    /// Begins a message.
    pub(super) fn begin(&mut self, mut call: Call, bounds: Bounds) {
        self.bounds = bounds;
        self.limiter.reset();
        if let Some(diagnostics) = &self.diagnostics {
            locked(diagnostics).begin(call.message.offset);
        }
        let staged = Staged::new(std::mem::take(&mut call.state));
        self.run = Some(Run { call, staged });
    }

    /// Ends the message and returns what the run asked for.
    pub(super) fn end(&mut self) -> Effects {
        if let Some(diagnostics) = &self.diagnostics {
            locked(diagnostics).flush();
        }
        self.run.take().map(|run| run.staged.into_effects()).unwrap_or_default()
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
        locked(self.shared_diagnostics())
    }

    fn shared_diagnostics(&mut self) -> &Arc<Mutex<Diagnostics>> {
        self.diagnostics.get_or_insert_with(|| {
            let mut diagnostics = Diagnostics::new(self.shared.sink.clone(), self.shared.settings.handler.clone());
            if let Some(run) = &self.run {
                diagnostics.begin(run.call.message.offset);
            }
            Arc::new(Mutex::new(diagnostics))
        })
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        if self.wasi.is_none() {
            let diagnostics = self.shared_diagnostics().clone();
            self.wasi = Some(Box::new(wasi::context(diagnostics)));
        }
        let ctx = self.wasi.as_mut().expect("made above");
        WasiCtxView { ctx, table: &mut self.table }
    }
}
