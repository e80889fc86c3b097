//! `sluicebox run`: the host, until it is told to stop.

use super::failure::{Exit, Failure};
use super::output::{Output, note};
use super::settings::SettingsArgs;
use crate::config::{Loaded, Overrides};
use crate::service::{Service, Source};
use crate::telemetry::Metrics;
use clap::Args;
use serde_json::json;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// Run the host with the handlers of a settings file.
///
/// Changes of the file and of the modules and secrets that it names are taken up while it runs, on SIGHUP at once. What is
/// wrong with them is said, and changes nothing.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Take the machine's clock as it is, however far from the host's time: the times in the log are moved along
    #[arg(long)]
    accept_clock: bool,
    /// Say in full what the log guarantees, and why
    #[arg(long, short)]
    verbose: bool,
}

pub(super) fn run(args: &RunArgs, metrics: Arc<Metrics>, output: &mut Output) -> Result<Exit, Failure> {
    let overrides = Overrides { accept_clock: args.accept_clock, ..args.settings.above.overrides() };
    let source = Source { file: args.settings.config.clone(), overrides };
    host(args.settings.load_with(&source.overrides)?, source, Hangup::Reloads, metrics, output, |service, output| {
        let url = format!("http://{}", service.address());
        match output.json {
            true => output.json(&json!({ "url": url, "guarantee": service.guarantees().summary })),
            false => output.line(format!("ready at {url}: {}", guarantee(service, args.verbose))),
        }
    })
}

/// The guarantee in force, for people.
pub(super) fn guarantee(service: &Service, verbose: bool) -> String {
    let guarantees = service.guarantees();
    if verbose { guarantees.summary.clone() } else { guarantees.short() }
}

/// What SIGHUP means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hangup {
    /// Look at the settings and modules now, as for any service.
    Reloads,
    /// The terminal is gone, and with it the reason to run.
    Stops,
}

/// Runs the host until a signal or until it cannot go on; `ready` is called once everything works.
pub(super) fn host<E: Into<Failure>>(
    loaded: Loaded,
    source: Source,
    hangup: Hangup,
    metrics: Arc<Metrics>,
    output: &mut Output,
    ready: impl FnOnce(&Service, &mut Output) -> Result<(), E>,
) -> Result<Exit, Failure> {
    loaded.warnings.iter().for_each(note);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let exit = runtime.block_on(async {
        // Before anything is started: a signal during the start must not kill what was begun.
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut hung_up = signal(SignalKind::hangup())?;
        let mut told = async |service: Option<&Service>| {
            loop {
                tokio::select! {
                    // Safe to cancel, all: a signal that was not waited for is kept.
                    _ = interrupt.recv() => return,
                    _ = terminate.recv() => return,
                    _ = hung_up.recv() => match hangup {
                        Hangup::Stops => return,
                        // Before the start is complete it reads the newest files anyway.
                        Hangup::Reloads => service.iter().for_each(|service| service.reload()),
                    },
                }
            }
        };
        let service = tokio::select! {
            // Safe to cancel: nothing was taken up before the start is complete.
            () = told(None) => return Ok(Exit::Done),
            started = Service::start(&loaded.settings, Some(source), metrics) => started?,
        };
        ready(&service, output).map_err(Into::into)?;
        let failed = tokio::select! {
            // Safe to cancel: it only waits for a signal.
            () = told(Some(&service)) => None,
            // Safe to cancel: it only watches the log.
            reason = service.failed() => Some(reason),
        };
        match &failed {
            None => tracing::info!("stopping: finishing what runs; a second signal stops at once"),
            Some(reason) => tracing::error!("stopping: {reason}"),
        }
        tokio::select! {
            // Safe to cancel: what is not committed is done again at the next start.
            () = told(None) => return Ok(Exit::Failed),
            () = service.stop() => {}
        }
        match failed {
            None => Ok(Exit::Done),
            Some(reason) => Err(Failure::from(anyhow::anyhow!("{reason}"))),
        }
    });
    // Tasks that were given up are not waited for.
    runtime.shutdown_background();
    exit
}
