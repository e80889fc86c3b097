//! `sluicebox dev`: builds the handlers of a folder, runs them, says what to try, and takes up what changes.

mod first;
mod rebuild;
mod server;
mod sources;

use super::failure::{Exit, Failure};
use super::output::{Output, note};
use super::run::{Hangup, guarantee, host};
use super::settings::AboveArgs;
use crate::config::{self, HandlerSettings, LogKind, Overrides};
use crate::service::{Service, Source};
use crate::telemetry::Metrics;
use clap::{Args, ValueEnum};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;

/// Build the handlers of a folder, run them on its settings, and say what to try.
///
/// The folder holds sluicebox.toml and the crates of the handlers. A changed source is built and swapped in while it runs; as
/// long as it does not build, what was built before goes on; what does not build at first is waited for. Changed settings are taken up as well.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// The folder with sluicebox.toml and the crates of the handlers
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Say in full what the log guarantees, and why
    #[arg(long, short)]
    verbose: bool,
    /// Work on this kind of log instead of the one in the settings file: on a server of this machine, unless the file says
    /// where its servers are. No server is started
    #[arg(long, value_enum, value_name = "KIND")]
    log: Option<OnLog>,
    #[command(flatten)]
    above: AboveArgs,
}

/// The kinds of log, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnLog {
    Embedded,
    Nats,
    Redis,
}

impl From<OnLog> for LogKind {
    fn from(kind: OnLog) -> Self {
        match kind {
            OnLog::Embedded => LogKind::Embedded,
            OnLog::Nats => LogKind::Nats,
            OnLog::Redis => LogKind::Redis,
        }
    }
}

pub(super) fn run(args: &DevArgs, metrics: Arc<Metrics>, output: &mut Output) -> Result<Exit, Failure> {
    let overrides = Overrides { log: args.log.map(Into::into), ..args.above.overrides() };
    let source = Source { file: args.dir.join(config::FILE_NAME), overrides };
    // What else is wrong with it may be that a module is not built yet.
    if !source.file.exists() {
        return Err(Failure::new(
            Exit::BadSettings,
            anyhow::anyhow!(
                "there is no {} in `{}`: go to the folder of the handlers, name it, or make one with `sluicebox new`",
                config::FILE_NAME,
                args.dir.display()
            ),
        ));
    }
    // Before anything is built: that takes a while.
    if let Some(log) = config::log_of(&source.file, &source.overrides) {
        server::check_there(&log)?;
    }
    note(format!("building the handlers in {}", args.dir.display()));
    // Until it is good there is nothing to stop: a signal ends the process as any other.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let built = runtime.block_on(first::first_build(&args.dir))?;
    drop(runtime);
    built.iter().for_each(|built| note(format!("built {}", built.module.display())));
    let loaded =
        config::load(&source.file, &source.overrides).map_err(|problems| Failure::new(Exit::BadSettings, problems))?;
    let handlers = loaded.settings.handlers.clone();
    host(loaded, source, Hangup::Stops, metrics, output, |service, output| {
        // It ends with the process: a build that is cut short leaves the modules as they were.
        tokio::spawn(rebuild::rebuild(args.dir.clone()));
        show(service, &handlers, args.verbose, output)
    })
}

fn show(service: &Service, handlers: &[HandlerSettings], verbose: bool, output: &mut Output) -> Result<(), Failure> {
    let url = format!("http://{}", service.address());
    if output.json {
        let names: Vec<&str> = handlers.iter().map(|handler| handler.name.as_str()).collect();
        output.json(&json!({ "url": url, "guarantee": service.guarantees().summary, "handlers": names }))?;
        return Ok(());
    }
    output.line(format!("\nready at {url}"))?;
    output.line(format!("guarantee: {}", guarantee(service, verbose)))?;
    for handler in handlers {
        let patterns: Vec<&str> = handler.subscribe.iter().map(|pattern| pattern.as_str()).collect();
        output.line(format!("  {:12} listens to {}", handler.name.as_str(), patterns.join(", ")))?;
    }
    let program = program();
    let url = if url == super::client::URL_DEFAULT { String::new() } else { format!(" --url {url}") };
    output.line("\ntry this in a second terminal:")?;
    for (command, comment) in commands(handlers) {
        let comment = if comment.is_empty() { String::new() } else { format!("   # {comment}") };
        output.line(format!("  {program} {command}{url}{comment}"))?;
    }
    output.line("\nchange a source or the settings: it is taken up while this runs")?;
    output.line("stop with Ctrl-C; nothing is lost")?;
    Ok(())
}

/// How the user would call this program: through cargo where it was built and not installed.
fn program() -> String {
    let path = std::env::current_exe().unwrap_or_else(|_| "sluicebox".into());
    let below = std::env::current_dir().ok().and_then(|here| path.strip_prefix(here).map(PathBuf::from).ok());
    match below {
        Some(path) => path.display().to_string(),
        None => path.display().to_string(),
    }
}

/// What shows the handlers at work, each with a comment: those of this repository and of a new workspace get their
/// own walk.
fn commands(handlers: &[HandlerSettings]) -> Vec<(String, &'static str)> {
    let has = |name: &str, subscribed: &str| {
        let subscribes = |handler: &HandlerSettings| handler.subscribe.iter().any(|p| p.as_str() == subscribed);
        handlers.iter().any(|handler| handler.name.as_str() == name && subscribes(handler))
    };
    let (has_order, has_alarm) = (has("order", "events.*"), has("alarm", "AlarmStatusChanged"));
    let mut commands: Vec<(String, &str)> = vec![("tail '>'".into(), "leave it open and see what happens")];
    if has_order {
        let order =
            r#"publish events.new_order '{"type":"new_order","id":"o-1","args":{"user":"ada","amount_cents":1250}}'"#;
        commands.push((order.into(), ""));
        commands.push((order.into(), "again: a duplicate"));
        commands.push(("publish events.new_order 'not an order'".into(), "goes to the dead letters"));
    }
    if has_alarm {
        let change = r#"{"UserID":"ada","AlarmID":"a-1","Status":"CRITICAL","ChangedAt":"2026-01-02T03:04:05Z"}"#;
        commands.push((format!("publish AlarmStatusChanged '{change}'"), ""));
        let request = r#"publish SendAlarmDigest '{"UserID":"ada"}'"#;
        commands.push((request.into(), "an AlarmDigest; again: nothing is new, so none"));
    }
    let has_visits = has("visits", "web.visit");
    if has_visits {
        // What `sluicebox new` makes.
        commands.push((r#"publish web.visit '{"page":"/home","id":"v-1"}'"#.into(), ""));
    }
    if !has_order && !has_alarm && !has_visits {
        let topic = handlers.first().and_then(|handler| handler.subscribe.first());
        let topic = topic.map_or("some.topic".into(), |pattern| pattern.as_str().replace(['*', '>'], "something"));
        commands.push((format!("publish {topic} '{{}}'"), ""));
    }
    commands.extend([("dead list".into(), ""), ("status".into(), "")]);
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handlers_of_this_repository_get_a_walk_of_their_own_and_others_a_general_one() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(config::FILE_NAME);
        std::fs::write(&file, include_str!("../../../handlers/sluicebox.toml")).unwrap();
        for name in ["order", "notify", "alarm"] {
            std::fs::write(directory.path().join(format!("{name}.wasm")), "").unwrap();
        }
        let handlers = config::load(&file, &config::Overrides::default()).unwrap().settings.handlers;
        let count = |handlers: &[HandlerSettings], what: &str| {
            commands(handlers).iter().filter(|(command, _)| command.starts_with(what)).count()
        };
        assert_eq!(count(&handlers, "publish events.new_order"), 3);
        assert_eq!(count(&handlers, "publish AlarmStatusChanged") + count(&handlers, "publish SendAlarmDigest"), 2);

        let mut notify = handlers.into_iter().filter(|handler| handler.name.as_str() == "notify").collect::<Vec<_>>();
        assert_eq!(count(&notify, "publish"), 1);
        assert_eq!(count(&notify, "publish events.something '{}'"), 1);
        let template = include_str!("new/template/sluicebox.toml").replace("{{name}}", "shop");
        std::fs::write(&file, template).unwrap();
        std::fs::write(directory.path().join("visits.wasm"), "").unwrap();
        let visits = config::load(&file, &config::Overrides::default()).unwrap().settings.handlers;
        assert_eq!((count(&visits, "publish"), count(&visits, "publish web.visit '{\"page\":")), (1, 1));
        notify.clear();
        assert_eq!(count(&notify, "publish some.topic '{}'"), 1);
    }
}
