//! What a person sees for bad settings, word for word: the table is `messages.txt`.
//!
//! A case is a line `=== name`, the settings, a line `---`, and what is shown; `DIR` is the folder of the file. The line
//! `@handler` stands for the first three lines of a handler.

use super::{Files, handler};
use crate::config::Overrides;

const TABLE: &str = include_str!("messages.txt");

struct Case {
    name: &'static str,
    settings: String,
    shown: &'static str,
}

fn cases() -> impl Iterator<Item = Case> {
    TABLE.split("=== ").skip(1).map(|case| {
        let (name, rest) = case.split_once('\n').unwrap();
        let (settings, shown) = rest.split_once("\n---\n").unwrap();
        Case { name, settings: settings.replace("@handler\n", &handler("").replace("\n\n", "\n")), shown }
    })
}

#[test]
fn bad_settings_are_shown_with_place_expectation_and_hint_word_for_word() {
    let files = Files::new();
    let mut different = String::new();
    for Case { name, settings, shown } in cases() {
        let problems = files.parse(&settings, &Overrides::default()).expect_err(name);
        let found = problems.to_string().replace(files.0.path().to_str().unwrap(), "DIR");
        if found.trim_end() != shown.trim_end() {
            different += &format!("=== {name}\n{settings}\n---\n{found}\n");
        }
        for problem in problems.0 {
            assert!(problem.expected.is_some() && problem.hint.is_some(), "{name} does not say what to do: {problem}");
        }
    }
    assert!(different.is_empty(), "the table says something else about these:\n{different}");
    assert!(cases().count() >= 40);
}
