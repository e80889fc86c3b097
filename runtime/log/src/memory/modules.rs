//! Deployed modules in memory.

use crate::error::LogError;
use crate::modules::{self, Modules, StoredModule};
use bytes::Bytes;
use sluicebox_core::clock::Timestamp;
use sluicebox_core::handler::{Digest, HandlerName};
use sluicebox_core::skew::Redate;
use std::collections::BTreeMap;

/// By handler, in the order in which they were put. A clone shares the bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept(BTreeMap<HandlerName, Vec<(StoredModule, Bytes)>>);

impl Kept {
    pub(super) fn put(
        &mut self,
        handler: &HandlerName,
        module: Bytes,
        needed: &[Digest],
        now: Timestamp,
    ) -> Result<Digest, LogError> {
        modules::check(&module)?;
        let digest = Digest::of(&module);
        let kept = self.0.entry(handler.clone()).or_default();
        kept.retain(|(before, _)| before.digest != digest);
        kept.push((StoredModule { digest, time: now, bytes: module.len() as u64 }, module));
        let digests: Vec<Digest> = kept.iter().map(|(module, _)| module.digest).collect();
        let surplus = modules::surplus(&digests, needed);
        kept.retain(|(module, _)| !surplus.contains(&module.digest));
        Ok(digest)
    }

    pub(super) fn get(&self, handler: &HandlerName, digest: Digest) -> Option<Bytes> {
        let kept = self.0.get(handler)?;
        kept.iter().find(|(module, _)| module.digest == digest).map(|(_, bytes)| bytes.clone())
    }

    pub(super) fn all(&self) -> Modules {
        let shown = |kept: &Vec<(StoredModule, Bytes)>| kept.iter().map(|(module, _)| *module).collect();
        self.0.iter().map(|(handler, kept)| (handler.clone(), shown(kept))).collect()
    }

    pub(super) fn forget(&mut self, handler: &HandlerName) {
        self.0.remove(handler);
    }

    pub(super) fn redate(&mut self, redate: &Redate) {
        self.0.values_mut().flatten().for_each(|(module, _)| module.time = redate.time(module.time));
    }
}
