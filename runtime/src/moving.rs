//! Moves a whole log to another place or another kind of log, while no host works on either: what [`crate::log::portable`]
//! does with a log, done with those that settings name.

use crate::blocking::blocking;
use crate::config::{LogSettings, Settings};
use crate::handler::{Digest, HandlerName};
use crate::log::embedded::{EmbeddedLog, Options};
use crate::log::nats::NatsLog;
use crate::log::portable::{self, End, ExportError, Piece, Restore};
use crate::log::redis::RedisLog;
use crate::log::{Log, LogError, Member, Members};
use crate::message::Offset;
use crate::registry::version_in;
use crate::service::{nats_options, redis_options, versions};
use bytes::Bytes;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Why a log is not moved.
#[derive(Debug, thiserror::Error)]
pub enum MovingError {
    #[error("there is no log in `{}`, so there is nothing to export", path.display())]
    NoLog { path: PathBuf },
    #[error(
        "the log of `{namespace}` at {url} is empty, so there is nothing to export: is this the namespace that was meant?"
    )]
    Empty { url: String, namespace: String },
    #[error("failed to open the log in `{}`", path.display())]
    Directory { path: PathBuf, source: LogError },
    #[error("failed to make a log in `{}`", path.display())]
    Destination { path: PathBuf, source: LogError },
    #[error("failed to open the log of `{namespace}` at {url}")]
    Server { url: String, namespace: String, source: LogError },
    #[error("host `{name}` ({address}) works on the log: stop every host with Ctrl-C or SIGTERM first")]
    InUse { name: String, address: String },
    #[error(transparent)]
    Export(#[from] ExportError),
}

/// A log that no host works on.
pub struct Source {
    log: Arc<dyn Log>,
    /// Where this host keeps versions of modules, which operators may have pinned.
    versions: PathBuf,
}

impl Source {
    /// Opens the log that the settings name. On a server it listens for a lease whether a host works on it.
    pub async fn open(settings: &Settings) -> Result<Self, MovingError> {
        let log: Arc<dyn Log> = match &settings.log {
            LogSettings::Embedded { path, .. } => {
                let path = path.clone();
                if !path.join("sluicebox.db").exists() {
                    return Err(MovingError::NoLog { path });
                }
                // Nothing of what is written is dated.
                let opened = blocking({
                    let path = path.clone();
                    move || EmbeddedLog::open(&path, Options::default())
                });
                Arc::new(opened.await.map_err(|source| MovingError::Directory { path, source })?)
            }
            LogSettings::Nats { url, .. } => {
                let options = nats_options(settings).expect("the settings name such a log");
                Arc::new(NatsLog::open(options).await.map_err(|source| server(settings, url, source))?)
            }
            LogSettings::Redis { url, .. } => {
                let options = redis_options(settings).expect("the settings name such a log");
                Arc::new(RedisLog::open(options).await.map_err(|source| server(settings, url, source))?)
            }
        };
        let members = log.guarantees().several_hosts.then(|| log.members());
        alone(members, settings.host.lease).await?;
        if let LogSettings::Nats { url, .. } | LogSettings::Redis { url, .. } = &settings.log {
            let is_empty = is_empty(&*log).await.map_err(|source| server(settings, url, source))?;
            if is_empty {
                return Err(MovingError::Empty { url: url.clone(), namespace: settings.namespace.to_string() });
            }
        }
        Ok(Self { log, versions: versions(&settings.host.data) })
    }

    /// Hands out every piece but the last, which it returns. Messages before `from` are left out unless a shard needs them.
    pub async fn export(
        &self,
        from: Offset,
        put: &mut (dyn FnMut(Piece) -> io::Result<()> + Send),
    ) -> Result<End, MovingError> {
        let version_of = |_: &HandlerName, digest: Digest| version_in(&self.versions, digest).map(Bytes::from);
        Ok(portable::export(&*self.log, from, &version_of, put).await?)
    }
}

/// The empty place that the settings name. On a server it listens for a lease whether a host works there.
pub async fn destination(settings: &Settings) -> Result<Box<dyn Restore>, MovingError> {
    let restore = match &settings.log {
        LogSettings::Embedded { path, .. } => {
            let opened = blocking({
                let path = path.clone();
                move || EmbeddedLog::restore(&path)
            });
            opened.await.map_err(|source| MovingError::Destination { path: path.clone(), source })?
        }
        LogSettings::Nats { url, .. } => {
            let options = nats_options(settings).expect("the settings name such a log");
            NatsLog::restore(options).await.map_err(|source| server(settings, url, source))?
        }
        LogSettings::Redis { url, .. } => {
            let options = redis_options(settings).expect("the settings name such a log");
            RedisLog::restore(options).await.map_err(|source| server(settings, url, source))?
        }
    };
    alone(restore.members(), settings.host.lease).await?;
    Ok(restore)
}

/// Whether no host ever worked on it: a server's log is there as soon as it is looked at.
async fn is_empty(log: &dyn Log) -> Result<bool, LogError> {
    let is_bare = log.routings().await?.routings.is_empty() && log.status().await?.is_empty();
    Ok(is_bare && log.end().await? == Offset::START)
}

fn server(settings: &Settings, url: &str, source: LogError) -> MovingError {
    MovingError::Server { url: url.to_owned(), namespace: settings.namespace.to_string(), source }
}

/// An error if a host is heard within a lease: one that lives tells it five times.
async fn alone(members: Option<&Members>, lease: Duration) -> Result<(), MovingError> {
    let Some(members) = members else { return Ok(()) };
    let mut changes = members.changes();
    let heard = async {
        loop {
            if let Some(member) = members.list().into_iter().next() {
                return member;
            }
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    };
    match tokio::time::timeout(lease, heard).await {
        // Safe to cancel: it only listens.
        Err(_) => Ok(()),
        Ok(Member { beat, .. }) => Err(MovingError::InUse { name: beat.name.clone(), address: beat.address.clone() }),
    }
}
