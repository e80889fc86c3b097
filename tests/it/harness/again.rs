//! A test in a process of its own: the test binary runs one of its tests again, as the child of that test.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

const DIRECTORY: &str = "SLUICEBOX_TEST_CHILD";

/// In the child, the directory it works on; `None` in the test itself.
pub fn directory_of_child() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY).map(PathBuf::from)
}

/// A command that runs the test `name` (its full path within the binary) as a child.
pub fn child(name: &str, directory: &Path) -> Command {
    with_program(Command::new(std::env::current_exe().unwrap()), name, directory)
}

/// As [`child`], in a shell that first runs `setup`.
pub fn child_in_shell(setup: &str, name: &str, directory: &Path) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{setup}; exec \"$0\" \"$@\"")).arg(std::env::current_exe().unwrap());
    with_program(shell, name, directory)
}

fn with_program(mut command: Command, name: &str, directory: &Path) -> Command {
    command.args([name, "--exact", "--nocapture"]).env(DIRECTORY, directory).stdout(Stdio::piped());
    command
}

/// What a child said with [`say`], line by line, until it ends.
pub struct Said(std::io::Lines<BufReader<ChildStdout>>);

const MARKER: &str = "child says: ";

/// Called by the child.
pub fn say(what: impl std::fmt::Display) {
    println!("{MARKER}{what}");
}

/// Listens to a child.
pub fn listen(child: &mut Child) -> Said {
    Said(BufReader::new(child.stdout.take().unwrap()).lines())
}

impl Iterator for Said {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        loop {
            // The test harness prints lines of its own, and begins one before the test's first.
            let line = self.0.next()?.unwrap();
            if let Some((_, said)) = line.split_once(MARKER) {
                return Some(said.to_owned());
            }
        }
    }
}
