//! Looks at the data itself when no host runs: read-only, so it is safe even if one runs after all.

use super::client::{Client, HostArgs};
use super::failure::{Exit, Failure};
use super::output::note;
use crate::config::{self, Loaded, LogSettings, Overrides, ShowState};
use crate::handler::HandlerName;
use crate::log::embedded::EmbeddedLog;
use clap::Args;
use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Where the data is.
#[derive(Clone, Debug, Args)]
pub(super) struct DataArgs {
    /// The data directory to look at when no host runs
    #[arg(long, value_name = "DIR", env = "SLUICEBOX_DATA")]
    data: Option<PathBuf>,
}

/// The data of a host that does not run.
pub(super) struct Data {
    pub(super) log: EmbeddedLog,
    pub(super) namespace: Option<String>,
    /// What the settings let be shown of handlers' state.
    show_state: HashMap<HandlerName, ShowState>,
    /// Why the host was not asked.
    pub(super) not_asked: String,
}

/// Asks the running host or, when none was named and none runs, reads the data.
pub(super) fn look<T>(
    host: &HostArgs,
    data: &DataArgs,
    ask: impl FnOnce(&Client) -> Result<T, Failure>,
    read: impl AsyncFnOnce(&Data) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let client = Client::new(host)?;
    match ask(&client) {
        Err(failure) if failure.exit == Exit::Unreachable && !host.is_named() => match Data::open(host, data, &client)?
        {
            Some(data) => tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(read(&data)),
            // How to reach a host is what helps then.
            None => Err(failure),
        },
        result => result,
    }
}

/// The directories of the log and of what is the host's own that a settings file names; `data` stands above the log's.
pub(super) fn of_settings(config: &Path, data: Option<&Path>) -> Result<(PathBuf, PathBuf), Failure> {
    let overrides = Overrides { data: data.map(Path::to_owned), ..Overrides::default() };
    match (config::load(config, &overrides), data) {
        (Ok(Loaded { settings, .. }), _) => {
            let LogSettings::Embedded { path, .. } = settings.log else {
                let file = config.display();
                return Err(Failure::usage(format!(
                    "the log that `{file}` names is not in a directory: back it up where it is, with `nats stream backup`, or by a \
                     copy of what the Redis server keeps"
                )));
            };
            Ok((path, settings.host.data))
        }
        // Settings that are wrong elsewhere, or none at all, do not matter while the directory is named.
        (Err(_), Some(data)) => Ok((data.to_owned(), data.to_owned())),
        (Err(problems), None) => Err(Failure::new(Exit::BadSettings, problems)),
    }
}

impl Data {
    /// What the settings let be shown of a handler's state; `None`: they do not name it, or there are none.
    pub(super) fn show_state(&self, handler: &HandlerName) -> Option<ShowState> {
        self.show_state.get(handler).copied()
    }

    /// `None`: there is no data.
    fn open(host: &HostArgs, args: &DataArgs, client: &Client) -> Result<Option<Self>, Failure> {
        // Settings that are wrong elsewhere, or none at all, do not matter while the directory is named.
        let settings = config::load(&host.config(), &Overrides::default()).ok().map(|loaded| loaded.settings);
        let from_settings = settings.as_ref().and_then(|settings| match &settings.log {
            LogSettings::Embedded { path, .. } => Some(path.clone()),
            // Only a host looks at it.
            LogSettings::Nats { .. } | LogSettings::Redis { .. } => None,
        });
        let Some(directory) = args.data.clone().or(from_settings).filter(|directory| directory.is_dir()) else {
            return Ok(None);
        };
        let log = EmbeddedLog::open_read_only(&directory).map_err(|error| {
            anyhow::Error::new(error).context(format!("failed to read the log in `{}`", directory.display()))
        })?;
        let not_asked = match holder(&directory) {
            None => "no host runs".to_owned(),
            Some(holder) => {
                format!("a host runs ({holder}) that does not answer at {}: name it with --url", client.url())
            }
        };
        note(format!("{not_asked}: reading {}", directory.display()));
        let namespace = settings.as_ref().map(|settings| settings.namespace.to_string());
        let handlers = settings.into_iter().flat_map(|settings| settings.handlers);
        let show_state = handlers.map(|handler| (handler.name, handler.show_state)).collect();
        Ok(Some(Self { log, namespace, show_state, not_asked }))
    }
}

/// Who works on the data.
fn holder(directory: &Path) -> Option<String> {
    let mut file = File::open(directory.join("lock")).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {}
        // Let go with the file, at once.
        Ok(()) | Err(TryLockError::Error(_)) => return None,
    }
    let mut pid = String::new();
    // The holder writes it after it took the lock, so it may not be there yet.
    let read = file.by_ref().take(32).read_to_string(&mut pid);
    let pid = read.ok().map(|_| pid.trim()).filter(|pid| !pid.is_empty());
    Some(pid.map_or_else(|| "another process".into(), |pid| format!("process {pid}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::views::StatusView;
    use crate::log::Log as _;
    use crate::log::embedded::Options;
    use crate::message::{NewMessage, Offset};
    use crate::topic::Topic;

    /// What `status` would show when asking fails with `exit`.
    fn status(exit: Exit, host: &HostArgs, data: Option<&Path>) -> Result<StatusView, Failure> {
        let unreachable = |_: &Client| Err(Failure::new(exit, anyhow::anyhow!("no answer")));
        look(host, &DataArgs { data: data.map(Into::into) }, unreachable, async |data| {
            Ok(StatusView::of(&data.log, data.namespace.as_deref(), Some(data.not_asked.clone()), None).await?)
        })
    }

    fn filled(directory: &std::path::Path) -> Offset {
        let log = EmbeddedLog::open(directory, Options::default()).unwrap();
        let message = NewMessage::new(Topic::parse("a").unwrap(), "x");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(log.append(vec![message])).unwrap()[0]
    }

    #[test]
    fn without_a_host_the_data_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let end = filled(&directory.path().join("data"));
        let config = directory.path().join(config::FILE_NAME);
        std::fs::write(&config, "namespace = \"shop\"\n").unwrap();
        let shown = status(Exit::Unreachable, &HostArgs::of(&config), None).unwrap();
        assert_eq!((shown.namespace.as_deref(), shown.log.end), (Some("shop"), end.0));
        assert_eq!(shown.not_ready.as_deref(), Some("no host runs"));
        let shown = status(Exit::Unreachable, &HostArgs::to(None), Some(&directory.path().join("data"))).unwrap();
        assert_eq!((shown.namespace, shown.log.end), (None, end.0));
    }

    #[test]
    fn a_host_that_holds_the_data_runs_although_it_does_not_answer() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let _held = EmbeddedLog::open(&data, Options::default()).unwrap();
        let shown = status(Exit::Unreachable, &HostArgs::to(None), Some(&data)).unwrap();
        let expected = format!("a host runs (process {}) that does not answer at ", std::process::id());
        assert!(shown.not_ready.as_ref().unwrap().starts_with(&expected), "{:?}", shown.not_ready);
    }

    #[test]
    fn a_named_host_a_refusal_and_missing_data_are_not_replaced_by_the_data() {
        let directory = tempfile::tempdir().unwrap();
        filled(directory.path());
        let exit = |exit, url, data: &Path| status(exit, &HostArgs::to(url), Some(data)).unwrap_err().exit;
        assert_eq!(exit(Exit::Unreachable, Some("http://127.0.0.1:9"), directory.path()), Exit::Unreachable);
        assert_eq!(exit(Exit::Failed, None, directory.path()), Exit::Failed);
        assert_eq!(exit(Exit::Unreachable, None, &directory.path().join("gone")), Exit::Unreachable);
    }
}
