//! Settings through the real program: what wins over what, and that secrets are seen nowhere.

use crate::harness::guests::handler;
use crate::harness::process::PROGRAM;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A folder with three of everything that a setting can name: one for the file, one for the variable, one for the flag.
struct Layers(tempfile::TempDir);

const LAYERS: [&str; 3] = ["file", "variable", "flag"];

impl Layers {
    fn new() -> Self {
        let layers = Self(tempfile::tempdir().unwrap());
        for name in LAYERS {
            fs::write(layers.path(&format!("{name}.token")), token(name)).unwrap();
        }
        let settings = "namespace = \"by-file\"\n[log]\npath = \"file.data\"\n[http]\nlisten = \"127.0.0.2:0\"\n\
                        token_file = \"file.token\"\n";
        fs::write(layers.path("sluicebox.toml"), settings).unwrap();
        layers
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

fn token(layer: &str) -> String {
    format!("0123456789abcdef-{layer}")
}

/// The program without the variables of whoever runs the tests.
fn program(folder: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SLUICEBOX_")) {
        command.env_remove(name);
    }
    command.current_dir(folder).stdin(Stdio::null());
    command
}

/// A host that is killed when it is dropped.
struct Host {
    child: Child,
    url: String,
}

impl Host {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        Self { child, url: ready["url"].as_str().unwrap_or_default().to_owned() }
    }

    /// SIGTERM, and waits for the end: what it said is written by then.
    fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap();
    }

    async fn get(&self, path: &str, token: &str) -> (u16, String) {
        let request = reqwest::Client::new().get(format!("{}{path}", self.url)).bearer_auth(token);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a host with the layers below `top` and the top one itself, and looks which one it took.
async fn check_taken(top: usize) {
    let layers = Layers::new();
    let mut command = program(layers.0.path());
    command.args(["run", "--json"]).stderr(Stdio::null());
    let values = |layer: &str, address: &str| {
        let (data, token) = (format!("{layer}.data"), format!("{layer}.token"));
        [
            ("LISTEN", format!("{address}:0")),
            ("DATA", data),
            ("TOKEN_FILE", token),
            ("NAMESPACE", format!("by-{layer}")),
        ]
    };
    if top >= 1 {
        for (name, value) in values("variable", "127.0.0.3") {
            command.env(format!("SLUICEBOX_{name}"), value);
        }
    }
    if top >= 2 {
        for (name, value) in values("flag", "127.0.0.4") {
            command.arg(format!("--{}", name.to_lowercase().replace('_', "-"))).arg(value);
        }
    }
    let host = Host::start(&mut command);
    let name = LAYERS[top];
    assert!(host.url.starts_with(&format!("http://127.0.0.{}:", top + 2)), "{name}: {}", host.url);
    for (layer, other) in LAYERS.iter().enumerate() {
        let (status, answer) = host.get("/v1/status", &token(other)).await;
        assert_eq!(status, if layer == top { 200 } else { 401 }, "the token of {other} where {name} is on top");
        if layer == top {
            let status: serde_json::Value = serde_json::from_str(&answer).unwrap();
            assert_eq!(status["namespace"], format!("by-{name}"));
        }
        assert_eq!(layers.path(&format!("{other}.data")).is_dir(), layer == top, "{other}.data where {name} is on top");
    }
}

#[tokio::test]
async fn the_file_is_taken_where_nothing_stands_above_it() {
    check_taken(0).await;
}

#[tokio::test]
async fn variables_win_over_the_file_in_every_setting_that_has_one() {
    check_taken(1).await;
}

#[tokio::test]
async fn flags_win_over_variables_in_every_setting_that_has_one() {
    check_taken(2).await;
}

#[test]
fn the_flag_that_names_the_file_and_those_of_diagnostics_win_over_their_variables() {
    let layers = Layers::new();
    fs::write(layers.path("variable.toml"), "namespace = 1").unwrap();
    fs::write(layers.path("flag.toml"), "namespace = 2").unwrap();
    for (arguments, expected) in [(&["check"][..], "variable.toml"), (&["check", "--config", "flag.toml"], "flag.toml")]
    {
        let output =
            program(layers.0.path()).args(arguments).env("SLUICEBOX_CONFIG", "variable.toml").output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{expected}: refused, 1 error\n"));
    }
    // A filter or format that is none shows that it was looked at.
    let diagnostics = |arguments: &[&str]| {
        let mut command = program(layers.0.path());
        command.args(["check", "--settings-only"]).args(arguments);
        command.env("SLUICEBOX_DIAGNOSTICS", "a=b=c").output().unwrap()
    };
    assert_eq!(diagnostics(&[]).status.code(), Some(2));
    assert_eq!(diagnostics(&["--diagnostics", "warn"]).status.code(), Some(0));
    for (arguments, is_json) in [(&[][..], true), (&["--diagnostics-format", "text"], false)] {
        let mut command = program(layers.0.path());
        command.args(["run", "--json"]).args(arguments).env("SLUICEBOX_DIAGNOSTICS_FORMAT", "json");
        command.stderr(fs::File::create(layers.path("diagnostics")).unwrap());
        let host = Host::start(&mut command);
        assert!(host.url.starts_with("http://127.0.0.2:"), "{}", host.url);
        host.stop();
        let written = fs::read_to_string(layers.path("diagnostics")).unwrap();
        assert_eq!(written.starts_with('{'), is_json, "{arguments:?}: {written}");
    }
}

#[test]
fn a_client_takes_the_host_of_the_flag_before_that_of_the_variable() {
    let layers = Layers::new();
    for (arguments, port) in [(&["status"][..], 1), (&["status", "--url", "http://127.0.0.1:2"], 2)] {
        let mut command = program(layers.0.path());
        let output = command.args(arguments).env("SLUICEBOX_URL", "http://127.0.0.1:1").output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(4), "{error}");
        assert!(error.contains(&format!("could not reach a host at http://127.0.0.1:{port}")), "{error}");
    }
}

#[tokio::test]
async fn a_named_settings_file_says_which_host_is_asked_with_which_token_from_any_folder() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = |name: &str| folder.path().join(name);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = |port: u16| {
        let http = format!("[http]\nlisten = \"127.0.0.1:{port}\"\ntoken_file = \"token\"\n");
        fs::write(path("sluicebox.toml"), format!("namespace = \"far\"\n{http}")).unwrap();
    };
    fs::write(path("token"), "0123456789abcdef\n").unwrap();
    settings(port);
    let host = Host::start(program(folder.path()).args(["run", "--json"]).stderr(Stdio::null()));
    let file = path("sluicebox.toml");
    let file = file.to_str().unwrap();
    let command = |arguments: &[&str], variables: &[(&str, &str)]| {
        let output = program(elsewhere.path()).args(arguments).envs(variables.iter().copied()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let others = [("SLUICEBOX_URL", "http://127.0.0.1:1"), ("SLUICEBOX_TOKEN", "that-of-another-host")];
    for variables in [&[][..], &others] {
        let (exit, _, error) = command(&["publish", "a", "1", "-c", file], variables);
        assert_eq!(exit, Some(0), "{error}");
        let (exit, shown, error) = command(&["status", "-c", file], variables);
        assert!(exit == Some(0) && shown.contains("namespace far, ready"), "{shown}{error}");
    }
    let (exit, shown, _) = command(&["tail", "-c", file, "--from", "earliest", "--no-follow"], &[]);
    assert_eq!((exit, shown.lines().count()), (Some(0), 2));

    // It listens elsewhere than the file says by now, and still runs.
    settings(1);
    let (exit, shown, error) = command(&["status", "-c", file], &[]);
    assert_eq!(exit, Some(0), "{error}");
    for told in [&shown, &error] {
        assert!(told.contains("a host runs (process ") && !told.contains("no host runs"), "{shown}{error}");
    }
    drop(host);
    let (exit, _, error) = command(&["status", "-c", "gone.toml"], &[]);
    assert!(exit == Some(3) && error.contains("failed to read the settings `gone.toml`"), "{error}");
}

#[test]
fn an_empty_variable_is_an_error_that_names_it() {
    let layers = Layers::new();
    for (variable, value, shown) in [
        ("SLUICEBOX_LISTEN", "", "--> --listen or SLUICEBOX_LISTEN\n  expected: an address and a port"),
        ("SLUICEBOX_NAMESPACE", "", "--> --namespace or SLUICEBOX_NAMESPACE\n"),
        ("SLUICEBOX_TOKEN_FILE", "gone", "--> --token-file or SLUICEBOX_TOKEN_FILE\n"),
    ] {
        let output = program(layers.0.path()).args(["check"]).env(variable, value).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{variable}: {error}");
        assert!(error.contains(shown) && error.contains("  hint: "), "{variable}: {error}");
    }
}

#[tokio::test]
async fn what_is_the_hosts_own_is_where_its_setting_says_and_in_every_backup() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::copy(handler("order"), path("order.wasm")).unwrap();
    let settings = "[host]\ndata = \"own\"\n[http]\nlisten = \"127.0.0.1:0\"\n[handlers.order]\n\
                    module = \"order.wasm\"\nsubscribe = [\"events.*\"]\npublish = [\"orders.*\"]\n";
    fs::write(path("sluicebox.toml"), settings).unwrap();
    let host = Host::start(program(folder.path()).args(["run", "--json"]).stderr(Stdio::null()));
    assert!(!host.url.is_empty());
    for name in ["compiled", "modules"] {
        assert!(path("own").join(name).is_dir() && !path("data").join(name).exists(), "{name}");
    }
    // Another host has a log of its own and may not touch what belongs to this one.
    let other = program(folder.path()).args(["run", "--data", "other"]).output().unwrap();
    let error = String::from_utf8(other.stderr).unwrap();
    assert!(!other.status.success() && error.contains("is in use by another host: set `data` in [host]"), "{error}");

    let backup = program(folder.path()).args(["backup", "copy"]).output().unwrap();
    assert!(backup.status.success(), "{backup:?}");
    let names = |folder: PathBuf| {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(names(path("copy/modules")), names(path("own/modules")));
    assert!(!names(path("own/modules")).is_empty());
}

/// Secrets, each from another source.
const SECRETS: [&str; 5] =
    ["s3cret-inline", "s3cret-variable", "s3cret-file", "s3cret-token-0123", "s3cret-number-4711"];

fn secretive(module: &str, rest: &str) -> String {
    format!(
        "[http]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"token\"\n[handlers.order]\nmodule = \"{module}\"\n\
         subscribe = [\"events.*\"]\npublish = [\"orders.*\"]\nkey = \"/args/user\"\n\
         config = {{ a = \"s3cret-inline\", b = {{ env = \"SECRET\" }}, c = {{ file = \"c\" }}, d = \"s3cret-number-4711\" }}\n\
         {rest}\n"
    )
}

#[tokio::test]
async fn secrets_are_in_nothing_that_the_program_shows() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("token"), "s3cret-token-0123\n").unwrap();
    fs::write(path("c"), "s3cret-file\n").unwrap();
    fs::write(path("broken.wasm"), "s3cret-inline").unwrap();
    fs::copy(handler("order"), path("order.wasm")).unwrap();
    let mut seen: Vec<(String, String)> = vec![];
    let command = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = program(folder.path());
        command.args(arguments).env("SECRET", "s3cret-variable").envs(variables.iter().copied());
        let output = command.output().unwrap();
        let (out, error) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        (format!("{arguments:?} {:?}", output.status.code()), format!("{out}{error}"))
    };
    // Good, with errors in the very table, under a wrong name, with a module that does not run, and cut in the middle.
    for settings in [
        secretive("order.wasm", ""),
        secretive("order.wasm", "shards = 0"),
        secretive("order.wasm", "confg = { a = \"s3cret-inline\" }"),
        secretive("order.wasm", "").replace("{ file = \"c\" }", "[]"),
        secretive("broken.wasm", ""),
        secretive("order.wasm", "").replace("4711\" }", "4711"),
    ] {
        fs::write(path("sluicebox.toml"), settings).unwrap();
        for arguments in [&["check"][..], &["check", "--json"], &["check", "--settings-only", "--json"]] {
            seen.push(command(arguments, &[]));
        }
    }
    fs::write(path("sluicebox.toml"), secretive("broken.wasm", "")).unwrap();
    seen.push(command(&["run", "--json", "--diagnostics", "trace"], &[]));

    fs::write(path("sluicebox.toml"), secretive("order.wasm", "")).unwrap();
    let diagnostics = fs::File::create(path("diagnostics")).unwrap();
    let mut run = program(folder.path());
    run.args(["run", "--json", "--diagnostics", "trace"]).env("SECRET", "s3cret-variable").stderr(diagnostics);
    let host = Host::start(&mut run);
    for face in ["/v1/status", "/v1/handlers", "/v1/handlers/order", "/v1/dead", "/metrics", "/livez", "/readyz"] {
        let (status, answer) = host.get(face, "s3cret-token-0123").await;
        assert_eq!(status, 200, "{face}: {answer}");
        seen.push((face.into(), answer));
    }
    seen.push(("refused".into(), host.get("/v1/status", "another").await.1));
    let url = [("SLUICEBOX_URL", host.url.as_str()), ("SLUICEBOX_TOKEN_FILE", "token")];
    for arguments in [
        &["status", "--json"][..],
        &["handlers", "show", "order", "--json"],
        &["handlers", "list"],
        &["publish", "events.x", "1"],
    ] {
        let shown = command(arguments, &url);
        assert!(shown.0.ends_with("Some(0)"), "{shown:?}");
        seen.push(shown);
    }
    drop(host);
    let diagnostics = fs::read_to_string(path("diagnostics")).unwrap();
    assert!(diagnostics.contains("the host is ready"), "{diagnostics}");
    seen.push(("diagnostics".into(), diagnostics));

    assert!(seen.len() > 25);
    for (what, shown) in &seen {
        let secret = SECRETS.iter().find(|secret| shown.contains(**secret));
        assert!(secret.is_none(), "{what} shows {}:\n{shown}", secret.unwrap());
    }
}
