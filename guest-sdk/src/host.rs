//! The host as this crate sees it: the component's imports on Wasm, a stand-in that records effects elsewhere.
//!
//! Both sides offer the same items: `Host` with `publish`, `get`, `set`, `delete`, `names`, `count` and `config`, and the
//! function `diagnostic`. Nothing outside this folder knows which one it talks to.

#[cfg(not(target_family = "wasm"))]
mod native;
#[cfg(not(target_family = "wasm"))]
pub(crate) use native::*;

#[cfg(target_family = "wasm")]
mod wasm;
#[cfg(target_family = "wasm")]
pub(crate) use wasm::{Host, diagnostic};
#[cfg(target_family = "wasm")]
pub use wasm::{bindings, handle};

/// A message to publish, on its way to the host.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    pub(crate) topic: String,
    pub(crate) key: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) delay_ms: Option<u64>,
}
