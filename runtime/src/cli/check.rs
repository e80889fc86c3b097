//! `sluicebox check`: everything that is wrong with the settings, without starting anything.

use super::output::{Output, note};
use super::{Exit, Failure, SettingsArgs};
use crate::config::{self, Problem};
use clap::Args;
use serde_json::json;

/// Reads the settings file and shows every error and warning with its place.
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    settings: SettingsArgs,
}

pub(super) fn run(args: &CheckArgs, output: &mut Output) -> Result<Exit, Failure> {
    let (handlers, problems, exit) = match config::load(&args.settings.config, &args.settings.above.overrides()) {
        Ok(loaded) => (Some(loaded.settings.handlers), loaded.warnings, Exit::Done),
        Err(problems) => (None, problems.0, Exit::BadSettings),
    };
    if output.json {
        let names: Option<Vec<_>> =
            handlers.map(|handlers| handlers.iter().map(|handler| handler.name.to_string()).collect());
        output.json(&json!({ "ok": exit == Exit::Done, "handlers": names, "problems": problems }))?;
        return Ok(exit);
    }
    problems.iter().for_each(note);
    let file = args.settings.config.display();
    match handlers {
        Some(handlers) => {
            output.line(format!("{file}: good, {}{}", count(handlers.len(), "handler"), with_warnings(&problems)))?;
        }
        None => output.line(format!("{file}: refused, {}", count(config::Problems(problems).errors(), "error")))?,
    }
    Ok(exit)
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
