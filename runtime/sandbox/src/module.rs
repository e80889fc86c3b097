//! Modules: the bytes of a component, checked and compiled.

use super::cache::{self, Cache};
use super::compile::Compiler;
use super::error::LoadError;
use super::inspect::{bound, inspect};
use super::limits::{MEMORIES_MAX, MODULE_BYTES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX};
use super::text::short;
use sluicebox_core::handler::Digest;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use wasmtime::Engine;
use wasmtime::component::Component;

/// Pages of other sizes are not enabled.
const PAGE_BYTES: u64 = 65536;

/// A compiled component. Cheap to clone.
#[derive(Clone)]
pub struct Module(Arc<Compiled>);

pub(super) struct Compiled {
    component: Component,
    digest: Digest,
    imports: Vec<String>,
    exports: Vec<String>,
    memories: u32,
    /// What the largest of its memories begins with.
    memory_bytes: u64,
    from_cache: bool,
    /// Whether it is mapped from the cache, be it compiled just now.
    is_mapped: bool,
    /// Whether it ran since it was looked at last.
    ran: AtomicBool,
}

impl Module {
    /// Checks and compiles; takes up to seconds of processor time for a large module.
    pub(super) fn load(
        engine: &Engine,
        compiler: &Compiler,
        cache: Option<&Cache>,
        bytes: &[u8],
    ) -> Result<Self, LoadError> {
        if bytes.len() > MODULE_BYTES_MAX {
            return Err(LoadError::TooLarge { bytes: bytes.len() });
        }
        let digest = Digest::of(bytes);
        let cached = cache.and_then(|cache| cache.get(engine, &digest));
        let from_cache = cached.is_some();
        let (component, is_mapped) = match cached {
            Some(component) => (component, true),
            // All that takes processor time or waits for the disk is done there, the sum over the compiled form included.
            None => compiler.run(|| {
                inspect(bytes)?;
                let compiled = Component::new(engine, bytes);
                let component = compiled.map_err(|error| LoadError::Compile { reason: short(format!("{error:#}")) })?;
                Ok(match cache.and_then(|cache| cache.put(engine, &digest, &component)) {
                    Some(mapped) => (mapped, true),
                    None => (component, false),
                })
            })?,
        };
        let (memories, memory_bytes) = resources(&component)?;
        let of_type = component.component_type();
        let imports = of_type.imports(engine).map(|(name, _)| name.to_owned()).collect();
        let exports = of_type.exports(engine).map(|(name, _)| name.to_owned()).collect();
        Ok(Self(Arc::new(Compiled {
            component,
            digest,
            imports,
            exports,
            memories,
            memory_bytes,
            from_cache,
            is_mapped,
            ran: AtomicBool::new(true),
        })))
    }

    /// The sha-256 of its bytes.
    pub fn digest(&self) -> Digest {
        self.0.digest
    }

    /// Whether its compiled form was found in the cache.
    pub fn from_cache(&self) -> bool {
        self.0.from_cache
    }

    /// Whether it can see state at all.
    pub fn uses_state(&self) -> bool {
        self.0.imports.iter().any(|import| import.starts_with("wasi:keyvalue/"))
    }

    /// The names of what it imports, with versions.
    pub fn imports(&self) -> &[String] {
        &self.0.imports
    }

    /// Notes that it runs.
    pub(super) fn runs(&self) {
        // Read first: the line is shared by all cores.
        if !self.0.ran.load(Relaxed) {
            self.0.ran.store(true, Relaxed);
        }
    }

    pub(super) fn exports(&self) -> &[String] {
        &self.0.exports
    }

    pub(super) fn component(&self) -> &Component {
        &self.0.component
    }

    /// Bytes of its largest memory before its guest begins: a lower bound of what it needs.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.0.memory_bytes
    }

    /// Memories of one sandbox, at least 1.
    pub(super) fn memories(&self) -> u32 {
        self.0.memories
    }
}

/// The modules in use, so that handlers of the same code share it.
#[derive(Default)]
pub(super) struct Loaded(Mutex<HashMap<Digest, Weak<Compiled>>>);

impl Loaded {
    pub(super) fn get(&self, digest: &Digest) -> Option<Module> {
        self.lock().get(digest).and_then(Weak::upgrade).map(Module)
    }

    pub(super) fn put(&self, module: &Module) {
        let mut loaded = self.lock();
        loaded.retain(|_, module| module.strong_count() > 0);
        loaded.insert(module.digest(), Arc::downgrade(&module.0));
    }

    /// Lets go of the pages of those that did not run since the last time. Returns how many those are.
    pub(super) fn release_idle(&self) -> usize {
        let modules: Vec<Module> = self.lock().values().filter_map(Weak::upgrade).map(Module).collect();
        let idle = modules.iter().filter(|module| !module.0.ran.swap(false, Relaxed) && module.0.is_mapped);
        let released = idle.map(|module| cache::release(&module.0.component));
        released.filter(|released| released.is_ok()).count()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Weak<Compiled>>> {
        // A panic while it was held left a whole map.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bounds what a sandbox of the component needs, and says how many memories it has and what the largest begins with.
fn resources(component: &Component) -> Result<(u32, u64), LoadError> {
    let needed = component
        .resources_required()
        .ok_or_else(|| LoadError::Unfit { reason: "it imports core modules, which the host has not".to_owned() })?;
    bound("memories", needed.num_memories as usize, MEMORIES_MAX as usize)?;
    bound("tables", needed.num_tables as usize, TABLES_MAX as usize)?;
    let elements = needed.max_initial_table_size.unwrap_or_default();
    bound("table elements", usize::try_from(elements).unwrap_or(usize::MAX), TABLE_ELEMENTS_MAX)?;
    let pages = needed.max_initial_memory_size.unwrap_or_default();
    Ok((needed.num_memories.max(1), pages.saturating_mul(PAGE_BYTES)))
}
