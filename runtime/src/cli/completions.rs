//! `sluicebox completions`: a script by which a shell completes the command line.

use super::failure::{Exit, Failure};
use super::output::Output;
use clap::{Args, Command};
use clap_complete::Shell;
use serde_json::json;

/// Write the script by which a shell completes the names of commands and flags.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Which shell
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs, command: &mut Command, output: &mut Output) -> Result<Exit, Failure> {
    let mut script = vec![];
    clap_complete::generate(args.shell, command, "sluicebox", &mut script);
    let script = String::from_utf8(script)?;
    match output.json {
        true => output.json(&json!({ "shell": args.shell.to_string(), "script": script }))?,
        false => output.line(script.trim_end())?,
    }
    Ok(Exit::Done)
}
