//! Deployed modules: the engine keeps them beside the entries, by name, since no order among entries matters to them. What a
//! handler had is out of sight once an entry says that it was forgotten, as with its state.

use super::engine::Engine;
use super::shared::{Shared, unreadable};
use crate::error::LogError;
use crate::frame::{FrameError, Reader, Writer};
use crate::modules::{self, Modules, StoredModule, surplus, verified};
use crate::portable::Module;
use bytes::Bytes;
use sluicebox_core::clock::{self, Timestamp};
use sluicebox_core::handler::{Digest, HandlerName};
use std::collections::BTreeMap;

const VERSION: u8 = 1;

/// What is said of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    /// Orders the modules of a handler. Two hosts that put one at the same time may give the same.
    number: u64,
    /// The entry up to which the host that put it knew the log: it is a module of whichever handler had the name then.
    since: u64,
    time: Timestamp,
    bytes: u64,
}

impl Said {
    fn encode(&self) -> Bytes {
        let mut writer = Writer::default();
        writer.byte(VERSION);
        [self.number, self.since, self.time.0, self.bytes].into_iter().for_each(|number| writer.number(number));
        writer.finish()
    }

    fn decode(bytes: Bytes) -> Result<Self, FrameError> {
        let mut reader = Reader::new(bytes);
        match reader.byte()? {
            VERSION => {}
            version => return Err(FrameError::Version { version }),
        }
        let (number, since, time) = (reader.number()?, reader.number()?, Timestamp(reader.number()?));
        Ok(Self { number, since, time, bytes: reader.number()? })
    }
}

/// All modules that the engine has, by handler and then by number; those of forgotten handlers too.
async fn kept<E: Engine>(shared: &Shared<E>) -> Result<BTreeMap<HandlerName, Vec<(Digest, Said)>>, LogError> {
    let mut kept = BTreeMap::<HandlerName, Vec<(Digest, Said)>>::new();
    for (handler, digest, said) in shared.engine.modules().await? {
        kept.entry(handler).or_default().push((digest, Said::decode(said).map_err(unreadable)?));
    }
    kept.values_mut().for_each(|kept| kept.sort_by_key(|(digest, said)| (said.number, said.time, *digest)));
    Ok(kept)
}

impl<E: Engine> Shared<E> {
    fn has_module(&self, handler: &HandlerName, said: &Said) -> bool {
        said.since >= self.replica().forgotten_before(handler)
    }
}

pub(super) async fn put<E: Engine>(
    shared: &Shared<E>,
    handler: HandlerName,
    module: Bytes,
    needed: &[Digest],
) -> Result<Digest, LogError> {
    modules::check(&module)?;
    shared.engine.reachable()?;
    let digest = Digest::of(&module);
    let mut kept = kept(shared).await?.remove(&handler).unwrap_or_default();
    kept.retain(|(_, said)| shared.has_module(&handler, said));
    let number = kept.last().map_or(0, |(_, said)| said.number) + 1;
    let since = shared.replica().applied;
    let said = Said { number, since, time: clock::now(), bytes: module.len() as u64 };
    shared.engine.put_module(&handler, digest, said.encode(), module).await?;
    let others = kept.iter().map(|(digest, _)| *digest).filter(|other| *other != digest);
    let digests: Vec<Digest> = others.chain([digest]).collect();
    for digest in surplus(&digests, needed) {
        shared.engine.drop_module(&handler, digest).await?;
    }
    Ok(digest)
}

/// Keeps a module that was brought along, as the newest of its handler, with the time that it had.
pub(super) async fn restore<E: Engine>(shared: &Shared<E>, module: Module) -> Result<(), LogError> {
    let Module { handler, time, bytes } = module;
    modules::check(&bytes)?;
    let kept = kept(shared).await?.remove(&handler).unwrap_or_default();
    let number = kept.last().map_or(0, |(_, said)| said.number) + 1;
    let said = Said { number, since: shared.replica().applied, time, bytes: bytes.len() as u64 };
    shared.engine.put_module(&handler, Digest::of(&bytes), said.encode(), bytes).await
}

pub(super) async fn get<E: Engine>(
    shared: &Shared<E>,
    handler: HandlerName,
    digest: Digest,
) -> Result<Option<Bytes>, LogError> {
    let module = shared.engine.module(&handler, digest).await?;
    module.map(|module| verified(&handler, digest, module)).transpose()
}

pub(super) async fn all<E: Engine>(shared: &Shared<E>) -> Result<Modules, LogError> {
    let mut all = Modules::new();
    for (handler, kept) in kept(shared).await? {
        let in_sight = kept.into_iter().filter(|(_, said)| shared.has_module(&handler, said));
        let stored = in_sight.map(|(digest, said)| StoredModule { digest, time: said.time, bytes: said.bytes });
        let stored: Vec<StoredModule> = stored.collect();
        if !stored.is_empty() {
            all.insert(handler, stored);
        }
    }
    Ok(all)
}

/// Deletes what a handler had that was forgotten.
pub(super) async fn drop_forgotten<E: Engine>(shared: &Shared<E>, handler: &HandlerName) -> Result<(), LogError> {
    for (digest, said) in kept(shared).await?.remove(handler).unwrap_or_default() {
        if !shared.has_module(handler, &said) {
            shared.engine.drop_module(handler, digest).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_module_comes_back_and_is_an_error_when_it_was_cut() {
        let said = Said { number: 3, since: 1 << 40, time: Timestamp(5), bytes: 70_000 };
        let encoded = said.encode();
        assert_eq!(Said::decode(encoded.clone()), Ok(said));
        assert!((0..encoded.len()).all(|end| Said::decode(encoded.slice(..end)).is_err()));
    }
}
