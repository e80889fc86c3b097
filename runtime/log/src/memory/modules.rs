//! Deployed modules in memory.

use super::MemoryCore;
use crate::error::LogError;
use crate::modules::{self, Modules, StoredModule};
use bytes::Bytes;
use sluicebox_core::clock::Timestamp;
use sluicebox_core::handler::{Digest, HandlerName};
use sluicebox_core::skew::Redate;
use std::collections::BTreeMap;

/// By handler, in the order in which they were put.
pub(super) type Kept = BTreeMap<HandlerName, Vec<(StoredModule, Bytes)>>;

impl MemoryCore {
    /// See [`Log::put_module`](crate::contract::Log::put_module).
    pub fn put_module(
        &mut self,
        handler: &HandlerName,
        module: Bytes,
        needed: &[Digest],
        now: Timestamp,
    ) -> Result<Digest, LogError> {
        modules::check(&module)?;
        let digest = Digest::of(&module);
        let kept = self.modules.entry(handler.clone()).or_default();
        kept.retain(|(before, _)| before.digest != digest);
        kept.push((StoredModule { digest, time: now, bytes: module.len() as u64 }, module));
        let digests: Vec<Digest> = kept.iter().map(|(module, _)| module.digest).collect();
        let surplus = modules::surplus(&digests, needed);
        kept.retain(|(module, _)| !surplus.contains(&module.digest));
        Ok(digest)
    }

    /// See [`Log::module`](crate::contract::Log::module).
    pub fn module(&self, handler: &HandlerName, digest: Digest) -> Option<Bytes> {
        let kept = self.modules.get(handler)?;
        kept.iter().find(|(module, _)| module.digest == digest).map(|(_, bytes)| bytes.clone())
    }

    /// See [`Log::modules`](crate::contract::Log::modules).
    pub fn modules(&self) -> Modules {
        let shown = |kept: &Vec<(StoredModule, Bytes)>| kept.iter().map(|(module, _)| *module).collect();
        self.modules.iter().map(|(handler, kept)| (handler.clone(), shown(kept))).collect()
    }

    pub(super) fn redate_modules(&mut self, redate: &Redate) {
        self.modules.values_mut().flatten().for_each(|(module, _)| module.time = redate.time(module.time));
    }
}
