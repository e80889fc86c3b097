//! Servers of other programs that tests start, on this machine alone, with their data in temporary folders: each ends with the
//! process that started it, however that ends.

use super::again;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::runtime::Runtime;

/// A name that no other log of this process has.
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

/// Where logs are opened, so that their tasks run beside the test's.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap())
}

/// A program that `tests/run.sh` puts below the repository, unless the variable names another one.
pub fn program(variable: &str, installed: &str) -> PathBuf {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(installed);
    match std::env::var_os(variable).map(PathBuf::from) {
        Some(program) => program,
        None if installed.exists() => installed,
        None => panic!("there is no {}: `tests/run.sh` installs it", installed.display()),
    }
}

/// A port that nobody listened on a moment ago, of those that connections are not given by themselves: a server that is away
/// for a while finds it free again, whoever tries to reach it meanwhile.
pub fn free_port() -> String {
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let drawn = std::iter::repeat_with(|| rand::random_range(10_000..32_000));
    drawn.take(1000).find(is_free).expect("some port is free").to_string()
}

/// The address of the one server of a kind for this process and its children: started with its data in a folder, if this
/// process is no child.
pub fn shared(kind: &str, start: impl FnOnce(&Path) -> (Server, String)) -> String {
    // A child reads there what its parent found out.
    let address_of = |process: u32| std::env::temp_dir().join(format!("sluicebox-{kind}-{process}")).join("url");
    if again::directory_of_child().is_some() {
        return std::fs::read_to_string(address_of(std::os::unix::process::parent_id())).unwrap();
    }
    let address = address_of(std::process::id());
    let folder = address.parent().unwrap();
    drop(std::fs::remove_dir_all(folder));
    std::fs::create_dir_all(folder).unwrap();
    let (server, url) = start(folder);
    std::fs::File::create(&address).unwrap().write_all(url.as_bytes()).unwrap();
    // As long as this process.
    std::mem::forget(server);
    url
}

/// Where a server says that it is ready.
pub enum Says {
    ToOutput,
    ToErrors,
}

/// A running server.
pub struct Server(Child);

impl Server {
    /// Starts it and listens until `is_ready` hears of it. A folder goes when the server ends.
    pub fn start(
        command: &Command,
        temporary: Option<&Path>,
        says: Says,
        is_ready: impl FnMut(String) -> bool,
    ) -> Self {
        // A shell waits for the end of its input, which is the end of this process, also when it is killed. What it says
        // itself is nobody's, so the end of the server is the end of what is heard.
        let script = r#""$0" "$@" <&- & server=$!; exec >&- 2>&-; read -r _; kill -9 $server; wait $server 2>&-; rm -rf "$REMOVE""#;
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).arg(command.get_program()).args(command.get_args());
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.env("REMOVE", temporary.unwrap_or(Path::new("/nonexistent"))).stdin(Stdio::piped());
        match says {
            Says::ToOutput => shell.stdout(Stdio::piped()).stderr(Stdio::null()),
            Says::ToErrors => shell.stdout(Stdio::null()).stderr(Stdio::piped()),
        };
        let mut shell = shell.spawn().unwrap();
        let said: Box<dyn Read + Send> = match says {
            Says::ToOutput => Box::new(shell.stdout.take().unwrap()),
            Says::ToErrors => Box::new(shell.stderr.take().unwrap()),
        };
        let mut lines = BufReader::new(said).lines();
        let started = lines.by_ref().map_while(Result::ok).any(is_ready);
        assert!(started, "{:?} ended before it was ready", command.get_program());
        // What it says later is nobody's, but it must not wait for it.
        std::thread::spawn(move || lines.for_each(drop));
        Self(shell)
    }
}

/// SIGKILL.
impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}
