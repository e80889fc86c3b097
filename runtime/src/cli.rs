//! The command line: parses what was typed, runs one command, and says how it went.
//!
//! Each command is one file. A command returns an [`Exit`] or a [`Failure`]; only [`main`] turns these into text and an
//! exit code. Output for people goes to standard output and, where it is about the run rather than its result, to
//! standard error; with `--json` standard output holds JSON only.

mod ask;
mod backup;
mod bench;
mod build;
mod check;
mod client;
mod completions;
mod data;
mod dead;
mod deploy;
mod dev;
mod examples;
mod export;
mod failure;
mod handlers;
mod hosts;
mod import;
mod new;
mod output;
mod publish;
mod reference;
mod run;
mod settings;
mod state;
mod status;
mod tail;
mod usage;

pub use build::{BuildError, Built, build_handlers};
pub use failure::{Exit, Failure};
pub use settings::SettingsArgs;

use crate::telemetry::Metrics;
use crate::telemetry::diagnostics::{self, Diagnostics};
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use output::Output;
use std::process::ExitCode;
use std::sync::Arc;

const EXIT_CODES: &str = "\
Exit codes:
  0  it worked
  1  it failed, or the host refused it
  2  wrong usage
  3  the settings have errors
  4  no host could be reached

Flags win over the variables named beside them, and both over the settings file.";
const COMMON: &str = "Common options";

/// Runs event handlers compiled to WebAssembly, exactly once, over a durable log.
#[derive(Debug, Parser)]
#[command(name = "sluicebox", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command understands.
#[derive(Clone, Debug, Args)]
pub struct GlobalArgs {
    /// Write JSON to standard output, for programs
    #[arg(long, global = true, help_heading = COMMON)]
    pub json: bool,
    /// Which diagnostics to write to standard error: a level, or such as `warn,sluicebox::http=debug`
    #[arg(
        long,
        global = true,
        help_heading = COMMON,
        value_name = "FILTER",
        env = diagnostics::FILTER_VARIABLE,
        hide_env_values = true,
        default_value = diagnostics::FILTER_DEFAULT
    )]
    pub diagnostics: String,
    /// How diagnostics look
    #[arg(
        long,
        global = true,
        help_heading = COMMON,
        value_enum,
        value_name = "FORMAT",
        env = "SLUICEBOX_DIAGNOSTICS_FORMAT",
        hide_env_values = true,
        default_value = "text"
    )]
    pub diagnostics_format: diagnostics::Format,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a workspace with a handler, its tests and its settings, or add a handler to one
    New(new::NewArgs),
    /// Build the handlers of a folder, run them, and say what to try
    Dev(dev::DevArgs),
    /// Run the host
    Run(run::RunArgs),
    /// Check the settings and the modules without starting anything
    Check(check::CheckArgs),
    /// Describe the settings
    Settings(reference::ReferenceArgs),
    /// Build every handler crate in a directory for WebAssembly
    Build(build::BuildArgs),
    /// Publish messages through a running host
    Publish(publish::PublishArgs),
    /// Follow the messages of a pattern
    Tail(tail::TailArgs),
    /// Look at handlers, pause them, roll them back, forget them
    #[command(subcommand)]
    Handlers(handlers::HandlersCommand),
    /// Put a module in force on every host that runs the handler, through the log
    Deploy(deploy::DeployArgs),
    /// Look at messages that were given up, retry or drop them
    #[command(subcommand)]
    Dead(dead::DeadCommand),
    /// Look at what handlers remember of their keys
    #[command(subcommand)]
    State(state::StateCommand),
    /// Show the log and every handler's place in it
    Status(status::StatusArgs),
    /// Show the hosts that work on the log
    Hosts(hosts::HostsArgs),
    /// Copy the data, also while a host works on it
    Backup(backup::BackupArgs),
    /// Write the whole log to a file, while no host runs, to move it to another place or another kind of log
    Export(export::ExportArgs),
    /// Restore an exported log into the place that the settings name
    Import(import::ImportArgs),
    /// Measure this machine
    Bench(bench::BenchArgs),
    /// Write the script by which a shell completes the command line
    Completions(completions::CompletionsArgs),
}

/// Parses the arguments of the process, runs the command, prints what went wrong.
pub fn main() -> ExitCode {
    let cli: Cli = usage::parse();
    let json = cli.global.json;
    let mut output = Output::new(json);
    if matches!(cli.command, Command::Tail(_)) {
        output::end_when_unread();
    }
    let metrics = Arc::new(Metrics::new());
    let exit = match start_diagnostics(&cli.global, &metrics).and_then(|_diagnostics| run(cli, metrics, &mut output)) {
        Ok(exit) => exit,
        // Whoever read the output has seen enough, as in `sluicebox tail … | head`.
        Err(failure) if is_broken_pipe(&failure.error) => Exit::Done,
        Err(failure) => {
            output::show_failure(json, &failure);
            failure.exit
        }
    };
    ExitCode::from(exit as u8)
}

/// Diagnostics flow until they are dropped.
fn start_diagnostics(args: &GlobalArgs, metrics: &Metrics) -> Result<Diagnostics, Failure> {
    let started = diagnostics::start(&args.diagnostics, args.diagnostics_format);
    let diagnostics = started.map_err(|error| Failure::new(Exit::Usage, error))?;
    metrics.count_diagnostics_dropped(diagnostics.dropped());
    Ok(diagnostics)
}

fn run(cli: Cli, metrics: Arc<Metrics>, output: &mut Output) -> Result<Exit, Failure> {
    match cli.command {
        Command::Dev(args) => dev::run(&args, metrics, output),
        Command::Run(args) => run::run(&args, metrics, output),
        Command::New(args) => new::run(&args, output),
        Command::Check(args) => check::run(&args, output),
        Command::Settings(args) => reference::run(&args, &Cli::command(), output),
        Command::Build(args) => build::run(&args, output),
        Command::Publish(args) => publish::run(&args, output),
        Command::Tail(args) => tail::run(&args, output),
        Command::Handlers(command) => handlers::run(&command, output),
        Command::Deploy(args) => deploy::run(&args, output),
        Command::Dead(command) => dead::run(&command, output),
        Command::State(command) => state::run(&command, output),
        Command::Status(args) => status::run(&args, output),
        Command::Hosts(args) => hosts::run(&args, output),
        Command::Backup(args) => backup::run(&args, output),
        Command::Export(args) => export::run(&args, output),
        Command::Import(args) => import::run(&args, output),
        Command::Bench(args) => bench::run(&args, output),
        Command::Completions(args) => completions::run(&args, &mut Cli::command(), output),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<output::WriteError>().map(|error| error.0.kind());
    io == Some(std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests;
