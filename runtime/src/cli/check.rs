//! `sluicebox check`: everything that is wrong with the settings and their modules, without starting anything.

mod sample;

use super::failure::{Exit, Failure};
use super::output::{Output, note, show_error};
use super::settings::SettingsArgs;
use crate::config::{self, HandlerSettings, Problem};
use crate::handler::Digest;
use crate::registry::{self, LoadError};
use crate::sandbox::{self, Sandboxes};
use clap::Args;
use serde_json::{Value, json};

/// Read the settings file and show every error and warning with its place; then read, compile, link and try out every module.
///
/// With --sample, say instead which handlers would get a message, and under which key, id and shard. Nothing is started and
/// no data is touched.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Check the settings alone, not the modules that they name
    #[arg(long)]
    settings_only: bool,
    #[command(flatten)]
    sample: sample::SampleArgs,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// What became of a handler's module.
struct Tried {
    handler: HandlerSettings,
    result: Result<Digest, LoadError>,
}

pub(super) fn run(args: &CheckArgs, output: &mut Output) -> Result<Exit, Failure> {
    if let Some(file) = args.sample.file() {
        return sample::run(file, &args.sample, &args.settings, output);
    }
    let (handlers, problems) = match config::load(&args.settings.config, &args.settings.above.overrides()) {
        Ok(loaded) => (Some(loaded.settings.handlers), loaded.warnings),
        Err(problems) => (None, problems.0),
    };
    let modules = match &handlers {
        Some(handlers) if !args.settings_only && !handlers.is_empty() => Some(try_all(handlers)?),
        _ => None,
    };
    let broken = modules.iter().flatten().filter(|tried| tried.result.is_err()).count();
    let exit = match (&handlers, broken) {
        (None, _) => Exit::BadSettings,
        (Some(_), 0) => Exit::Done,
        (Some(_), _) => Exit::Failed,
    };
    if output.json {
        let names: Option<Vec<_>> =
            handlers.map(|handlers| handlers.iter().map(|handler| handler.name.to_string()).collect());
        let modules: Option<Vec<Value>> = modules.map(|modules| modules.iter().map(view).collect());
        let ok = exit == Exit::Done;
        output.json(&json!({ "ok": ok, "handlers": names, "problems": problems, "modules": modules }))?;
        return Ok(exit);
    }
    problems.iter().for_each(note);
    for error in modules.iter().flatten().filter_map(|tried| tried.result.as_ref().err()) {
        show_error(error);
    }
    let file = args.settings.config.display();
    match handlers {
        None => output.line(format!("{file}: refused, {}", count(config::Problems(problems).errors(), "error")))?,
        Some(_) if broken > 0 => output.line(format!("{file}: refused, {} cannot run", count(broken, "module")))?,
        Some(handlers) => {
            let tried = modules.map_or("", |_| ", every module starts");
            let handlers = count(handlers.len(), "handler");
            output.line(format!("{file}: good, {handlers}{}{tried}", with_warnings(&problems)))?;
        }
    }
    Ok(exit)
}

fn try_all(handlers: &[HandlerSettings]) -> Result<Vec<Tried>, Failure> {
    // Without a cache: a host may be using its own, and a check leaves nothing behind.
    let sandboxes =
        Sandboxes::new(&sandbox::Pool { cache: None, ..sandbox::Pool::default() }, sandbox::tracing_sink())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async {
        let mut tried = Vec::with_capacity(handlers.len());
        for handler in handlers {
            tried.push(Tried { handler: handler.clone(), result: registry::try_out(&sandboxes, handler).await });
        }
        tried
    }))
}

fn view(Tried { handler, result }: &Tried) -> Value {
    let problem = result.as_ref().err().map(|error| registry::told(error));
    let digest = result.as_ref().ok().map(ToString::to_string);
    json!({ "handler": handler.name.as_str(), "file": handler.module, "digest": digest, "problem": problem })
}

fn with_warnings(warnings: &[Problem]) -> String {
    match warnings.len() {
        0 => String::new(),
        warnings => format!(", {}", count(warnings, "warning")),
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
