//! Modules: the bytes of a component, checked and compiled.

use super::cache::Cache;
use super::limits::{MEMORIES_MAX, TABLES_MAX};
use crate::handler::Digest;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use wasmparser::{Encoding, Parser, Payload};
use wasmtime::Engine;
use wasmtime::component::Component;

/// Most bytes of a module (64 MiB).
pub const MODULE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most core modules and components inside a component.
const PARTS_MAX: usize = 256;
/// Most functions of all core modules of a component.
const FUNCTIONS_MAX: usize = 200_000;
/// Most bytes of one function: the time to compile one grows faster than its size.
const FUNCTION_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Why bytes are not a module that this host can run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the module has {bytes} bytes, at most {MODULE_BYTES_MAX} are allowed")]
    TooLarge { bytes: usize },
    #[error("not a WebAssembly component: {reason}")]
    Malformed { reason: String },
    #[error("it is a core module, not a component: build it for the target wasm32-wasip2")]
    CoreModule,
    #[error("the module has {found} {what}, at most {max} are allowed")]
    Bound { what: &'static str, found: usize, max: usize },
    #[error("the module cannot be compiled: {reason}")]
    Compile { reason: String },
    #[error("it imports `{import}`, which is not there for this handler: {hint}")]
    MissingImport { import: String, hint: String },
    #[error("its imports do not fit: {reason}")]
    Unfit { reason: String },
    #[error(
        "it exports no `sluicebox:handler/handler` of a version this host knows, only: {exports}: \
         make it with sluicebox-sdk, or for the world `sluicebox:handler/guest`"
    )]
    NoHandler { exports: String },
}

/// A compiled component. Cheap to clone.
#[derive(Clone)]
pub struct Module(Arc<Compiled>);

pub(super) struct Compiled {
    component: Component,
    digest: Digest,
    imports: Vec<String>,
    exports: Vec<String>,
    memories: u32,
    from_cache: bool,
}

impl Module {
    /// Checks and compiles; takes up to seconds of processor time for a large module.
    pub(super) fn load(engine: &Engine, cache: Option<&Cache>, bytes: &[u8]) -> Result<Self, LoadError> {
        check(bytes)?;
        let digest = Digest::of(bytes);
        let cached = cache.and_then(|cache| cache.get(engine, &digest));
        let from_cache = cached.is_some();
        let component = match cached {
            Some(component) => component,
            None => {
                let component = Component::new(engine, bytes)
                    .map_err(|error| LoadError::Compile { reason: format!("{error:#}") })?;
                cache.and_then(|cache| cache.put(engine, &digest, &component)).unwrap_or(component)
            }
        };
        let memories = resources(&component)?;
        let of_type = component.component_type();
        let imports = of_type.imports(engine).map(|(name, _)| name.to_owned()).collect();
        let exports = of_type.exports(engine).map(|(name, _)| name.to_owned()).collect();
        Ok(Self(Arc::new(Compiled { component, digest, imports, exports, memories, from_cache })))
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

    pub(super) fn exports(&self) -> &[String] {
        &self.0.exports
    }

    pub(super) fn component(&self) -> &Component {
        &self.0.component
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

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Weak<Compiled>>> {
        // A panic while it was held left a whole map.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bounds what the compiler is given, without trusting anything in it.
fn check(bytes: &[u8]) -> Result<(), LoadError> {
    if bytes.len() > MODULE_BYTES_MAX {
        return Err(LoadError::TooLarge { bytes: bytes.len() });
    }
    let (mut parts, mut functions) = (0, 0);
    for (index, payload) in Parser::new(0).parse_all(bytes).enumerate() {
        let payload = payload.map_err(|error| LoadError::Malformed { reason: error.to_string() })?;
        match payload {
            Payload::Version { encoding: Encoding::Module, .. } if index == 0 => return Err(LoadError::CoreModule),
            Payload::Version { .. } => {
                parts += 1;
                bound("parts", parts, PARTS_MAX)?;
            }
            Payload::CodeSectionEntry(body) => {
                functions += 1;
                bound("functions", functions, FUNCTIONS_MAX)?;
                bound("bytes in one function", body.range().len(), FUNCTION_BYTES_MAX)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Bounds what a sandbox of the component needs, and counts its memories.
fn resources(component: &Component) -> Result<u32, LoadError> {
    let needed = component
        .resources_required()
        .ok_or_else(|| LoadError::Unfit { reason: "it imports core modules, which the host has not".to_owned() })?;
    bound("memories", needed.num_memories as usize, MEMORIES_MAX as usize)?;
    bound("tables", needed.num_tables as usize, TABLES_MAX as usize)?;
    Ok(needed.num_memories.max(1))
}

fn bound(what: &'static str, found: usize, max: usize) -> Result<(), LoadError> {
    if found > max { Err(LoadError::Bound { what, found, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(bytes: &[u8], expected: &str) {
        let error = check(bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn what_is_no_component_is_refused_before_it_is_compiled() {
        refused(b"", "not a WebAssembly component");
        refused(b"\x7fELF", "not a WebAssembly component");
        refused(b"\0asm\x01\0\0\0", "build it for the target wasm32-wasip2");
        refused(&vec![0; MODULE_BYTES_MAX + 1], "at most 67108864 are allowed");
    }

    #[test]
    fn a_component_of_too_many_parts_is_refused() {
        const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
        // Section 4 is a nested component, here an empty one of 8 bytes.
        let nested = [&[4u8, 8], COMPONENT].concat();
        let few = [COMPONENT, &nested].concat();
        assert!(check(&few).is_ok());
        let many = [COMPONENT, &nested.repeat(PARTS_MAX)].concat();
        refused(&many, "parts, at most 256");
    }
}
