//! Opens a log on Redis as the settings say, and the host's own directory beside it.

use super::StartError;
use super::host_clock;
use super::host_data::HostData;
use crate::blocking::blocking;
use crate::config::{LogSettings, RedisLogin, Settings};
use crate::host::Natives;
use crate::log::redis::{Login, Options, RedisLog};
use crate::log::{Log, LogError};
use std::sync::Arc;

pub(super) async fn open(settings: &Settings) -> Result<(Arc<dyn Log>, HostData, Natives), StartError> {
    let LogSettings::Redis { url, login, ca_file, .. } = &settings.log else {
        let source = LogError::Refused { reason: "the settings name another kind of log".into() };
        return Err(StartError::OnServer { url: String::new(), namespace: settings.namespace.to_string(), source });
    };
    let namespace = settings.namespace.to_string();
    let data = settings.host.data.clone();
    // Before the log: a directory that another host uses is a mistake in the settings, and says so.
    let host_data = blocking(move || HostData::open(&data, &data.join("log"))).await?;
    let options = Options {
        login: match login.clone() {
            RedisLogin::None => Login::None,
            RedisLogin::Password(password) => Login::Password(password.expose().into()),
            RedisLogin::User { user, password } => Login::User { user, password: password.expose().into() },
        },
        ca_file: ca_file.clone(),
        ..Options::new(url.as_str(), namespace.as_str())
    };
    let failed = |source| StartError::OnServer { url: url.clone(), namespace: namespace.clone(), source };
    let log = RedisLog::open(options).await.map_err(failed)?;
    host_clock::begin_with(log.time().await.map_err(failed)?);
    Ok((Arc::new(log), host_data, Natives::new(settings.host.delayed)))
}
