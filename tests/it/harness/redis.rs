//! One redis-server for all tests of a process and its children: a log is a namespace of its own on it. `tests/run.sh` installs
//! the server.

use super::servers::{self, Says, Server, runtime};
pub use super::servers::{free_port, fresh_namespace};
pub use sluicebox::log::redis::Options;
use sluicebox::log::redis::RedisLog;
use sluicebox::log::{Log, LogError};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
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

pub(super) fn program() -> PathBuf {
    servers::program("SLUICEBOX_REDIS_SERVER", "target/redis-server/usr/bin/redis-server")
}

pub(super) fn command_of(program: &Path) -> Command {
    let mut command = Command::new(program);
    // What the package would have got from others beside it.
    let libraries = program.parent().and_then(Path::parent).map(|usr| usr.join("lib/x86_64-linux-gnu"));
    command.envs(libraries.filter(|path| path.exists()).map(|path| ("LD_LIBRARY_PATH", path)));
    command
}

/// Starts a server with its data in a folder.
fn start_in(folder: &Path, temporary: Option<&Path>, port: &str, arguments: &[&str]) -> Server {
    let mut command = command_of(&program());
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

    /// A replica of another one, that has what that one has.
    pub fn replica_of(master: &OwnServer, arguments: &[&str]) -> Self {
        let of = format!("127.0.0.1 {}", master.port);
        let replica = Self::start_with(&[&["--appendfsync", "always", "--replicaof", &of], arguments].concat());
        replica.until_linked();
        replica
    }

    /// Until it is a replica that has what its master has.
    pub fn until_linked(&self) {
        let begun = std::time::Instant::now();
        while !self.ask(&["INFO", "replication"]).contains("master_link_status:up") {
            assert!(begun.elapsed() < super::PATIENCE, "it does not reach its master");
            std::thread::yield_now();
        }
    }

    /// As `start_again`, without waiting until it answers.
    pub fn start_again_soon(mut self) -> std::thread::JoinHandle<Self> {
        std::thread::spawn(move || {
            self.start_again();
            self
        })
    }

    /// With these arguments from the next start on.
    pub fn set_arguments(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
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

    /// `redis-cli` on this server.
    pub fn cli(&self) -> Command {
        let mut command = command_of(&program().with_file_name("redis-cli"));
        command.args(["-p", &self.port]);
        command
    }

    /// What a plain client listens to with `redis-cli SUBSCRIBE`.
    pub fn subscribe(&self, channel: &str) -> Subscriber {
        let mut child = self.cli().args(["SUBSCRIBE", channel]).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, said) = sync_channel(100_000);
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let subscriber = Subscriber { child, said };
        // `subscribe`, the channel, and how many there are.
        (0..3).for_each(|_| drop(subscriber.line()));
        subscriber
    }

    /// What the server answers to a command, as it says it.
    pub fn ask(&self, words: &[&str]) -> String {
        ask(&self.url(), words)
    }
}

/// A `redis-cli` that listens; it ends when it is dropped.
pub struct Subscriber {
    child: Child,
    said: Receiver<String>,
}

impl Subscriber {
    fn line(&self) -> String {
        self.said.recv_timeout(super::PATIENCE).expect("nothing comes")
    }

    /// The next body.
    pub fn next(&self) -> String {
        assert_eq!(self.line(), "message");
        self.line();
        self.line()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the server at `url` answers to a command, as it says it.
pub fn ask(url: &str, words: &[&str]) -> String {
    let mut wire = Wire::connect(url).unwrap();
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    wire.send(&words).unwrap();
    let mut answer = vec![0; 64 * 1024];
    let length = wire.0.get_mut().read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// A connection of a client that is no library.
pub struct Wire(BufReader<TcpStream>);

impl Wire {
    pub fn connect(url: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(url.trim_start_matches("redis://"))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self(BufReader::new(stream)))
    }

    pub fn send(&mut self, words: &[&[u8]]) -> std::io::Result<()> {
        let mut command = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            command.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            command.extend_from_slice(word);
            command.extend_from_slice(b"\r\n");
        }
        self.0.get_mut().write_all(&command)
    }

    /// An answer that is one line, or one text.
    pub fn answer(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        let Some(length) = line.strip_prefix('$').and_then(|length| length.parse::<usize>().ok()) else {
            return Ok(line.to_owned());
        };
        let mut text = vec![0; length + 2];
        self.0.read_exact(&mut text)?;
        text.truncate(length);
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Sends a command and reads its answer.
    pub fn asked(&mut self, words: &[&str]) -> std::io::Result<String> {
        self.send(&words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>())?;
        self.answer()
    }
}
