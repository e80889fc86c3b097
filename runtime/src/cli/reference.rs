//! `sluicebox settings`: the reference of all settings, written from their declarations.

use super::failure::{Exit, Failure};
use super::output::Output;
use crate::config::reference::{self, Described};
use clap::{Args, Command};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Describe the settings: values with unit and bounds, default, effect and an example of each.
#[derive(Debug, Args)]
pub struct ReferenceArgs {
    /// The name of a setting or table, such as timeout, limit.rate or http; all are listed unless given
    name: Option<String>,
    /// Write the whole reference as Markdown (docs/settings.md)
    #[arg(long, conflicts_with_all = ["name", "json"])]
    markdown: bool,
}

pub(super) fn run(args: &ReferenceArgs, root: &Command, output: &mut Output) -> Result<Exit, Failure> {
    if args.markdown {
        output.line(markdown(root).trim_end())?;
        return Ok(Exit::Done);
    }
    let settings = match &args.name {
        None => reference::all(),
        Some(name) => reference::find(name).map_err(|near| {
            let hint = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => "`sluicebox settings` lists all".into(),
            };
            Failure::usage(format!("there is no setting `{name}`: {hint}"))
        })?,
    };
    if output.json {
        output.json(&json!({ "settings": settings }))?;
    } else if args.name.is_some() {
        for (index, setting) in settings.iter().enumerate() {
            let gap = if index > 0 { "\n" } else { "" };
            output.line(format!("{gap}{}", reference::text(setting)))?;
        }
    } else {
        let row = |setting: &Described| vec![setting.name.clone(), setting.default.clone(), setting.values.clone()];
        output.table(&["SETTING", "DEFAULT", "VALUES"], &settings.iter().map(row).collect::<Vec<_>>())?;
        output.line("\n`sluicebox settings NAME` says what one does and shows an example")?;
    }
    Ok(Exit::Done)
}

/// The content of docs/settings.md; `root` is the whole command line.
fn markdown(root: &Command) -> String {
    let mut text = String::from(
        "# Settings\n\n\
         This file is written by `sluicebox settings --markdown > docs/settings.md` from the declarations that the program \
         itself reads with; a test holds it to them.\n\n\
         Settings stand in one TOML file, `sluicebox.toml` unless `--config` names another. Flags win over variables, and \
         both win over the file. A duration is whole numbers with the units d, h, m, s, ms, such as `1h30m`; a size is a \
         whole number of B, KiB, MiB or GiB. `sluicebox check` shows everything that is wrong with a file.\n\n\
         ## In the file\n\n",
    );
    text += &reference::markdown();
    text += "## Variables\n\nEach stands below its flag and above the file.\n\n| variable | flag | what it says | commands |\n|---|---|---|---|\n";
    for (variable, Variable { flag, help, commands }) in variables(root) {
        let _ = writeln!(text, "| `{variable}` | `{flag}` | {} | {} |", help.replace('|', "\\|"), commands.join(", "));
    }
    text
}

/// A variable as the command line declares it.
struct Variable {
    flag: String,
    help: String,
    commands: Vec<String>,
}

/// Every variable that some command reads, by name.
fn variables(root: &Command) -> BTreeMap<String, Variable> {
    let mut found: BTreeMap<String, Variable> = BTreeMap::new();
    let mut add = |command: &Command, name: &str| {
        for argument in command.get_arguments() {
            let (Some(variable), Some(flag)) = (argument.get_env(), argument.get_long()) else { continue };
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            let entry = found.entry(variable.to_string_lossy().into_owned()).or_insert_with(|| Variable {
                flag: format!("--{flag}"),
                help,
                commands: vec![],
            });
            entry.commands.push(name.into());
        }
    };
    add(root, "all");
    for command in root.get_subcommands() {
        add(command, command.get_name());
        for below in command.get_subcommands() {
            add(below, &format!("{} {}", command.get_name(), below.get_name()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory as _, Parser as _};

    #[test]
    fn docs_settings_md_is_what_the_code_says() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/settings.md");
        let written = std::fs::read_to_string(file).unwrap_or_default();
        let is_the_same = written == markdown(&crate::cli::Cli::command());
        assert!(is_the_same, "run `cargo run -- settings --markdown > docs/settings.md` and look at what changed");
    }

    #[test]
    fn every_setting_of_the_host_that_has_a_flag_has_it_in_run_check_and_dev() {
        let root = crate::cli::Cli::command();
        let mut flags = 0;
        for setting in reference::all() {
            let (Some(flag), Some(variable)) = (setting.flag, setting.variable) else { continue };
            flags += 1;
            for command in ["run", "check", "dev"] {
                let command = root.find_subcommand(command).unwrap();
                let found = command.get_arguments().find(|argument| argument.get_long() == flag.strip_prefix("--"));
                let found = found.unwrap_or_else(|| panic!("{command} has no {flag}"));
                assert_eq!(found.get_env().unwrap(), variable, "{command} {flag}");
            }
        }
        assert_eq!(flags, 5);
    }

    #[test]
    fn a_flag_cannot_stand_with_markdown_that_would_change_nothing() {
        for line in [
            &["sluicebox", "settings", "--markdown", "timeout"][..],
            &["sluicebox", "settings", "--markdown", "--json"],
        ] {
            assert!(crate::cli::Cli::try_parse_from(line).is_err(), "{line:?}");
        }
    }
}
