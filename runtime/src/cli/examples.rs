//! Examples at the end of every command's `--help`: what to type, and what for.

use clap::Command;

/// Command as typed, its examples, what each does.
const EXAMPLES: &[(&str, &[(&str, &str)])] = &[
    (
        "new",
        &[
            ("new shop", "a workspace `shop` with one handler, its tests and its settings"),
            ("new shop --path services/shop", "the same in another folder"),
            ("new word-count", "inside a workspace: the handler `word-count` in it"),
        ],
    ),
    (
        "dev",
        &[
            ("dev", "build and run the handlers of this folder"),
            ("dev handlers --listen 127.0.0.1:9000", "of another folder, on another port"),
            ("dev handlers --log nats", "on a NATS server of this machine"),
        ],
    ),
    (
        "run",
        &[
            ("run", "run the host on ./sluicebox.toml"),
            ("run -c /etc/shop.toml --data /var/lib/shop", "with other settings and data"),
        ],
    ),
    (
        "check",
        &[
            ("check", "everything wrong with ./sluicebox.toml and its modules"),
            ("check --settings-only --json", "the settings alone, for programs"),
            (
                "check --sample order.json --topic events.new_order",
                "who would get such a message, under which key and id, on which shard",
            ),
        ],
    ),
    ("settings", &[("settings", "list all settings"), ("settings limit.rate", "what one does, with an example")]),
    ("build", &[("build", "build the handlers of this folder"), ("build handlers", "of another one")]),
    (
        "publish",
        &[
            ("publish events.new_order '{\"id\":\"o-1\"}' --key ada", "one message"),
            ("publish reminders.ada 'call' --key ada --delay 30m", "one that appears in half an hour"),
            ("publish events.new_order --ndjson orders.ndjson", "one for each line of a file"),
            ("publish events.new_order --ndjson orders.ndjson --from-line 3001", "go on where that was interrupted"),
            ("publish copy --messages --ndjson tail.json", "what `tail --json` wrote, with keys, ids and headers"),
        ],
    ),
    (
        "tail",
        &[
            ("tail 'orders.*'", "follow what comes"),
            ("tail 'orders.*' --since 10m --key ada", "of one key, from ten minutes ago on"),
            ("tail --from earliest --no-follow --json", "all that the log has, for programs"),
        ],
    ),
    (
        "deploy",
        &[
            ("deploy order order.wasm", "run this module on every host, from now on"),
            ("deploy order order.wasm --also http://b.example:8080", "and wait until two hosts do"),
        ],
    ),
    ("handlers list", &[("handlers list", "all handlers and whether they work")]),
    (
        "handlers waiting",
        &[
            ("handlers waiting order", "which messages wait, and why"),
            ("handlers waiting order --key ada --json", "those of one key, for programs"),
            ("handlers waiting order --error timeout --attempts 3", "those that failed so, at least three times"),
        ],
    ),
    (
        "handlers retry-now",
        &[
            ("handlers retry-now order --key ada", "what of one key waits for its retry"),
            ("handlers retry-now order", "all that waits for its retry"),
        ],
    ),
    ("handlers cancel", &[("handlers cancel order 3/17", "a delayed message that `handlers waiting` lists")]),
    ("handlers show", &[("handlers show order", "routing, place, versions and what was asked of it")]),
    (
        "handlers pause",
        &[
            ("handlers pause order", "nothing more runs; messages wait"),
            ("handlers pause order --key ada", "those of one key"),
        ],
    ),
    ("handlers resume", &[("handlers resume order", "go on")]),
    ("handlers rollback", &[("handlers rollback order", "run the version before this one")]),
    ("handlers unpin", &[("handlers unpin order", "run the module in the file again")]),
    (
        "handlers reroute",
        &[
            ("handlers reroute order --dry-run", "what would move along with the changed key, id or shards"),
            ("handlers reroute order --yes", "move it, without asking"),
        ],
    ),
    ("handlers forget", &[("handlers forget order --yes", "delete everything of a handler that was removed")]),
    ("handlers breaker trip", &[("handlers breaker trip order", "open it until `reset`")]),
    ("handlers breaker reset", &[("handlers breaker reset order", "close it")]),
    ("dead list", &[("dead list", "the newest"), ("dead list --handler order --limit 100", "more of one handler")]),
    ("dead show", &[("dead show 7", "one with its message and error")]),
    ("dead count", &[("dead count --handler order", "how many there are")]),
    (
        "dead retry",
        &[("dead retry 7", "one, after asking"), ("dead retry --handler order --all", "all of one handler")],
    ),
    ("dead drop", &[("dead drop 7 --yes", "one, without asking")]),
    ("state list", &[("state list order --prefix user/", "the keys that begin so")]),
    (
        "state get",
        &[("state get order ada", "what is remembered of one key"), ("state get order ada totals", "one entry of it")],
    ),
    (
        "status",
        &[
            ("status", "the log and every handler's place in it"),
            ("status --shards --json", "with every shard, for programs"),
        ],
    ),
    (
        "hosts",
        &[
            ("hosts", "who works on the log, and how many shards each has"),
            ("hosts --json", "with the shards of each, for programs"),
        ],
    ),
    (
        "export",
        &[
            ("export shop.log", "all of the log that ./sluicebox.toml names, while no host runs"),
            ("export shop.log --from 1000000", "without older messages that no handler needs any more"),
            ("export - > shop.log", "through a pipe, such as to another machine"),
        ],
    ),
    (
        "import",
        &[
            ("import shop.log", "into the place that ./sluicebox.toml names, of any kind"),
            ("import shop.log -c on-nats.toml", "into the one of other settings"),
        ],
    ),
    ("backup", &[("backup /mnt/backup/shop", "a copy of the data from which a host can start, while this one runs")]),
    ("bench", &[("bench --folder /var/lib", "measure this machine and the disk of that folder")]),
    (
        "completions",
        &[
            ("completions bash > /etc/bash_completion.d/sluicebox", "for bash"),
            ("completions fish > ~/.config/fish/completions/sluicebox.fish", "for fish"),
        ],
    ),
];

/// The command with the examples in its help, and in that of every command below it.
pub(super) fn with_examples(root: Command) -> Command {
    below(root, "")
}

fn below(command: Command, path: &str) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    let command = match examples_of(path) {
        Some(examples) => {
            let before = command.get_after_help().map_or(String::new(), |help| format!("{help}\n\n"));
            command.after_help(format!("{before}{}", shown(examples)))
        }
        None => command,
    };
    names.into_iter().fold(command, |command, name| {
        let path = if path.is_empty() { name.clone() } else { format!("{path} {name}") };
        command.mut_subcommand(name, |command| below(command, &path))
    })
}

fn examples_of(path: &str) -> Option<&'static [(&'static str, &'static str)]> {
    EXAMPLES.iter().find(|(command, _)| *command == path).map(|(_, examples)| *examples)
}

fn shown(examples: &[(&str, &str)]) -> String {
    let lines: Vec<String> =
        examples.iter().map(|(typed, effect)| format!("  sluicebox {typed}\n      {effect}")).collect();
    format!("Examples:\n{}", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::{CommandFactory as _, Parser as _};
    use std::collections::BTreeSet;

    fn leaves(command: &Command, path: &str, found: &mut BTreeSet<String>) {
        if command.get_subcommands().next().is_none() {
            found.insert(path.to_owned());
        }
        for below in command.get_subcommands() {
            leaves(below, format!("{path} {}", below.get_name()).trim_start(), found);
        }
    }

    #[test]
    fn columns_are_explained_in_the_help_of_what_shows_them() {
        for path in ["status", "handlers list", "handlers show"] {
            let root = with_examples(Cli::command());
            let command = path.split(' ').fold(&root, |command, name| command.find_subcommand(name).unwrap());
            let help = command.clone().render_long_help().to_string();
            for column in ["WAITING", "OLDEST", "OPEN", "READ", "MARKS"] {
                assert!(help.contains(&format!("  {column}  ")), "{path}: {help}");
            }
            assert!(help.contains("Examples:"), "{help}");
        }
    }

    #[test]
    fn every_command_has_an_example_and_every_example_a_command() {
        let mut commands = BTreeSet::new();
        leaves(&Cli::command(), "", &mut commands);
        let with_example: BTreeSet<String> = EXAMPLES.iter().map(|(command, _)| (*command).to_owned()).collect();
        assert_eq!(with_example, commands);
    }

    #[test]
    fn every_example_is_a_command_line_that_is_understood() {
        for (typed, _) in EXAMPLES.iter().flat_map(|(_, examples)| examples.iter()) {
            // As a shell would: no redirection, quotes taken off.
            let words = typed.split(" > ").next().unwrap().split(' ').map(|word| word.trim_matches('\''));
            let parsed = Cli::try_parse_from(std::iter::once("sluicebox").chain(words));
            assert!(parsed.is_ok(), "{typed}: {}", parsed.unwrap_err());
        }
    }

    #[test]
    fn help_ends_with_the_examples() {
        let mut root = with_examples(Cli::command());
        let help = root.find_subcommand_mut("publish").unwrap().render_long_help().to_string();
        let end = help.split("Examples:").nth(1).unwrap();
        assert!(end.contains("  sluicebox publish events.new_order --ndjson orders.ndjson\n"), "{help}");
    }
}
