//! From a file, from a version that was kept, or from the log, to code that is ready to run.

use super::store::{InForce, Store, StoreError, Version};
use crate::blocking::blocking;
use crate::clock::Timestamp;
use crate::handler::{Digest, HandlerName};
use crate::invoke::{Failure, Invoke};
use crate::log::{Log, LogError};
use crate::sandbox::{self, MODULE_BYTES_MAX, Sandboxes};
use crate::watch::Fingerprint;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a handler cannot run its module.
#[derive(Debug, thiserror::Error)]
#[error("failed to load handler `{handler}` from `{}`", path.display())]
pub struct LoadError {
    pub handler: HandlerName,
    pub path: PathBuf,
    #[source]
    pub reason: Reason,
}

/// Which step failed.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    #[error("the module cannot be read: build it first (`sluicebox build` builds a folder of handlers)")]
    Read(#[source] io::Error),
    #[error("the module has more than {MODULE_BYTES_MAX} bytes")]
    TooLarge,
    #[error(transparent)]
    Kept(#[from] StoreError),
    #[error(transparent)]
    Load(#[from] sandbox::LoadError),
    #[error("it cannot be started")]
    Start(#[source] Failure),
    #[error("neither this host nor the log has it: deploy it, or go to another version")]
    Nowhere,
    #[error("it cannot be had from the log")]
    Log(#[source] LogError),
}

impl Reason {
    /// Whether it may be otherwise later although nothing changes on this host.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Nowhere | Self::Log(_))
    }
}

/// A module in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InFile {
    pub(super) fingerprint: Fingerprint,
    pub(super) digest: Digest,
}

/// Makes bytes run. Everything that blocks is done on threads for it.
pub(super) struct Loader {
    sandboxes: Sandboxes,
    store: Arc<Store>,
    log: Arc<dyn Log>,
}

impl Loader {
    pub(super) fn new(sandboxes: Sandboxes, store: Store, log: Arc<dyn Log>) -> Self {
        Self { sandboxes, store: Arc::new(store), log }
    }

    /// Which version the file holds; read only if it looks otherwise than `known`.
    pub(super) async fn look(&self, path: &Path, known: Option<&InFile>) -> Result<InFile, Reason> {
        let (path, known) = (path.to_owned(), known.cloned());
        blocking(move || {
            let now = std::fs::metadata(&path).map_err(Reason::Read)?;
            match known.filter(|known| known.fingerprint == Fingerprint::of(&now)) {
                Some(known) => Ok(known),
                None => read(&path).map(|(file, _)| file),
            }
        })
        .await
    }

    /// The version that the file holds now, which is kept as one to go back to.
    pub(super) async fn load_file(
        &self,
        path: &Path,
        guest: sandbox::Settings,
    ) -> Result<(InFile, Arc<dyn Invoke>), Reason> {
        let path = path.to_owned();
        let (sandboxes, store) = (self.sandboxes.clone(), self.store.clone());
        let loaded = blocking(move || {
            let (file, bytes, handler) = linked(&sandboxes, &path, guest)?;
            if let Err(error) = store.keep(file.digest, &bytes) {
                tracing::warn!(digest = %file.digest, %error, "cannot keep a module version: there will be no way back to it");
            }
            Ok::<_, Reason>((file, handler))
        });
        let (file, handler) = loaded.await?;
        handler.try_out().await.map_err(Reason::Start)?;
        Ok((file, Arc::new(handler)))
    }

    /// A version that was in force before, or that was deployed.
    pub(super) async fn load_version(
        &self,
        handler: &HandlerName,
        digest: Digest,
        guest: sandbox::Settings,
    ) -> Result<Arc<dyn Invoke>, Reason> {
        let bytes = self.bytes_of(handler, digest).await?;
        let sandboxes = self.sandboxes.clone();
        let loaded = blocking(move || Ok::<_, Reason>(sandboxes.handler(&sandboxes.load(&bytes)?, guest)?));
        let handler = loaded.await?;
        handler.try_out().await.map_err(Reason::Start)?;
        Ok(Arc::new(handler))
    }

    /// From this host's disk, or else from the log; then it is on the disk too.
    async fn bytes_of(&self, handler: &HandlerName, digest: Digest) -> Result<Bytes, Reason> {
        let store = self.store.clone();
        let absent = match blocking(move || store.read(digest)).await {
            Ok(bytes) => return Ok(bytes.into()),
            Err(StoreError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Reason::Nowhere,
            Err(error) => error.into(),
        };
        let found = self.log.module(handler.clone(), digest).await.map_err(Reason::Log)?;
        let bytes = found.ok_or(absent)?;
        let (store, kept) = (self.store.clone(), bytes.clone());
        if let Err(error) = blocking(move || store.keep(digest, &kept)).await {
            tracing::warn!(%digest, %error, "cannot keep a deployed module: it is read from the log again at the next start");
        }
        Ok(bytes)
    }

    /// Compiles, links and tries a module out, and keeps nothing of it but what was compiled.
    pub(super) async fn try_bytes(&self, module: Bytes, guest: sandbox::Settings) -> Result<(), Reason> {
        let sandboxes = self.sandboxes.clone();
        let loaded = blocking(move || Ok::<_, Reason>(sandboxes.handler(&sandboxes.load(&module)?, guest)?));
        loaded.await?.try_out().await.map_err(Reason::Start)
    }

    /// Notes what is in force. A failure costs the way back, not the way on: it is only told.
    pub(super) async fn note(&self, in_force: BTreeMap<HandlerName, InForce>, now: Timestamp) {
        let store = self.store.clone();
        if let Err(error) = blocking(move || store.note(&in_force, now)).await {
            tracing::warn!(%error, "cannot note which module versions are in force");
        }
    }

    pub(super) async fn forget(&self, handler: HandlerName) -> io::Result<()> {
        let store = self.store.clone();
        blocking(move || store.forget(&handler)).await
    }

    pub(super) fn versions(&self, handler: &HandlerName) -> Vec<Version> {
        self.store.versions(handler)
    }
}

/// Reads a module. It looked so before it was read: if it changes meanwhile it looks different afterwards.
/// Reads, compiles, links and tries out a module, and keeps nothing of it.
pub(super) async fn try_file(sandboxes: &Sandboxes, path: &Path, guest: sandbox::Settings) -> Result<Digest, Reason> {
    let (sandboxes, path) = (sandboxes.clone(), path.to_owned());
    let (file, _, handler) = blocking(move || linked(&sandboxes, &path, guest)).await?;
    handler.try_out().await.map_err(Reason::Start)?;
    Ok(file.digest)
}

fn linked(
    sandboxes: &Sandboxes,
    path: &Path,
    guest: sandbox::Settings,
) -> Result<(InFile, Vec<u8>, sandbox::Handler), Reason> {
    let (file, bytes) = read(path)?;
    let handler = sandboxes.handler(&sandboxes.load(&bytes)?, guest)?;
    Ok((file, bytes, handler))
}

fn read(path: &Path) -> Result<(InFile, Vec<u8>), Reason> {
    let file = File::open(path).map_err(Reason::Read)?;
    let fingerprint = Fingerprint::of(&file.metadata().map_err(Reason::Read)?);
    let mut bytes = vec![];
    file.take(MODULE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(Reason::Read)?;
    if bytes.len() > MODULE_BYTES_MAX {
        return Err(Reason::TooLarge);
    }
    Ok((InFile { fingerprint, digest: Digest::of(&bytes) }, bytes))
}
