//! Looks at the data itself when no host runs: read-only, so it is safe even if one runs after all.

use super::client::{Client, HostArgs};
use super::failure::{Exit, Failure};
use super::output::note;
use crate::config::{self, Loaded, LogSettings, Overrides};
use crate::log::embedded::EmbeddedLog;
use clap::Args;
use std::path::{Path, PathBuf};

/// Where the data is.
#[derive(Clone, Debug, Args)]
pub(super) struct DataArgs {
    /// The settings file, which says where the data is when no host runs
    #[arg(long, short, value_name = "FILE", env = "SLUICEBOX_CONFIG", default_value = config::FILE_NAME)]
    config: PathBuf,
    /// The data directory to look at when no host runs
    #[arg(long, value_name = "DIR", env = "SLUICEBOX_DATA")]
    data: Option<PathBuf>,
}

/// The data of a host that does not run.
pub(super) struct Data {
    pub(super) log: EmbeddedLog,
    pub(super) namespace: Option<String>,
}

/// Asks the running host or, when none was named and none runs, reads the data.
pub(super) fn look<T>(
    host: &HostArgs,
    data: &DataArgs,
    ask: impl FnOnce(&Client) -> Result<T, Failure>,
    read: impl AsyncFnOnce(&Data) -> Result<T, Failure>,
) -> Result<T, Failure> {
    match ask(&Client::new(host)?) {
        Err(failure) if failure.exit == Exit::Unreachable && !host.is_named() => match Data::open(data)? {
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
            let LogSettings::Embedded { path, .. } = settings.log;
            Ok((path, settings.host.data))
        }
        // Settings that are wrong elsewhere, or none at all, do not matter while the directory is named.
        (Err(_), Some(data)) => Ok((data.to_owned(), data.to_owned())),
        (Err(problems), None) => Err(Failure::new(Exit::BadSettings, problems)),
    }
}

impl Data {
    /// `None`: there is no data.
    fn open(args: &DataArgs) -> Result<Option<Self>, Failure> {
        // Settings that are wrong elsewhere, or none at all, do not matter while the directory is named.
        let settings = config::load(&args.config, &Overrides::default()).ok().map(|loaded| loaded.settings);
        let from_settings = settings.as_ref().map(|settings| match &settings.log {
            LogSettings::Embedded { path, .. } => path.clone(),
        });
        let Some(directory) = args.data.clone().or(from_settings).filter(|directory| directory.is_dir()) else {
            return Ok(None);
        };
        let log = EmbeddedLog::open_read_only(&directory).map_err(|error| {
            anyhow::Error::new(error).context(format!("failed to read the log in `{}`", directory.display()))
        })?;
        note(format!("no host runs: reading {}", directory.display()));
        Ok(Some(Self { log, namespace: settings.map(|settings| settings.namespace.to_string()) }))
    }
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
    fn status(exit: Exit, url: Option<&str>, data: &DataArgs) -> Result<StatusView, Failure> {
        let unreachable = |_: &Client| Err(Failure::new(exit, anyhow::anyhow!("no answer")));
        let host = HostArgs::to(url);
        look(&host, data, unreachable, async |data| {
            Ok(StatusView::of(&data.log, data.namespace.as_deref(), None).await?)
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
        let by_settings = DataArgs { config, data: None };
        let shown = status(Exit::Unreachable, None, &by_settings).unwrap();
        assert_eq!((shown.namespace.as_deref(), shown.log.end), (Some("shop"), end.0));
        let by_name = DataArgs { config: "gone".into(), data: Some(directory.path().join("data")) };
        let shown = status(Exit::Unreachable, None, &by_name).unwrap();
        assert_eq!((shown.namespace, shown.log.end), (None, end.0));
    }

    #[test]
    fn a_named_host_a_refusal_and_missing_data_are_not_replaced_by_the_data() {
        let directory = tempfile::tempdir().unwrap();
        filled(directory.path());
        let data = DataArgs { config: "gone".into(), data: Some(directory.path().into()) };
        assert_eq!(status(Exit::Unreachable, Some("http://127.0.0.1:9"), &data).unwrap_err().exit, Exit::Unreachable);
        assert_eq!(status(Exit::Failed, None, &data).unwrap_err().exit, Exit::Failed);
        let none = DataArgs { config: "gone".into(), data: Some(directory.path().join("gone")) };
        assert_eq!(status(Exit::Unreachable, None, &none).unwrap_err().exit, Exit::Unreachable);
    }
}
