//! From the words of the process to a command; wrong ones are answered with the nearest right ones and exit code 2.

use super::examples::with_examples;
use super::failure::Exit;
use super::output::note;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Parser};
use serde_json::json;

/// Ends the process with help, or with what is wrong with the command line.
pub(super) fn parse<C: Parser>() -> C {
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let mut command = with_examples(C::command());
    let parsed = command.try_get_matches_from_mut(std::env::args_os()).and_then(|found| C::from_arg_matches(&found));
    parsed.unwrap_or_else(|error| {
        let error = with_choices(error, &command, &words);
        if error.use_stderr() && words.iter().any(|word| word == "--json") {
            let text = error.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            let told =
                text.split("\n\nUsage:").next().and_then(|text| text.split("\n\nFor more").next()).unwrap_or(text);
            note(json!({ "error": told.trim_end(), "causes": [], "exit": Exit::Usage as u8 }));
            std::process::exit(Exit::Usage as i32);
        }
        error.exit()
    })
}

/// Names what there is where a command was not recognised and resembles none.
fn with_choices(mut error: clap::Error, root: &Command, words: &[String]) -> clap::Error {
    let unknown = match (error.kind(), error.get(ContextKind::InvalidSubcommand)) {
        (ErrorKind::InvalidSubcommand, Some(ContextValue::String(unknown))) => unknown.clone(),
        _ => return error,
    };
    if error.get(ContextKind::SuggestedSubcommand).is_some() {
        return error;
    }
    let before = words.iter().skip(1).take_while(|word| **word != unknown);
    let within = before.fold(root, |command, word| command.find_subcommand(word).unwrap_or(command));
    let names: Vec<&str> = within.get_subcommands().map(Command::get_name).collect();
    let choices = format!("there is: {}", names.join(", "));
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![choices.into()]));
    error
}
