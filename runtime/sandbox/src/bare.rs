//! The yardstick of a call: the same component in the same engine, called as wasmtime's guide has it and nothing more.
//!
//! The imports answer at once (nothing is stored, everything is accepted) and keep nothing. There is no limit, deadline,
//! admission or turn, so this is for measuring alone: a guest that does not return is never stopped.

use super::Sandboxes;
use super::bindings::sluicebox::handler::{counters, outbox, types};
use super::bindings::wasi::config::store as config;
use super::bindings::wasi::keyvalue::{atomics, store};
use super::bindings::wasi::logging::logging;
use super::bindings::{Guest, GuestPre};
use super::error::LoadError;
use super::module::Module;
use super::resources::{Bucket, Cas};
use super::text::short;
use sluicebox_core::invoke::Call;
use wasmtime::component::{HasSelf, Linker, Resource, ResourceTable};
use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

/// A component, linked to imports that do nothing.
pub struct Bare(GuestPre<Imports>);

/// One instance of it, for as many calls as it is kept for.
pub struct BareInstance {
    store: Store<Imports>,
    exports: Guest,
}

impl Sandboxes {
    /// Links a module to imports that do nothing, to measure what its calls take at the least.
    pub fn bare(&self, module: &Module) -> Result<Bare, LoadError> {
        let unfit = |error: wasmtime::Error| LoadError::Unfit { reason: short(format!("{error:#}")) };
        let linker = linker(&self.0.engine).map_err(unfit)?;
        let component = linker.instantiate_pre(module.component()).and_then(GuestPre::new).map_err(unfit)?;
        Ok(Bare(component))
    }
}

impl Bare {
    /// Makes an instance. One call in it, and dropping it, is what a fresh sandbox does.
    pub async fn start(&self) -> wasmtime::Result<BareInstance> {
        let mut store = Store::new(self.0.engine(), Imports::default());
        // The code asks for the epoch; its answer is always the same.
        store.epoch_deadline_callback(|_| Ok(UpdateDeadline::Continue(1)));
        store.set_epoch_deadline(1);
        let exports = self.0.instantiate_async(&mut store).await?;
        Ok(BareInstance { store, exports })
    }
}

impl BareInstance {
    /// Calls the guest once. Whether it could do anything with imports that do nothing is not looked at.
    pub async fn call(&mut self, call: &Call) -> wasmtime::Result<()> {
        let message = &call.message;
        let headers: Vec<(&str, &str)> = message.headers.iter().collect();
        let param = types::Message {
            id: message.id.as_deref(),
            topic: message.topic.as_str(),
            key: call.key.as_ref().map(|key| key.as_str()),
            headers: &headers,
            body: &message.body,
            time: message.time.0,
            attempt: call.attempt,
            offset: Some(message.offset.0),
        };
        self.exports.sluicebox_handler_handler().call_handle(&mut self.store, param).await.map(drop)
    }
}

fn linker(engine: &Engine) -> wasmtime::Result<Linker<Imports>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    types::add_to_linker::<_, HasSelf<Imports>>(&mut linker, |imports| imports)?;
    counters::add_to_linker::<_, HasSelf<Imports>>(&mut linker, |imports| imports)?;
    outbox::add_to_linker::<_, HasSelf<Imports>>(&mut linker, |imports| imports)?;
    store::add_to_linker::<_, HasSelf<Imports>>(&mut linker, |imports| imports)?;
    atomics::add_to_linker::<_, HasSelf<Imports>>(&mut linker, |imports| imports)?;
    config::add_to_linker::<_, HasSelf<Imports>>(&mut linker, |imports| imports)?;
    logging::add_to_linker::<_, HasSelf<Imports>>(&mut linker, |imports| imports)?;
    Ok(linker)
}

/// What every import acts on: nothing. WASI is linked as for every handler and made if it is used.
#[derive(Default)]
struct Imports {
    wasi: Option<Box<(WasiCtx, ResourceTable)>>,
}

impl WasiView for Imports {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let (ctx, table) = &mut **self.wasi.get_or_insert_with(Default::default);
        WasiCtxView { ctx, table }
    }
}

impl types::Host for Imports {}

impl counters::Host for Imports {
    fn count(&mut self, _: String, _: u64) -> Result<(), counters::CountError> {
        Ok(())
    }
}

impl outbox::Host for Imports {
    fn publish(&mut self, _: outbox::Outgoing) -> Result<(), outbox::PublishError> {
        Ok(())
    }
}

impl store::Host for Imports {
    fn open(&mut self, _: String) -> Result<Resource<Bucket>, store::Error> {
        Ok(Resource::new_own(0))
    }
}

impl store::HostBucket for Imports {
    fn get(&mut self, _: Resource<Bucket>, _: String) -> Result<Option<Vec<u8>>, store::Error> {
        Ok(None)
    }

    fn set(&mut self, _: Resource<Bucket>, _: String, _: Vec<u8>) -> Result<(), store::Error> {
        Ok(())
    }

    fn delete(&mut self, _: Resource<Bucket>, _: String) -> Result<(), store::Error> {
        Ok(())
    }

    fn exists(&mut self, _: Resource<Bucket>, _: String) -> Result<bool, store::Error> {
        Ok(false)
    }

    fn list_keys(&mut self, _: Resource<Bucket>, _: Option<String>) -> Result<store::KeyResponse, store::Error> {
        Ok(store::KeyResponse { keys: Vec::new(), cursor: None })
    }

    fn drop(&mut self, _: Resource<Bucket>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl atomics::Host for Imports {
    fn increment(&mut self, _: Resource<Bucket>, _: String, _: i64) -> wasmtime::Result<Result<i64, store::Error>> {
        Ok(Ok(0))
    }

    fn swap(&mut self, _: Resource<Cas>, _: Vec<u8>) -> wasmtime::Result<Result<(), atomics::CasError>> {
        Ok(Ok(()))
    }
}

impl atomics::HostCas for Imports {
    fn new(&mut self, _: Resource<Bucket>, _: String) -> wasmtime::Result<Result<Resource<Cas>, store::Error>> {
        Ok(Ok(Resource::new_own(0)))
    }

    fn new_with_read(
        &mut self,
        _: Resource<Bucket>,
        _: String,
    ) -> wasmtime::Result<Result<(Resource<Cas>, Option<Vec<u8>>), store::Error>> {
        Ok(Ok((Resource::new_own(0), None)))
    }

    fn drop(&mut self, _: Resource<Cas>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl config::Host for Imports {
    fn get(&mut self, _: String) -> Result<Option<String>, config::Error> {
        Ok(None)
    }

    fn get_all(&mut self) -> Result<Vec<(String, String)>, config::Error> {
        Ok(Vec::new())
    }
}

impl logging::Host for Imports {
    fn log(&mut self, _: logging::Level, _: String, _: String) {}
}
