//! Opens a log on Redis as the settings say, and the host's own directory beside it.

use super::StartError;
use super::host_data::HostData;
use crate::blocking::blocking;
use crate::config::{LogSettings, RedisLogin, Settings};
use crate::host::Natives;
use crate::log::redis::{Login, Options, RedisLog};
use crate::log::{Log, LogError};
use std::sync::Arc;

pub(super) async fn open(settings: &Settings) -> Result<(Arc<dyn Log>, HostData, Natives), StartError> {
    let namespace = settings.namespace.to_string();
    let (LogSettings::Redis { url, .. }, Some(options)) = (&settings.log, options(settings)) else {
        let source = LogError::Refused { reason: "the settings name another kind of log".into() };
        return Err(StartError::OnServer { url: String::new(), namespace, source });
    };
    let data = settings.host.data.clone();
    // Before the log: a directory that another host uses is a mistake in the settings, and says so.
    let host_data = blocking(move || HostData::open(&data, &data.join("log"))).await?;
    let log = RedisLog::open(options).await;
    let log = log.map_err(|source| StartError::OnServer { url: url.clone(), namespace, source })?;
    Ok((Arc::new(log), host_data, Natives::new(settings.host.delayed)))
}

/// How the settings say to connect; `None`: they name another kind of log.
pub fn options(settings: &Settings) -> Option<Options> {
    let LogSettings::Redis { url, login, ca_file, .. } = &settings.log else { return None };
    let login = match login.clone() {
        RedisLogin::None => Login::None,
        RedisLogin::Password(password) => Login::Password(password.expose().into()),
        RedisLogin::User { user, password } => Login::User { user, password: password.expose().into() },
    };
    Some(Options { login, ca_file: ca_file.clone(), ..Options::new(url.as_str(), settings.namespace.as_str()) })
}
