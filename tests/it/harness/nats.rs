//! One nats-server for all tests of a process and its children: a log is a namespace of its own on it. `tests/run.sh` installs
//! the server.

use super::servers::{self, Says, Server, runtime};
pub use super::servers::{free_port, fresh_namespace, namespace_of};
use sluicebox::log::nats::NatsLog;
pub use sluicebox::log::nats::Options;
use sluicebox::log::{Log, LogError};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};

/// As every engine calls it.
pub use self::open_nats as open_own;

/// Of a server, in its folder.
const SETTINGS: &str = "server.conf";
const PROCESS: &str = "process";

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
    open_nats(options).map(|log| log as Arc<dyn Log>)
}

/// As `open_with`. Its tasks run beside the test's, so that it may be opened anywhere.
pub fn open_nats(options: Options) -> Result<Arc<NatsLog>, LogError> {
    let opened = std::thread::spawn(move || runtime().block_on(NatsLog::open(options)));
    Ok(Arc::new(opened.join().unwrap()?))
}

/// Where the server is.
pub fn url() -> String {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| {
        servers::shared("nats", |folder| {
            let (server, port) = start_in(folder, "-1", &["-js"]);
            (server, format!("nats://127.0.0.1:{port}"))
        })
    })
    .clone()
}

/// Starts a server with its data in a folder, and says on which port.
fn start_in<S: AsRef<OsStr>>(folder: &Path, port: &str, arguments: &[S]) -> (Server, String) {
    let mut command = Command::new(servers::program("SLUICEBOX_NATS_SERVER", "target/nats-server/bin/nats-server"));
    command
        .args(["-a", "127.0.0.1", "-p", port, "-sd"])
        .arg(folder.join("data"))
        .arg("-P")
        .arg(folder.join(PROCESS))
        .args(arguments);
    // The data of one that is started again stays.
    let temporary = (port == "-1").then_some(folder);
    let mut found = None;
    let server = Server::start(&command, temporary, Says::ToErrors, |line| {
        if let Some((_, port)) = line.split_once("client connections on 127.0.0.1:") {
            found = Some(port.trim().to_owned());
        }
        line.contains("Server is ready")
    });
    (server, found.expect("the server says its port"))
}

/// A server of one test, which may kill it.
pub struct OwnServer {
    folder: tempfile::TempDir,
    port: String,
    arguments: Vec<OsString>,
    server: Option<Server>,
}

impl OwnServer {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With these arguments, also when it is started again.
    pub fn start_with(arguments: &[&str]) -> Self {
        let arguments = ["-js"].iter().chain(arguments).map(OsString::from).collect();
        Self::start_at(tempfile::tempdir().unwrap(), &free_port(), arguments)
    }

    /// With this file of settings, which says whether it has JetStream; its data has a place.
    pub fn configured(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(SETTINGS);
        std::fs::write(&file, settings).unwrap();
        Self::start_at(folder, &free_port(), vec!["-c".into(), file.into()])
    }

    pub(super) fn start_at(folder: tempfile::TempDir, port: &str, arguments: Vec<OsString>) -> Self {
        let (server, port) = start_in(folder.path(), port, &arguments);
        Self { folder, port, arguments, server: Some(server) }
    }

    pub fn port(&self) -> u16 {
        self.port.parse().unwrap()
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// With encryption, by the name that certificates of tests have.
    pub fn tls_url(&self) -> String {
        format!("tls://localhost:{}", self.port)
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// One that was [`OwnServer::configured`] reads other settings while it runs; it takes a moment.
    pub fn reconfigure(&self, settings: &str) {
        std::fs::write(self.folder.path().join(SETTINGS), settings).unwrap();
        let process = std::fs::read_to_string(self.folder.path().join(PROCESS)).unwrap();
        assert!(Command::new("kill").args(["-HUP", process.trim()]).status().unwrap().success());
    }

    /// With the same data, at the same place.
    pub fn start_again(&mut self) {
        self.server = Some(start_in(self.folder.path(), &self.port, &self.arguments).0);
    }
}
