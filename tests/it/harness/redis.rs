//! One redis-server for all tests of a process and its children: a log is a namespace of its own on it. `tests/run.sh` installs
//! the server.

pub use super::servers::fresh_namespace;
use super::servers::{self, Says, Server, free_port, runtime};
pub use sluicebox::log::redis::Options;
use sluicebox::log::redis::RedisLog;
use sluicebox::log::{Log, LogError};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A log of this name.
pub fn open(namespace: &str) -> Result<Arc<dyn Log>, LogError> {
    open_with(options(namespace))
}

/// A log of this name, as it is without settings.
pub fn options(namespace: &str) -> Options {
    Options::new(url(), namespace)
}

/// A log with other settings.
pub fn open_with(options: Options) -> Result<Arc<dyn Log>, LogError> {
    open_own(options).map(|log| log as Arc<dyn Log>)
}

/// As `open_with`. Its tasks run beside the test's, so that it may be opened anywhere.
pub fn open_own(options: Options) -> Result<Arc<RedisLog>, LogError> {
    let opened = std::thread::spawn(move || runtime().block_on(RedisLog::open(options)));
    Ok(Arc::new(opened.join().unwrap()?))
}

/// Where the server is.
pub fn url() -> String {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| {
        servers::shared("redis", |folder| {
            let port = free_port();
            (start_in(folder, Some(folder), &port, &["--appendfsync", "everysec"]), format!("redis://127.0.0.1:{port}"))
        })
    })
    .clone()
}

/// Starts a server with its data in a folder.
fn start_in(folder: &Path, temporary: Option<&Path>, port: &str, arguments: &[&str]) -> Server {
    let program = servers::program("SLUICEBOX_REDIS_SERVER", "target/redis-server/usr/bin/redis-server");
    let mut command = Command::new(&program);
    // What the package would have got from others beside it.
    let libraries = program.parent().and_then(Path::parent).map(|usr| usr.join("lib/x86_64-linux-gnu"));
    command.envs(libraries.filter(|path| path.exists()).map(|path| ("LD_LIBRARY_PATH", path)));
    command.args(["--bind", "127.0.0.1", "--port", port, "--appendonly", "yes", "--save", "", "--dir"]);
    command.arg(folder).args(arguments);
    Server::start(&command, temporary, Says::ToOutput, |line| line.contains("Ready to accept connections"))
}

/// A server of one test, which may kill it.
pub struct OwnServer {
    folder: tempfile::TempDir,
    port: String,
    arguments: Vec<String>,
    server: Option<Server>,
}

impl OwnServer {
    /// One that syncs before it answers.
    pub fn start() -> Self {
        Self::start_with(&["--appendfsync", "always"])
    }

    pub fn start_with(arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut own = Self { folder: tempfile::tempdir().unwrap(), port: free_port(), arguments, server: None };
        own.start_again();
        own
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port.parse().unwrap()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// With the same data, at the same place.
    pub fn start_again(&mut self) {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        self.server = Some(start_in(self.folder.path(), None, &self.port, &arguments));
    }

    /// What the server answers to a command, as it says it.
    pub fn ask(&self, words: &[&str]) -> String {
        ask(&self.url(), words)
    }
}

/// What the server at `url` answers to a command, as it says it.
pub fn ask(url: &str, words: &[&str]) -> String {
    let mut stream = std::net::TcpStream::connect(url.trim_start_matches("redis://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut command = format!("*{}\r\n", words.len());
    for word in words {
        command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(command.as_bytes()).unwrap();
    let mut answer = vec![0; 64 * 1024];
    let length = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}
