//! A server that the bench starts for itself, and that ends with it, however it ends.

use anyhow::Context as _;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The program of this name: where a variable says, where `tests/run.sh` installs it, or on the path.
pub fn find(name: &str, variable: &str, installed: &str) -> anyhow::Result<PathBuf> {
    if let Some(program) = std::env::var_os(variable) {
        return Ok(program.into());
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places =
        std::iter::once(repository.join(installed)).chain(std::env::split_paths(&path).map(|at| at.join(name)));
    places.into_iter().find(|program| program.is_file()).with_context(|| {
        format!("there is no {name}: `tests/run.sh` installs it at {installed}, or set {variable} to where it is")
    })
}

/// A server and its data, which goes with it.
pub struct Server {
    pub process: u32,
    folder: tempfile::TempDir,
    shell: Child,
}

impl Server {
    /// Starts it with its data in a folder of its own, and reads what it says until `is_ready` is true of a line.
    pub fn start(
        program: &Path,
        arguments: impl Fn(&Path) -> Vec<std::ffi::OsString>,
        mut is_ready: impl FnMut(&str) -> bool,
    ) -> anyhow::Result<Self> {
        // The shell waits for the end of its input, which is the end of this process. Its own output is the number of the
        // process, and no other's.
        let script = r#""$0" "$@" <&- >&2 & echo $!; read -r _; kill -9 $!; wait 2>&-"#;
        let parent = std::env::var_os("SLUICEBOX_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
        let folder = tempfile::tempdir_in(parent)?;
        let libraries = program.parent().and_then(Path::parent).map(|usr| usr.join("lib/x86_64-linux-gnu"));
        let mut shell = Command::new("sh")
            .args([OsStr::new("-c"), OsStr::new(script), program.as_os_str()])
            .args(arguments(folder.path()))
            // What a package that was unpacked somewhere would have got from others beside it.
            .envs(libraries.filter(|path| path.exists()).map(|path| ("LD_LIBRARY_PATH", path)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("failed to start {}", program.display()))?;
        let (said, pid) = (shell.stderr.take().context("it is piped")?, shell.stdout.take().context("it is piped")?);
        let mut line = String::new();
        BufReader::new(pid).read_line(&mut line)?;
        let process = line.trim().parse().context("the shell says the process")?;
        let mut server = Self { process, folder, shell };
        let mut lines = BufReader::new(said).lines().map_while(Result::ok);
        if !lines.by_ref().any(|line| is_ready(&line)) {
            server.end();
            anyhow::bail!("{} ended before it was ready", program.display());
        }
        // It must not wait for somebody to read what it says.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(server)
    }

    /// Bytes of its data on the disk.
    pub fn bytes(&self) -> u64 {
        bytes_below(self.folder.path())
    }

    fn end(&mut self) {
        drop(self.shell.stdin.take());
        drop(self.shell.wait());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    bytes.sum()
}
