//! One nats-server for all tests of a process and its children: a log is a namespace of its own on it.
//!
//! `tests/run.sh` installs the server. It runs on a free port of this machine, keeps its data in a temporary folder, and ends
//! with the process that started it, however that ends.

use super::again;
use sluicebox::log::nats::{NatsLog, Options};
use sluicebox::log::{Log, LogError};
use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::runtime::Runtime;

/// Where `tests/run.sh` puts it, below the repository.
const INSTALLED: &str = "target/nats-server";
/// Of a server, in its folder.
const SETTINGS: &str = "server.conf";

/// A log of this name.
pub fn open(namespace: &str) -> Result<Arc<dyn Log>, LogError> {
    open_with(options(namespace))
}

/// A log of this name, as it is without settings.
pub fn options(namespace: &str) -> Options {
    Options::new(url(), namespace)
}

/// A log with other settings. Its tasks run beside the test's, so that it may be opened anywhere.
pub fn open_with(options: Options) -> Result<Arc<dyn Log>, LogError> {
    open_nats(options).map(|log| log as Arc<dyn Log>)
}

pub fn open_nats(options: Options) -> Result<Arc<NatsLog>, LogError> {
    let opened = std::thread::spawn(move || runtime().block_on(NatsLog::open(options)));
    Ok(Arc::new(opened.join().unwrap()?))
}

/// A name that no other log of this server has.
pub fn fresh_namespace() -> String {
    static LAST: AtomicU32 = AtomicU32::new(0);
    format!("t{}-{}", std::process::id(), LAST.fetch_add(1, Ordering::Relaxed))
}

/// The name that a directory stands for, in a process and its children.
pub fn namespace_of(directory: &Path) -> String {
    let text = directory.to_str().unwrap();
    let name: String = text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
    format!("d{}", &name[name.len().saturating_sub(50)..])
}

pub(super) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap())
}

/// Where the server is.
pub fn url() -> String {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| match again::directory_of_child() {
        Some(_) => std::fs::read_to_string(address_of(std::os::unix::process::parent_id())).unwrap(),
        None => start(),
    })
    .clone()
}

/// A child reads there what its parent found out.
fn address_of(process: u32) -> PathBuf {
    std::env::temp_dir().join(format!("sluicebox-nats-{process}")).join("url")
}

fn program() -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let installed = repository.join(INSTALLED).join("bin/nats-server");
    match std::env::var_os("SLUICEBOX_NATS_SERVER").map(PathBuf::from) {
        Some(program) => program,
        None if installed.exists() => installed,
        None => panic!("there is no nats-server at {}: `tests/run.sh` installs it", installed.display()),
    }
}

fn start() -> String {
    let address = address_of(std::process::id());
    let folder = address.parent().unwrap();
    drop(std::fs::remove_dir_all(folder));
    std::fs::create_dir_all(folder).unwrap();
    let (shell, port) = start_in(folder, "-1", &["-js"]);
    let url = format!("nats://127.0.0.1:{port}");
    std::fs::File::create(&address).unwrap().write_all(url.as_bytes()).unwrap();
    // As long as this process.
    std::mem::forget(shell);
    url
}

/// Starts a server with its data in a folder, and returns what ends it when its input ends, and its port.
fn start_in<S: AsRef<OsStr>>(folder: &Path, port: &str, arguments: &[S]) -> (Child, String) {
    // A shell waits for the end of its input, which is the end of this process, also when it is killed.
    let script = r#""$0" "$@" <&- & server=$!; read -r _; kill -9 $server; wait $server 2>&-; rm -rf "$REMOVE""#;
    let mut shell = Command::new("sh")
        .args(["-c", script])
        .arg(program())
        .args(["-a", "127.0.0.1", "-p", port, "-sd"])
        .arg(folder.join("data"))
        .args(arguments)
        // The data of one that is started again stays.
        .env("REMOVE", if port == "-1" { folder } else { Path::new("/nonexistent") })
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(shell.stderr.take().unwrap()).lines();
    let mut port = None;
    let is_ready = lines.by_ref().map_while(Result::ok).any(|line| {
        if let Some((_, found)) = line.split_once("client connections on 127.0.0.1:") {
            port = Some(found.trim().to_owned());
        }
        line.contains("Server is ready")
    });
    assert!(is_ready, "nats-server ended before it was ready");
    // What it says later is nobody's, but it must not wait for it.
    std::thread::spawn(move || lines.for_each(drop));
    (shell, port.expect("the server says its port"))
}

/// A server of one test, which may kill it.
pub struct OwnServer {
    folder: tempfile::TempDir,
    port: String,
    arguments: Vec<OsString>,
    shell: Option<Child>,
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
        let (shell, port) = start_in(folder.path(), port, &arguments);
        Self { folder, port, arguments, shell: Some(shell) }
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
        if let Some(mut shell) = self.shell.take() {
            drop(shell.stdin.take());
            shell.wait().unwrap();
        }
    }

    /// With the same data, at the same place.
    pub fn start_again(&mut self) {
        self.shell = Some(start_in(self.folder.path(), &self.port, &self.arguments).0);
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody listens on.
pub(super) fn free_port() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}
