//! Command lines as typed, in this process, against a host over the log in memory.

mod advice;
mod operate;

use super::*;
use std::io::Write;
use std::sync::{Arc, Mutex};

/// What a command wrote.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs a command line and returns how it ended, what it wrote, and why it failed.
fn sluicebox(arguments: &[&str]) -> (Exit, String, String) {
    let cli = match Cli::try_parse_from(["sluicebox"].iter().chain(arguments)) {
        Ok(cli) => cli,
        Err(error) => {
            return (if error.use_stderr() { Exit::Usage } else { Exit::Done }, String::new(), error.to_string());
        }
    };
    let written = Written::default();
    let result = run(cli, Arc::default(), &mut Output::into(arguments.contains(&"--json"), written.clone()));
    let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    match result {
        Ok(exit) => (exit, text, String::new()),
        Err(failure) => (failure.exit, text, format!("{:#}", failure.error)),
    }
}

#[test]
fn the_command_line_is_consistent() {
    use clap::CommandFactory as _;
    Cli::command().debug_assert();
}

#[track_caller]
fn check(arguments: &[&str], exit: Exit, expected: &str) {
    let (found, _, error) = sluicebox(arguments);
    assert_eq!(found, exit, "{arguments:?}: {error}");
    assert!(error.contains(expected), "{arguments:?}: {error}");
}

#[test]
fn wrong_usage_says_what_is_right() {
    check(&["publsh"], Exit::Usage, "a similar subcommand exists: 'publish'");
    check(&["publish"], Exit::Usage, "<TOPIC>");
    check(&["publish", "a", "1", "--heder", "x=y"], Exit::Usage, "'--header'");
    check(&["publish", "a.*", "1"], Exit::Usage, "`a.*` is a pattern");
    check(&["publish", "_a", "1"], Exit::Usage, "belong to the host");
    check(&["publish", "a", "1", "--header", "x"], Exit::Usage, "write NAME=VALUE");
    check(&["publish", "a", "1", "--header", "a b=c"], Exit::Usage, "not the name of a header");
    check(&["publish", "a", "1", "2", "--id", "x"], Exit::Usage, "all but the first duplicates");
    check(&["publish", "a", "1", "--file", "x"], Exit::Usage, "cannot be used with");
    check(&["publish", "a", "--ndjson", "x", "--id", "1"], Exit::Usage, "cannot be used with");
    check(&["publish", "a", "--file", "/gone/file"], Exit::Failed, "failed to open `/gone/file`: No such file");
    check(&["publish", "a", "1", "--url", "https://x"], Exit::Usage, "does not speak");
    check(&["publish", "a", "1", "--url", "localhost:8080"], Exit::Usage, "http://127.0.0.1:8080");
    check(&["publish", "a", "1", "--token-file", "/gone"], Exit::Failed, "failed to read the token `/gone`");
    check(&["tail", "a.>.b"], Exit::Usage, "`>` must be the last token");
    check(&["tail", "--from", "now"], Exit::Usage, "latest, earliest, an offset, or a time");
    check(&["dead"], Exit::Usage, "list");
    check(&["dead", "list", "--handler", "X"], Exit::Usage, "not a handler name");
    check(&["dead", "show", "x"], Exit::Usage, "the number that `sluicebox dead list` shows");
    for number in ["x", "--number=1,x"] {
        check(&["dead", "retry", number], Exit::Usage, "the number that `sluicebox dead list` shows");
    }
    check(&["--help"], Exit::Done, "Exit codes:");
}

#[test]
fn a_host_that_does_not_run_is_named_with_how_to_start_it() {
    // A port that was free a moment ago, so that nobody listens.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let expected = format!("could not reach a host at {url}: start one with `sluicebox run`");
    for command in [
        &["publish", "a", "1"][..],
        &["tail"],
        &["status"],
        &["dead", "list"],
        &["dead", "show", "1"],
        &["dead", "count"],
        &["handlers", "list"],
        &["handlers", "show", "order"],
    ] {
        check(&[command, &["--url", &url]].concat(), Exit::Unreachable, &expected);
    }
}

#[test]
fn a_host_that_goes_away_before_it_answers_leaves_a_message_in_doubt() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let host = std::thread::spawn(move || {
        for _ in 0..3 {
            // Something of it is read, so that the connection ends and is not refused.
            let read = std::io::Read::read(&mut listener.accept().unwrap().0, &mut [0]);
            assert_eq!(read.unwrap(), 1);
        }
    });
    check(&["publish", "a", "1", "--url", &url], Exit::Unreachable, "the message may be in the log");
    let publish = ["publish", "a", "1", "--id", "i", "--url", &url];
    check(&publish, Exit::Unreachable, "publish it again: handlers take it once, by its id");
    let publish = ["publish", "a", "1", "--delay", "1h", "--url", &url];
    check(&publish, Exit::Unreachable, "`sluicebox handlers waiting _delay` shows whether it is");
    host.join().unwrap();
}

#[test]
fn dev_misses_the_settings_before_it_builds() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("Cargo.toml"), "[workspace\n").unwrap();
    check(&["dev", directory.path().to_str().unwrap()], Exit::BadSettings, "there is no sluicebox.toml in `");
}

#[test]
fn lines_that_were_never_sent_are_not_said_to_be_in_the_log_perhaps() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let lines = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(lines.path(), "{}\n{}\n").unwrap();
    let url = format!("http://127.0.0.1:{port}");
    let command = ["publish", "a", "--ndjson", lines.path().to_str().unwrap(), "--json", "--url", &url];
    let (exit, text, error) = sluicebox(&command);
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((exit, &answer["unknown_lines"], &answer["from_line"]), (Exit::Unreachable, &0.into(), &1.into()));
    assert!(!error.contains("may be in the log"), "{error}");
}

#[test]
fn check_says_good_or_refused_for_people_and_programs() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sluicebox.toml");
    let path = file.to_str().unwrap();
    std::fs::write(directory.path().join("m.wasm"), "").unwrap();
    std::fs::write(&file, "[handlers.a]\nmodule = \"m.wasm\"\nsubscribe = [\"a\"]\npublish = [\"a\"]\n").unwrap();
    let (exit, text, _) = sluicebox(&["check", "--settings-only", "--config", path]);
    assert_eq!((exit, text), (Exit::Done, format!("{path}: good, 1 handler, 1 warning\n")));
    let (exit, text, _) = sluicebox(&["check", "--config", path]);
    assert_eq!((exit, text), (Exit::Failed, format!("{path}: refused, 1 module cannot run\n")));
    let (exit, text, _) = sluicebox(&["check", "--json", "--config", path]);
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    let module = &answer["modules"][0];
    assert_eq!((exit, &answer["ok"], &module["handler"]), (Exit::Failed, &false.into(), &"a".into()));
    let problem = module["problem"].as_str().unwrap();
    assert!(
        problem.starts_with("failed to load handler `a` from `") && problem.contains("not a WebAssembly"),
        "{problem}"
    );

    std::fs::write(&file, "port = 1\n").unwrap();
    let (exit, text, _) = sluicebox(&["check", "--config", path]);
    assert_eq!((exit, text), (Exit::BadSettings, format!("{path}: refused, 1 error\n")));
    let (exit, text, _) = sluicebox(&["check", "--json", "--config", path]);
    assert_eq!(exit, Exit::BadSettings);
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&answer["ok"], &answer["problems"][0]["place"]["line"]), (&false.into(), &1.into()));
    check(&["check", "--config", "/gone.toml"], Exit::BadSettings, "");
}

/// A host's HTTP face over a log in memory, on a runtime of its own.
struct Host {
    url: String,
    log: Arc<crate::log::memory::MemoryLog>,
    // Dropped last: it ends the server.
    runtime: tokio::runtime::Runtime,
}

impl Host {
    fn start() -> Self {
        Self::start_with(|_| {}, None)
    }

    fn start_with(attach: impl FnOnce(&crate::http::Face), token: Option<&str>) -> Self {
        use crate::http::{Face, Readiness, serve};
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let listen = listener.local_addr().unwrap();
        let log = Arc::new(crate::log::memory::MemoryLog::new());
        let token = token.map(crate::config::Secret::new);
        let settings = crate::config::HttpSettings { listen, token };
        let namespace = crate::config::Namespace::parse("shop").unwrap();
        let (metrics, readiness) = (Arc::default(), Readiness::starting("loading handlers"));
        let face = Face::new(log.clone(), metrics, readiness, namespace, &settings, Default::default());
        attach(&face);
        runtime.spawn(serve(listener, Arc::new(face)));
        Self { url: format!("http://{listen}"), log, runtime }
    }

    /// Runs a command against this host.
    fn run(&self, arguments: &[&str]) -> (Exit, String, String) {
        sluicebox(&[arguments, &["--url", &self.url]].concat())
    }

    fn messages(&self) -> Vec<Arc<crate::message::Message>> {
        use crate::message::Offset;
        self.log
            .snapshot()
            .read(&crate::log::ReadRequest {
                after: Offset::START,
                upto: Offset::END,
                patterns: vec![],
                messages_max: usize::MAX,
                bytes_max: usize::MAX,
            })
            .messages
    }
}

#[test]
fn what_is_published_can_be_followed() {
    let host = Host::start();
    let (exit, text, error) =
        host.run(&["publish", "events.made", "{\"n\":1}", "{\"n\":2}", "--key", "é", "--header", "Tenant=a b"]);
    assert_eq!((exit, error.as_str()), (Exit::Done, ""));
    let messages = host.messages();
    let [first, second] = &messages[..] else { panic!("two messages") };
    let lines = [first, second].map(|message| format!("published to events.made at offset {}\n", message.offset));
    assert_eq!(text, lines.concat());
    assert_eq!((first.key.as_ref().unwrap().as_str(), first.headers.get("tenant")), ("é", Some("a b")));

    let (exit, text, _) = host.run(&["tail", "events.*", "--from", "earliest", "-n", "1"]);
    assert_eq!(
        (exit, text),
        (Exit::Done, format!("{} {:>8} events.made key=é tenant=a b {{\"n\":1}}\n", first.time, first.offset))
    );
    let (exit, text, _) = host.run(&["tail", "--from", &second.offset.to_string(), "--no-follow", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((exit, &shown["body"]), (Exit::Done, &"{\"n\":2}".into()));
    let (exit, text, _) = host.run(&["tail", "other", "--from", "earliest", "--no-follow"]);
    assert_eq!((exit, text.as_str()), (Exit::Done, ""));
}

#[test]
fn a_refusal_of_the_host_is_shown_with_its_reason() {
    let host = Host::start();
    let (exit, _, error) = host.run(&["publish", "a", "1", "--id", &"x".repeat(300)]);
    assert_eq!(exit, Exit::Failed);
    assert!(error.contains("refused it (400): the id has 300 bytes"), "{error}");
    let (exit, _, error) = host.run(&["publish", "a", &"x".repeat(600_000)]);
    assert_eq!(exit, Exit::Failed);
    assert!(error.contains("larger than 524288 bytes"), "{error}");
    let (exit, _, error) = host.run(&["publish", "a", "1", "--key", "a\nb"]);
    assert_eq!(exit, Exit::Usage);
    assert!(error.contains("line break"), "{error}");
    let (exit, _, error) = host.run(&["dead", "show", "7"]);
    assert_eq!(exit, Exit::Failed);
    assert!(error.contains("there is no dead letter 7"), "{error}");
    assert!(host.messages().is_empty());
}

#[test]
fn files_are_one_body_or_many_lines() {
    let host = Host::start();
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (exit, ..) = host.run(&["publish", "a", "--file", &file("body", "one\nbody\n")]);
    assert_eq!((exit, &host.messages()[0].body[..]), (Exit::Done, &b"one\nbody\n"[..]));

    let lines: String = (0..50_000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    let (exit, text, _) = host.run(&["publish", "b", "--ndjson", &file("lines", &lines)]);
    assert_eq!((exit, text.as_str()), (Exit::Done, "published 50,000 messages to b\n"));
    assert_eq!(host.messages().len(), 50_001);

    let (exit, text, _) = host.run(&["publish", "b", "--ndjson", &file("bad", "1\nx\n2\n"), "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((exit, &answer["accepted"], &answer["bad_lines"][0]["line"]), (Exit::Failed, &2.into(), &2.into()));
    let many: String = (1..=2500).map(|n| if n == 2100 { "x\n".into() } else { format!("{n}\n") }).collect();
    let (exit, text, _) =
        host.run(&["publish", "c", "--ndjson", &file("many", &many), "--from-line", "1001", "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((exit, &answer["accepted"], &answer["settled_line"]), (Exit::Failed, &1499.into(), &2500.into()));
    assert_eq!((&answer["bad_lines"][0]["line"], &answer["from_line"]), (&2100.into(), &serde_json::Value::Null));
    assert_eq!(&host.messages()[50_003].body[..], b"1001");
}

#[test]
fn what_a_tail_writes_can_be_published_again() {
    let host = Host::start();
    host.run(&["publish", "a", "{\"n\":1}", "--key", "ada", "--id", "1", "--header", "tenant=x"]);
    let (_, tail, _) = host.run(&["tail", "a", "--from", "earliest", "--no-follow", "--json"]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tail.ndjson");
    std::fs::write(&path, tail).unwrap();
    let (exit, text, _) = host.run(&["publish", "b", "--messages", "--ndjson", path.to_str().unwrap()]);
    assert_eq!((exit, text.as_str()), (Exit::Done, "published 1 message to b\n"));
    let messages = host.messages();
    let shown = |at: usize| {
        let message = &messages[at];
        (
            message.key.clone(),
            message.id.clone(),
            message.headers.get("tenant").map(str::to_owned),
            message.body.clone(),
        )
    };
    assert_eq!(shown(0), shown(1));
    assert_eq!(messages[1].topic.as_str(), "b");
}

#[test]
fn the_guarantee_is_one_short_line_and_in_full_when_asked_for() {
    use crate::log::Log as _;
    let host = Host::start();
    let guarantees = host.log.guarantees();
    let shown = |arguments: &[&str]| {
        let text = host.run(arguments).1;
        text.lines().find_map(|line| line.strip_prefix("guarantee: ")).unwrap_or_default().to_owned()
    };
    assert_eq!(shown(&["status"]), guarantees.short());
    assert!(guarantees.short().chars().count() <= 80, "{}", guarantees.short());
    assert_eq!(shown(&["status", "--verbose"]), guarantees.summary);
    let answer: serde_json::Value = serde_json::from_str(&host.run(&["status", "--json"]).1).unwrap();
    assert_eq!(answer["log"]["guarantee"].as_str(), Some(&*guarantees.summary));
    assert_eq!(answer["log"]["guarantee_short"].as_str(), Some(&*guarantees.short()));
}

#[test]
fn an_idle_host_has_a_status_and_no_dead_letters() {
    let host = Host::start();
    let (exit, text, _) = host.run(&["status"]);
    assert_eq!(exit, Exit::Done);
    assert!(text.contains("namespace shop, not ready: loading handlers") && text.contains("no handlers"), "{text}");
    let (exit, text, _) = host.run(&["dead", "list"]);
    assert_eq!((exit, text.as_str()), (Exit::Done, "no dead letters\n"));
    let (exit, text, _) = host.run(&["dead", "list", "--json"]);
    assert_eq!((exit, text.as_str()), (Exit::Done, "{\"letters\":[]}\n"));
}
