//! What a command shows: text for people or JSON for programs.

use super::failure::{Exit, Failure};
use crate::config::Problems;
use serde::Serialize;
use std::io::{IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use tokio::io::Interest;
use tokio::net::unix::pipe;

/// Standard output cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to write to standard output")]
pub(super) struct WriteError(#[source] pub(super) std::io::Error);

/// Where results go.
pub(super) struct Output {
    pub(super) json: bool,
    /// It is the standard output of this process, which may end it.
    pub(super) is_standard: bool,
    to: Box<dyn Write>,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json, is_standard: true, to: Box::new(std::io::stdout()) }
    }

    /// Writes into memory.
    #[cfg(test)]
    pub(super) fn into(json: bool, to: impl Write + 'static) -> Self {
        Self { json, is_standard: false, to: Box::new(to) }
    }

    /// One line for people.
    pub(super) fn line(&mut self, text: impl std::fmt::Display) -> Result<(), WriteError> {
        writeln!(self.to, "{text}").and_then(|()| self.to.flush()).map_err(WriteError)
    }

    /// One JSON value on a line of its own.
    pub(super) fn json(&mut self, value: &impl Serialize) -> Result<(), WriteError> {
        let text = serde_json::to_string(value).map_err(|error| WriteError(error.into()))?;
        self.line(text)
    }

    /// Rows under a heading, in columns as wide as their widest cell; the last column is as it is.
    pub(super) fn table(&mut self, heading: &[&str], rows: &[Vec<String>]) -> Result<(), WriteError> {
        let mut widths: Vec<usize> = heading.iter().map(|cell| cell.chars().count()).collect();
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut show = |cells: &mut dyn Iterator<Item = &str>| {
            let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            self.line(padded.join("  ").trim_end())
        };
        show(&mut heading.iter().copied())?;
        rows.iter().try_for_each(|row| show(&mut row.iter().map(String::as_str)))
    }
}

/// Text from elsewhere on one line: control characters could steer the terminal.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

/// Text that may have several lines, behind what announces it: one line goes on there, several go below it.
pub(super) fn told_behind(announced: &str, text: &str) -> String {
    let lines: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(printable).collect();
    match lines.len() {
        0 | 1 => format!("{announced} {}", lines.concat()),
        _ => {
            [announced.trim_end()].into_iter().chain(lines.iter().map(String::as_str)).collect::<Vec<_>>().join("\n  ")
        }
    }
}

/// Ends the process once nobody can read its standard output any more, as in `sluicebox tail … | head`: a command that
/// waits would only find out with its next line, which may never come.
pub(super) fn end_when_unread() {
    // It lasts as long as the process.
    std::thread::spawn(|| {
        if until_unread().is_ok() {
            std::process::exit(Exit::Done as i32);
        }
    });
}

/// An error: a file or a terminal, which cannot be waited for and which nobody closes before us.
fn until_unread() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let output = std::io::stdout().as_fd().try_clone_to_owned()?;
    runtime.block_on(async {
        // It is never written through this, so it need not be a pipe, nor one that never blocks.
        let output = pipe::Sender::from_owned_fd_unchecked(output)?;
        output.ready(Interest::ERROR).await.map(drop)
    })
}

/// A number with thousands apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// Whether someone watches the run.
pub(super) fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}

/// Shows progress in place, when someone watches.
pub(super) fn show_progress(text: &str) {
    // A terminal that cannot be written must not stop the work.
    let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
}

/// Something about the run that is not its result.
pub(super) fn note(text: impl std::fmt::Display) {
    // As above.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Says what went wrong, and why.
pub(super) fn show_failure(json: bool, failure: &Failure) {
    let Failure { exit, error } = failure;
    // They say of themselves what is an error and what is not.
    if let Some(problems) = error.downcast_ref::<Problems>() {
        match json {
            true => note(serde_json::json!({
                "error": problems.summary(), "causes": [], "problems": problems.0, "exit": *exit as u8
            })),
            false => note(problems),
        }
        return;
    }
    if json {
        let causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
        note(serde_json::json!({ "error": error.to_string(), "causes": causes, "exit": *exit as u8 }));
        return;
    }
    show_error(&**error);
}

/// An error with its causes, for people.
pub(super) fn show_error(error: &dyn std::error::Error) {
    note(format!("error: {error}"));
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.for_each(|cause| note(format!("  caused by: {cause}")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_of_messages_do_not_reach_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\nc é"), "a\\u{1b}[2Jb\\nc é");
    }

    #[test]
    fn a_text_of_several_lines_is_shown_as_lines() {
        assert_eq!(told_behind("problem  ", "one\x1b"), "problem   one\\u{1b}");
        let shown = "problem\n  error: a\n    --> b:1\n  1 error";
        assert_eq!(told_behind("problem  ", "error: a\n  --> b:1\n\n1 error\n"), shown);
    }

    #[test]
    fn large_numbers_are_grouped() {
        for (number, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567")] {
            assert_eq!(grouped(number), expected);
        }
    }
}
