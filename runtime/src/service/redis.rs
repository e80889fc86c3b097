//! Opens a log on Redis as the settings say, and the host's own directory beside it.

use super::StartError;
use super::host_clock;
use super::host_data::HostData;
use crate::blocking::blocking;
use crate::config::{LogSettings, RedisLogin, Settings};
use crate::host::Natives;
use crate::ingress::Intake;
use crate::log::redis::edges::{self, RedisSink, RedisSource};
use crate::log::redis::{Login, Options, RedisLog};
use crate::log::{Log, LogError};
use crate::telemetry::Metrics;
use std::sync::Arc;

/// Beside them, the host's handlers for plain clients; where these send something in, who takes it up.
pub(super) async fn open(
    settings: &Settings,
    metrics: &Metrics,
) -> Result<(Arc<dyn Log>, HostData, Natives, Option<Arc<Intake>>), StartError> {
    let namespace = settings.namespace.to_string();
    let (LogSettings::Redis { url, edges, .. }, Some(options)) = (&settings.log, options(settings)) else {
        let source = LogError::Refused { reason: "the settings name another kind of log".into() };
        return Err(StartError::OnServer { url: String::new(), namespace, source });
    };
    let data = settings.host.data.clone();
    // Before the log: a directory that another host uses is a mistake in the settings, and says so.
    let host_data = blocking(move || HostData::open(&data, &data.join("log"))).await?;
    let failed = |source| StartError::OnServer { url: url.clone(), namespace: namespace.clone(), source };
    let log = RedisLog::open(options).await.map_err(failed)?;
    host_clock::begin_with(log.time().await.map_err(failed)?, &settings.host);
    let mut natives = Natives::new(settings.host.delayed);
    let mut intake = None;
    if !edges.egress.is_empty() {
        natives = natives.with_egress(edges.egress.clone(), Arc::new(RedisSink::beside(&log)));
    }
    if !edges.ingress.is_empty() || !edges.channels.is_empty() {
        let source = RedisSource::beside(&log, &edges.ingress, &edges.channels);
        let taking = Arc::new(Intake::new(Arc::new(source), metrics.ingress()));
        natives = natives.with_intake(taking.clone());
        intake = Some(taking);
    }
    tracing::info!("{}", edges::rights(&namespace));
    Ok((Arc::new(log), host_data, natives, intake))
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
