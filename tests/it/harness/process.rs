//! A real host in a process of its own, in a temporary folder, on a free port.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_sluicebox");

const HEARD: &str = "heard.txt";

/// A folder with settings, modules and data; hosts come and go in it.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// `settings` without [log] and [http], which every test has alike; `modules` are put beside them.
    pub fn new(settings: &str, modules: &[&Path]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for module in modules {
            std::fs::copy(module, folder.path().join(module.file_name().unwrap())).unwrap();
        }
        let place = Self { folder };
        place.settings(settings);
        place
    }

    /// Replaces the settings.
    pub fn settings(&self, settings: &str) {
        let log = "[log]\nkind = \"embedded\"\npath = \"data\"\n[http]\nlisten = \"127.0.0.1:0\"\n";
        std::fs::write(self.path().join("sluicebox.toml"), format!("namespace = \"test\"\n{log}{settings}")).unwrap();
    }

    /// Puts a file there as a whole, as `sluicebox build` does.
    pub fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let whole = self.path().join(format!("{name}.new"));
        std::fs::write(&whole, bytes).unwrap();
        std::fs::rename(whole, self.path().join(name)).unwrap();
    }

    /// What hosts said since the first [`Place::start_heard`], as they would on a terminal.
    pub fn heard(&self) -> String {
        std::fs::read_to_string(self.path().join(HEARD)).unwrap_or_default()
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// Starts a host and waits until it is ready.
    pub fn start(&self) -> Process {
        self.start_with(&[])
    }

    /// As `start`, with variables. A host that ends before it is ready has no URL.
    pub fn start_with(&self, variables: &[(&str, &str)]) -> Process {
        self.spawn("warn", variables, Stdio::null())
    }

    /// As `start`; what the host says can be read with [`Place::heard`].
    pub fn start_heard(&self) -> Process {
        self.start_heard_at("info")
    }

    /// As `start_heard`, with this filter of diagnostics.
    pub fn start_heard_at(&self, diagnostics: &str) -> Process {
        let heard = std::fs::File::options().create(true).append(true).open(self.path().join(HEARD)).unwrap();
        self.spawn(diagnostics, &[], heard.into())
    }

    /// As `start_heard`, with these arguments and variables. A host that ends before it is ready has no URL.
    pub fn start_by(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Process {
        let heard = std::fs::File::options().create(true).append(true).open(self.path().join(HEARD)).unwrap();
        self.spawn_by("info", arguments, variables, heard.into())
    }

    /// Runs `sluicebox dev` in the folder, which holds crates too, and waits until it is ready.
    pub async fn dev(&self, variables: &[(&str, &Path)]) -> Process {
        let heard = std::fs::File::create(self.path().join(HEARD)).unwrap();
        let mut child = Command::new(PROGRAM)
            .arg("dev")
            .current_dir(self.path())
            .envs(variables.iter().copied())
            .stdout(heard.try_clone().unwrap())
            .stderr(heard)
            .spawn()
            .unwrap();
        let mut pace = tokio::time::interval(std::time::Duration::from_millis(50));
        loop {
            let heard = self.heard();
            let ready = heard.lines().find_map(|line| line.strip_prefix("ready at "));
            if let Some(url) = ready.filter(|_| heard.contains("stop with Ctrl-C")) {
                return Process { child, url: url.to_owned(), client: client() };
            }
            assert!(child.try_wait().unwrap().is_none(), "it ended: {heard}");
            pace.tick().await;
        }
    }

    fn spawn(&self, diagnostics: &str, variables: &[(&str, &str)], says: Stdio) -> Process {
        self.spawn_by(diagnostics, &[], variables, says)
    }

    fn spawn_by(&self, diagnostics: &str, arguments: &[&str], variables: &[(&str, &str)], says: Stdio) -> Process {
        let mut child = Command::new(PROGRAM)
            .args(["run", "--json", "--diagnostics", diagnostics])
            .args(arguments)
            .current_dir(self.path())
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(says)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Option<serde_json::Value> = serde_json::from_str(&line).ok();
        let url = ready.and_then(|ready| ready["url"].as_str().map(str::to_owned)).unwrap_or_default();
        Process { child, url, client: client() }
    }

    /// Runs a command of the program in the folder; its exit code, output and diagnostics.
    pub fn command(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(PROGRAM).args(arguments).current_dir(self.path()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }
}

/// One whose questions end, whatever the host does.
fn client() -> reqwest::Client {
    reqwest::Client::builder().timeout(super::PATIENCE).build().unwrap()
}

/// A running host; killed when dropped.
pub struct Process {
    child: Child,
    /// Empty if it ended before it was ready.
    pub url: String,
    pub client: reqwest::Client,
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGSTOP: it sleeps until [`Process::wake`], and nothing tells it.
    pub fn sleep(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// SIGCONT.
    pub fn wake(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.ended()
    }

    /// Whether it ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for it to end by itself.
    pub fn ended(self) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        let (to, ended) = std::sync::mpsc::sync_channel(1);
        let mut process = self;
        std::thread::spawn(move || to.send(process.child.wait()));
        match ended.recv_timeout(super::PATIENCE) {
            Ok(status) => status.unwrap(),
            Err(_) => {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
                panic!("the host does not end");
            }
        }
    }

    /// Publishes one message; true if the host said that it is durable.
    pub async fn publish(&self, topic: &str, key: Option<&str>, id: Option<&str>, body: &str) -> bool {
        let mut request = self.client.post(format!("{}/v1/topics/{topic}", self.url)).body(body.to_owned());
        for (name, value) in [("sluicebox-key", key), ("sluicebox-id", id)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        request.send().await.is_ok_and(|response| response.status().is_success())
    }

    pub async fn get(&self, path: &str) -> String {
        self.client.get(format!("{}{path}", self.url)).send().await.unwrap().text().await.unwrap()
    }

    /// The value of a metric, named without the prefix that all of them share; 0 if it is not there.
    pub async fn metric(&self, name: &str) -> u64 {
        let metrics = self.get("/metrics").await;
        let mut lines = metrics.lines();
        let line = lines.find_map(|line| line.strip_prefix("sluicebox_")?.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse::<f64>().unwrap() as u64)
    }

    /// Asks again until `done`, at most for the patience of the tests.
    pub async fn until(&self, what: &str, mut done: impl AsyncFnMut(&Self) -> bool) {
        let asks = async {
            let mut pace = tokio::time::interval(std::time::Duration::from_millis(20));
            while !done(self).await {
                pace.tick().await;
            }
        };
        let asked = tokio::time::timeout(super::PATIENCE, asks).await;
        assert!(asked.is_ok(), "waited in vain until {what}\n{}", self.get("/metrics").await);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A test that failed leaves nothing behind; one that ended the process finds nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
