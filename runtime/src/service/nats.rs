//! Opens a log on NATS as the settings say, and the host's own directory beside it.

use super::StartError;
use super::host_clock;
use super::host_data::HostData;
use crate::blocking::blocking;
use crate::config::{LogSettings, NatsLogin, Settings};
use crate::host::Natives;
use crate::ingress::Intake;
use crate::log::nats::edges::{self, NatsSink, NatsSource};
use crate::log::nats::{Login, NatsLog, Options};
use crate::log::{Log, LogError};
use crate::telemetry::Metrics;
use std::sync::Arc;

/// Beside them, the host's handlers for plain clients; where these send something in, who takes it up.
pub(super) async fn open(
    settings: &Settings,
    metrics: &Metrics,
) -> Result<(Arc<dyn Log>, HostData, Natives, Option<Arc<Intake>>), StartError> {
    let namespace = settings.namespace.to_string();
    let (LogSettings::Nats { url, edges, .. }, Some(options)) = (&settings.log, options(settings)) else {
        let source = LogError::Refused { reason: "the settings name another kind of log".into() };
        return Err(StartError::OnServer { url: String::new(), namespace, source });
    };
    let data = settings.host.data.clone();
    // Before the log: a directory that another host uses is a mistake in the settings, and says so.
    let host_data = blocking(move || HostData::open(&data, &data.join("log"))).await?;
    let failed = |source| StartError::OnServer { url: url.clone(), namespace: namespace.clone(), source };
    let log = NatsLog::open(options.clone()).await.map_err(failed)?;
    host_clock::begin_with(log.time().await.map_err(failed)?, &settings.host);
    let mut natives = Natives::new(settings.host.delayed);
    let mut intake = None;
    if !edges.egress.is_empty() {
        let sink = NatsSink::open(&options).await.map_err(failed)?;
        natives = natives.with_egress(edges.egress.clone(), Arc::new(sink));
    }
    if !edges.ingress.is_empty() {
        let source = NatsSource::open(&options).await.map_err(failed)?;
        let taking = Arc::new(Intake::new(Arc::new(source), metrics.ingress()));
        natives = natives.with_intake(taking.clone());
        intake = Some(taking);
    }
    tracing::info!("{}", edges::permissions(&namespace));
    Ok((Arc::new(log), host_data, natives, intake))
}

/// How the settings say to connect; `None`: they name another kind of log.
pub fn options(settings: &Settings) -> Option<Options> {
    let LogSettings::Nats { url, login, ca_file, replicas, edges, .. } = &settings.log else { return None };
    let login = match login.clone() {
        NatsLogin::None => Login::None,
        NatsLogin::Credentials(text) => Login::Credentials(text.expose().into()),
        NatsLogin::Token(text) => Login::Token(text.expose().into()),
        NatsLogin::Nkey(text) => Login::Nkey(text.expose().into()),
        NatsLogin::User { user, password } => Login::User { user, password: password.expose().into() },
    };
    Some(Options {
        login,
        ca_file: ca_file.clone(),
        replicas: *replicas,
        ingress: edges.ingress.clone(),
        egress: edges.egress.clone(),
        ..Options::new(url.as_str(), settings.namespace.as_str())
    })
}
