//! Which imports a component gets: what the handler's settings grant, and what every handler has.

use super::bindings::{GuestPre, sluicebox, wasi};
use super::error::LoadError;
use super::host::Host;
use super::module::Module;
use super::settings::Settings;
use super::text::short;
use wasmtime::Engine;
use wasmtime::component::{HasSelf, Linker};

/// The interface whose presence a grant decides.
const OUTBOX: &str = "sluicebox:handler/outbox@";

/// Types alone; components import the interface by name.
impl sluicebox::handler::types::Host for Host {}

/// The imports of a handler that may publish, and of one that may not.
pub(super) struct Linkers {
    publishing: Linker<Host>,
    silent: Linker<Host>,
}

impl Linkers {
    pub(super) fn new(engine: &Engine) -> wasmtime::Result<Self> {
        let mut silent = Linker::new(engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut silent)?;
        sluicebox::handler::types::add_to_linker::<_, HasSelf<Host>>(&mut silent, |host| host)?;
        sluicebox::handler::counters::add_to_linker::<_, HasSelf<Host>>(&mut silent, |host| host)?;
        wasi::keyvalue::store::add_to_linker::<_, HasSelf<Host>>(&mut silent, |host| host)?;
        wasi::keyvalue::atomics::add_to_linker::<_, HasSelf<Host>>(&mut silent, |host| host)?;
        wasi::config::store::add_to_linker::<_, HasSelf<Host>>(&mut silent, |host| host)?;
        wasi::logging::logging::add_to_linker::<_, HasSelf<Host>>(&mut silent, |host| host)?;
        let mut publishing = silent.clone();
        sluicebox::handler::outbox::add_to_linker::<_, HasSelf<Host>>(&mut publishing, |host| host)?;
        Ok(Self { publishing, silent })
    }

    /// Links a component for a handler with these settings.
    pub(super) fn link(&self, module: &Module, settings: &Settings) -> Result<GuestPre<Host>, LoadError> {
        let linker = if settings.publish.is_empty() { &self.silent } else { &self.publishing };
        for import in module.imports() {
            if let Some(hint) = missing(import, settings) {
                return Err(LoadError::MissingImport { import: short(import), hint });
            }
        }
        let unfit = |error: wasmtime::Error| LoadError::Unfit { reason: short(format!("{error:#}")) };
        let instance = linker.instantiate_pre(module.component()).map_err(unfit)?;
        GuestPre::new(instance).map_err(|_| LoadError::NoHandler { exports: exports(module) })
    }
}

/// What a module exports, for people.
fn exports(module: &Module) -> String {
    if module.exports().is_empty() { "nothing".to_owned() } else { short(module.exports().join(", ")) }
}

/// Why an import is not there, and what to do about it; `None` for one that is.
///
/// wasmtime's own message names the import as well, but cannot know what would grant it. What is right here by name and
/// wrong by version or type is left to wasmtime.
fn missing(import: &str, settings: &Settings) -> Option<String> {
    const OURS: [&str; 3] = ["types", "outbox", "counters"];
    const WASI: [&str; 8] = ["cli", "clocks", "filesystem", "io", "random", "sockets", "config", "logging"];
    if import.starts_with(OUTBOX) && settings.publish.is_empty() {
        let handler = &settings.handler;
        return Some(format!("it publishes: grant topics with `publish = [\"…\"]` in [handlers.{handler}]"));
    }
    let name = import.split('@').next().unwrap_or(import);
    let (package, interface) = name.split_once('/').unwrap_or((name, ""));
    match package.split_once(':') {
        Some(("sluicebox", "handler")) if OURS.contains(&interface) => None,
        Some(("sluicebox", _)) => Some("this host does not know it: a newer one may".to_owned()),
        Some(("wasi", "keyvalue")) if matches!(interface, "store" | "atomics") => None,
        Some(("wasi", "http")) => Some("this host links no HTTP: have a handler elsewhere make the request".to_owned()),
        Some(("wasi", package)) if WASI.contains(&package) => None,
        _ => {
            Some("this host offers sluicebox:handler, wasi:keyvalue, wasi:config, wasi:logging and WASI 0.2".to_owned())
        }
    }
}
