//! One thing that is wrong with the settings, as a person and as a program see it.

use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

/// Something wrong, or doubtful, in the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub severity: Severity,
    /// The file, or the flag or variable that the value came from.
    pub file: PathBuf,
    /// `None`: the problem is not at one place of the file.
    pub place: Option<Location>,
    pub message: String,
    /// What may stand there.
    pub expected: Option<String>,
    /// What to do.
    pub hint: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The settings are refused.
    Error,
    /// They are taken.
    Warning,
}

/// A place in the file; line and column count from 1, the column in characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Location {
    pub line: usize,
    pub column: usize,
    /// The line itself, unless it may hold a secret.
    #[serde(skip)]
    pub excerpt: Option<Excerpt>,
}

/// The text of a line and how many characters of it are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    pub text: String,
    pub width: usize,
}

/// A longer line is not shown: the line number has to do.
pub(super) const EXCERPT_CHARS_MAX: usize = 160;

impl Problem {
    /// Adds what may stand there instead.
    pub(super) fn expected(&mut self, expected: impl Into<String>) -> &mut Self {
        self.expected = Some(expected.into());
        self
    }

    /// Shows nothing of the line after the part that is meant.
    pub(super) fn cut_excerpt(&mut self) -> &mut Self {
        if let Some(Location { column, excerpt: Some(excerpt), .. }) = &mut self.place {
            let shown = *column - 1 + excerpt.width;
            if excerpt.text.chars().count() > shown {
                excerpt.text = excerpt.text.chars().take(shown).chain(" …".chars()).collect();
            }
        }
        self
    }

    /// Adds what to do.
    pub(super) fn hint(&mut self, hint: impl Into<String>) -> &mut Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(f, "{severity}: {}", self.message)?;
        write!(f, "  --> {}", self.file.display())?;
        if let Some(Location { line, column, excerpt }) = &self.place {
            writeln!(f, ":{line}:{column}")?;
            if let Some(Excerpt { text, width }) = excerpt {
                let number = line.to_string();
                let margin = " ".repeat(number.len());
                writeln!(f, "{number} | {text}")?;
                writeln!(f, "{margin} | {}{}", " ".repeat(column - 1), "^".repeat((*width).max(1)))?;
            }
        } else {
            writeln!(f)?;
        }
        if let Some(expected) = &self.expected {
            writeln!(f, "  expected: {expected}")?;
        }
        if let Some(hint) = &self.hint {
            writeln!(f, "  hint: {hint}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with the settings: at least one error, and the warnings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// How many of them are errors.
    pub fn errors(&self) -> usize {
        self.0.iter().filter(|problem| problem.severity == Severity::Error).count()
    }

    /// How many, in words.
    pub fn summary(&self) -> String {
        match self.errors() {
            1 => "1 error in the settings".into(),
            errors => format!("{errors} errors in the settings"),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            writeln!(f, "{problem}")?;
        }
        f.write_str(&self.summary())
    }
}
