//! Asks whoever typed a command before it does what cannot be undone.

use super::failure::Failure;
use super::output::note;
use clap::Args;
use std::io::{BufRead, IsTerminal as _, Write as _};

#[derive(Clone, Debug, Args)]
pub(super) struct YesArgs {
    /// Do it without asking; needed where nobody can be asked
    #[arg(long, short)]
    yes: bool,
}

impl YesArgs {
    /// Whether it is to be done. `what` is the start of a question, such as `drop 3 dead letters`.
    pub(super) fn confirm(&self, what: &str) -> Result<bool, Failure> {
        if self.yes {
            return Ok(true);
        }
        if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return Err(Failure::usage(format!("to {what} without being asked on a terminal, add --yes")));
        }
        ask(what, &mut std::io::stdin().lock())
    }
}

fn ask(what: &str, answers: &mut impl BufRead) -> Result<bool, Failure> {
    // A terminal that cannot be written cannot be read either, and no answer is a no.
    let _ = write!(std::io::stderr(), "{what}? [y/N] ");
    let mut answer = String::new();
    answers.read_line(&mut answer)?;
    let is_yes = matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes");
    if !is_yes {
        note("nothing was done");
    }
    Ok(is_yes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_a_yes() {
        for (answer, expected) in [("y\n", true), (" YES \n", true), ("\n", false), ("n\n", false), ("", false)] {
            assert_eq!(ask("drop 3 dead letters", &mut answer.as_bytes()).unwrap(), expected, "{answer:?}");
        }
    }
}
