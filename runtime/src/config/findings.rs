//! Collects problems while the settings are read, so that one look shows all of them.

use super::problem::{EXCERPT_CHARS_MAX, Excerpt, Location, Problem, Severity};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// More problems than this are not collected: nobody reads them.
const PROBLEMS_MAX: usize = 100;

/// The problems found so far in one file.
pub(super) struct Findings<'s> {
    file: PathBuf,
    text: &'s str,
    /// Bytes of the file that may hold secrets.
    secret: Vec<Range<usize>>,
    problems: Vec<Problem>,
}

impl<'s> Findings<'s> {
    pub(super) fn new(file: &Path, text: &'s str) -> Self {
        Self { file: file.into(), text, secret: vec![], problems: vec![] }
    }

    /// The lines of this span are never shown.
    pub(super) fn conceal(&mut self, span: Range<usize>) {
        self.secret.push(span);
    }

    /// Records an error at a place of the file.
    pub(super) fn error(&mut self, span: Range<usize>, message: impl Into<String>) -> &mut Problem {
        let place = Some(self.place(span));
        self.add(Severity::Error, self.file.clone(), place, message.into())
    }

    /// Records a doubt at a place of the file.
    pub(super) fn warning(&mut self, span: Range<usize>, message: impl Into<String>) -> &mut Problem {
        let place = Some(self.place(span));
        self.add(Severity::Warning, self.file.clone(), place, message.into())
    }

    /// Records an error in a value that came from a flag or a variable.
    pub(super) fn error_in(&mut self, origin: &str, message: impl Into<String>) -> &mut Problem {
        self.add(Severity::Error, origin.into(), None, message.into())
    }

    /// Adds a hint to what was recorded last.
    pub(super) fn last_hint(&mut self, hint: &str) {
        self.problems.last_mut().expect("called right after a problem was recorded").hint(hint);
    }

    /// All of them, in the order of the file.
    pub(super) fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| problem.place.as_ref().map(|place| (place.line, place.column)));
        self.problems.truncate(PROBLEMS_MAX);
        self.problems
    }

    fn add(&mut self, severity: Severity, file: PathBuf, place: Option<Location>, message: String) -> &mut Problem {
        // A sink beyond the bound, so that every caller gets a problem to add to.
        self.problems.truncate(PROBLEMS_MAX);
        self.problems.push(Problem { severity, file, place, message, expected: None, hint: None });
        self.problems.last_mut().expect("one was just pushed")
    }

    fn place(&self, span: Range<usize>) -> Location {
        let start = floor_char_boundary(self.text, span.start);
        let end = floor_char_boundary(self.text, span.end).max(start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |at| start + at);
        let line = self.text[..start].matches('\n').count() + 1;
        let column = self.text[line_start..start].chars().count() + 1;
        let shown = self.text[line_start..line_end].trim_end();
        let fits = shown.chars().count() <= EXCERPT_CHARS_MAX;
        let excerpt = (fits && !self.is_secret(line_start..line_end)).then(|| Excerpt {
            // A tab would move the marker below.
            text: shown.replace('\t', " "),
            width: self.text[start..end.min(line_end).max(start)].trim_end().chars().count(),
        });
        Location { line, column, excerpt }
    }

    /// Whether a line may hold a secret: it lies in a `config` table, or, where broken syntax hides that, looks like it.
    fn is_secret(&self, line: Range<usize>) -> bool {
        let heading = self.text[..line.end].lines().rev().find(|text| text.trim_start().starts_with('['));
        self.secret.iter().any(|span| span.start <= line.end && line.start < span.end)
            || self.text[line].trim_start().starts_with("config")
            || heading.is_some_and(|heading| heading.contains("config"))
    }
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}
