//! What people are told to type exists: every command that a message, a document or a comment names in backquotes, and every
//! one in a block of the README, is understood by the parser of the command line.

use crate::cli::Cli;
use crate::handler::{HandlerName, ShardId};
use crate::log::{Held, Why};
use clap::Parser as _;
use clap::error::ErrorKind;
use std::path::Path;

/// Made up of parts while it runs; all it can become is looked at by itself.
const MADE_OF_PARTS: &str = "handlers {command} {handler}";

/// A quoted text of one line: as a literal or a comment of several lines means it.
fn joined(text: &str) -> String {
    let mut lines = text.lines();
    let mut joined = lines.next().unwrap_or_default().to_owned();
    for line in lines {
        let rest = line.trim_start();
        match joined.strip_suffix('\\') {
            Some(begun) => joined = begun.to_owned() + rest,
            None => {
                let comment = rest.trim_start_matches('/').trim_start_matches('!');
                joined = format!("{joined} {}", if rest.starts_with("//") { comment.trim_start() } else { rest });
            }
        }
    }
    joined
}

/// What stands between backquotes behind the name of the program.
fn quoted(text: &str) -> Vec<String> {
    let found = text.split("`sluicebox ").skip(1).filter_map(|rest| rest.split_once('`'));
    found.map(|(command, _)| joined(command)).filter(|command| command != MADE_OF_PARTS).collect()
}

/// The command lines of the program in the blocks of a document.
fn blocks(text: &str) -> Vec<String> {
    let fenced = text.split("```").skip(1).step_by(2);
    let lines = fenced.flat_map(|block| {
        let block = block.replace("\\\n", " ");
        block.lines().map(str::to_owned).collect::<Vec<_>>()
    });
    let mine = |line: String| {
        let line = line.trim_start();
        let typed = line.strip_prefix("target/release/").unwrap_or(line).strip_prefix("sluicebox ")?;
        Some(typed.split(" # ").next().unwrap_or(typed).to_owned())
    };
    lines.filter_map(mine).collect()
}

/// The words as a shell has them; what is only a place for something is something.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![];
    for (at, part) in command.split('\'').enumerate() {
        match at % 2 {
            1 => words.push(part.to_owned()),
            _ => words.extend(part.split_whitespace().map(str::to_owned)),
        }
    }
    let own = words.iter().position(|word| word == "|").unwrap_or(words.len());
    words.truncate(own);
    // A redirection, unless it is the pattern.
    let redirected = words.iter().position(|word| word == ">").filter(|at| *at + 2 == words.len() && *at > 1);
    words.truncate(redirected.unwrap_or(words.len()));
    words.retain(|word| word != "…" && word != "--");
    let is_place = |word: &str| word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_uppercase());
    words.iter_mut().for_each(|word| match word.as_str() {
        "SHARD/NUMBER" => *word = "3/17".into(),
        "NUMBER" | "LINE" | "OFFSET" => *word = "7".into(),
        "DURATION" => *word = "1m".into(),
        place if is_place(place) => *word = "name".into(),
        filled if filled.contains('{') && !filled.contains('"') => *word = "order".into(),
        _ => {}
    });
    words
}

/// Why nobody could type this. What is named without all that it needs exists all the same.
fn refusal(command: &str) -> Option<String> {
    let error = Cli::try_parse_from(std::iter::once("sluicebox".to_owned()).chain(words(command))).err()?;
    let is_named_in_short = matches!(
        error.kind(),
        ErrorKind::MissingRequiredArgument
            | ErrorKind::MissingSubcommand
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            | ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
    );
    let told = error.to_string();
    (!is_named_in_short && !told.contains("but none was supplied")).then_some(told)
}

fn collect(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if path.is_dir() {
            if !path.ends_with("target") && !path.ends_with(".git") {
                collect(&path, found);
            }
        } else if path.ends_with("cli/tests/advice.rs") {
            // What it says is meant to be wrong.
        } else if ["rs", "md", "toml", "wit", "sh"].contains(&extension) {
            let text = std::fs::read_to_string(&path).unwrap();
            let commands = if extension == "md" { [quoted(&text), blocks(&text)].concat() } else { quoted(&text) };
            found.extend(commands.into_iter().map(|command| (path.display().to_string(), command)));
        }
    }
}

#[test]
fn every_command_that_people_are_told_to_type_exists() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut commands = vec![];
    collect(repository, &mut commands);
    let in_readme = commands.iter().filter(|(path, _)| path.ends_with("README.md")).count();
    assert!(commands.len() > 150 && in_readme > 30, "found hardly any: {} and {in_readme}", commands.len());
    let refused = commands.iter().filter_map(|(path, command)| Some((path, command, refusal(command)?)));
    let refused: Vec<String> =
        refused.map(|(path, command, why)| format!("{path}: `sluicebox {command}`: {why}")).collect();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn the_way_out_for_each_handler_that_keeps_old_messages_exists() {
    let shard = ShardId { handler: HandlerName::parse("order").unwrap(), index: 0 };
    for why in [Why::Open, Why::Unread, Why::NeverStarted] {
        for (paused, tripped) in [(false, false), (true, false), (false, true), (true, true)] {
            let told = Held { shard: shard.clone(), why, paused, tripped }.to_string();
            let commands = quoted(&told);
            assert_eq!(commands.len(), 2, "{told}");
            commands.iter().for_each(|command| assert_eq!(refusal(command), None, "{told}"));
        }
    }
}

#[test]
fn a_command_that_does_not_exist_is_seen() {
    for bad in ["handlers reset order", "handlers {name} order", "publish a --dellay 1m", "dead retry x", "reroute"] {
        assert!(refusal(bad).is_some(), "{bad}");
    }
    for good in ["handlers breaker reset {handler}", "handlers cancel {name} SHARD/NUMBER", "tail … | head", "dead"] {
        assert_eq!(refusal(good), None);
    }
    assert_eq!(quoted("//! so `sluicebox handlers\n    /// breaker reset` and"), ["handlers breaker reset"]);
    assert_eq!(quoted("\"try `sluicebox handlers \\\n      show x`\""), ["handlers show x"]);
    assert_eq!(
        blocks("```\nsluicebox tail '>' # all\n  target/release/sluicebox dead \\\n list\n```"),
        ["tail '>'", "dead   list"]
    );
}
