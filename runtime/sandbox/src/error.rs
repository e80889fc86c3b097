//! What can go wrong before a handler runs: its bytes, its imports, its memory.

use super::limits::MODULE_BYTES_MAX;
use super::text::short;
use sluicebox_core::handler::HandlerName;

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
        "it has a memory of {needed} bytes to begin with, and the handler has {limit}: raise `memory` in [handlers.{handler}]"
    )]
    Memory { needed: u64, limit: u64, handler: HandlerName },
    #[error(
        "it exports no `sluicebox:handler/handler` of a version this host knows, only: {exports}: \
         make it with sluicebox-sdk, or for the world `sluicebox:handler/guest`"
    )]
    NoHandler { exports: String },
}

impl LoadError {
    /// Reasons of the parser and the compiler quote names from the module, which may be of any length.
    pub(super) fn malformed(error: impl std::fmt::Display) -> Self {
        Self::Malformed { reason: short(error.to_string()) }
    }
}
