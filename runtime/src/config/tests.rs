//! Bad settings and what a person sees, good ones and what comes out.

mod messages;
mod reading;

use super::*;
use crate::clock::Timestamp;
use crate::handler::{
    BreakerSettings, DeadBox, DeadFull, Dedup, DelayedBound, OnFailure, Policy, RateLimit, Retry, Trip,
};
use crate::routing::{Field, IdFrom, KeyFrom};
use crate::topic::Pattern;
use std::path::PathBuf;
use std::time::Duration;

/// A directory with what the settings of these tests name.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("m.wasm"), "").unwrap();
        std::fs::write(directory.path().join("token"), "0123456789abcdef\n").unwrap();
        std::fs::write(directory.path().join("short"), "secret\n").unwrap();
        std::fs::create_dir(directory.path().join("d.wasm")).unwrap();
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn parse(&self, text: &str, overrides: &Overrides) -> Result<Loaded, Problems> {
        let environment = |name: &str| (name == "TOKEN").then(|| "from the environment".to_owned());
        parse(text, &self.path(FILE_NAME), overrides, &environment)
    }
}

/// The settings of one handler, its first two lines given.
fn handler(rest: &str) -> String {
    format!("[handlers.order]\nmodule = \"m.wasm\"\nsubscribe = [\"events.*\"]\n{rest}\n")
}

/// One bad setting: the only error stands at `line:column` and says `expected`, piece by piece.
#[track_caller]
fn check(text: &str, place: &str, expected: &[&str]) {
    let shown = Files::new().parse(text, &Overrides::default()).unwrap_err().to_string();
    assert!(shown.contains(&format!("{FILE_NAME}:{place}\n")), "not at {place}:\n{shown}");
    assert!(shown.ends_with("\n1 error in the settings"), "{shown}");
    assert!(shown.contains("\n  expected: ") && shown.contains("\n  hint: "), "not told what to do:\n{shown}");
    for piece in expected {
        assert!(shown.contains(piece), "no {piece:?} in:\n{shown}");
    }
}

#[track_caller]
fn check_handler(rest: &str, place: &str, expected: &[&str]) {
    check(&handler(rest), place, expected);
}

#[test]
fn a_problem_shows_the_place_what_was_expected_and_a_hint() {
    let text = handler("timeout = 2");
    let shown = Files::new().parse(&text, &Overrides::default()).unwrap_err().to_string();
    let expected = "\
4 | timeout = 2
  |           ^
  expected: a duration from \"10ms\" to \"1h\"
";
    assert!(shown.starts_with("error: `timeout` is an integer\n  --> "), "{shown}");
    assert!(shown.contains(expected), "{shown}");
}

#[test]
fn bad_syntax_is_refused_with_its_place() {
    check("namespace = \n", "1:13", &["must be quoted", "TOML"]);
    check("namespace = \"a\"\nnamespace = \"b\"\n", "2:1", &["duplicate"]);
    check("[log\nkind = \"embedded\"\n", "1:5", &["unclosed table"]);
    check("namespace = \"a\n", "1:15", &["invalid basic string"]);
}

#[test]
fn bad_settings_of_the_host_are_refused() {
    check("namespce = \"shop\"", "1:1", &["unknown setting `namespce` in the file", "did you mean `namespace`?"]);
    check("name = \"shop\"", "1:1", &["unknown setting `name` in the file", "`name` belongs under [host]"]);
    check("[host]\nname = \"a b\"", "2:8", &["`a b` is not the name of a host", "without white space"]);
    check("[host]\nlease = \"1ms\"", "2:9", &["out of range", "from \"1s\""]);
    check("[handler.order]", "1:2", &["unknown setting `handler`", "did you mean `handlers`?"]);
    check("namespace = \"My Shop\"", "1:13", &["`My Shop` is not a namespace", "a-z, then"]);
    check("namespace = 5", "1:13", &["`namespace` is an integer", "\"shop\""]);
    check("[flows.popular]", "1:2", &["`flows` in the file is not supported by this version"]);
    check("log = \"data\"", "1:7", &["`log` is a text", "a section, [log]"]);
    check("handlers = []", "1:12", &["`handlers` is a list", "[handlers.order]"]);
    check("[log]\nkind = \"sqlite\"", "2:8", &["`kind` cannot be \"sqlite\"", "\"embedded\" or"]);
    check("[log]\nkind = \"embeded\"", "2:8", &["did you mean \"embedded\"?"]);
    check("[log]\npath = 1", "2:8", &["`path` is an integer", "the path of a directory"]);
    check("[log]\npath = \"\"", "2:8", &["`path` is empty", "leave it out"]);
    check("[log]\nretain = true", "2:10", &["`retain` is true", "max_bytes = \"50GiB\"", "keeps everything"]);
    check("[log]\nretain = { age = \"1\" }", "2:18", &["`1` has no unit", "from \"1s\" to \"3650d\""]);
    check("[log]\nretain = { max_bytes = \"1MiB\" }", "2:24", &["out of range", "from \"64MiB\""]);
    check("[log]\nretain = { bytes = \"1GiB\" }", "2:12", &["unknown setting `bytes` in `retain`", "age, max_bytes"]);
    check("[log]\nurl = \"nats://x\"", "2:7", &["`url` belongs to kind = \"nats\" or \"redis\"", "or remove it"]);
    check("[log]\negress = []", "2:10", &["`egress` belongs to kind = \"nats\" or \"redis\"", "or remove it"]);
    check("[log]\ningress_channels = []", "2:20", &["`ingress_channels` belongs to kind = \"redis\""]);
    check("[http]\nport = 80", "2:1", &["unknown setting `port` in [http]", "listen, token_file"]);
    check("[http]\nlisten = \"8080\"", "2:10", &["write `127.0.0.1:8080`"]);
    check("[http]\nlisten = \":8080\"", "2:10", &["`0.0.0.0:8080` for every interface"]);
    check("[http]\nlisten = \"127.0.0.1\"", "2:10", &["add a port: `127.0.0.1:8080`"]);
    check("[http]\nlisten = \"http://127.0.0.1:1\"", "2:10", &["leave the scheme out"]);
    check("[http]\nlisten = \"shop.example:80\"", "2:10", &["host names are not looked up"]);
    check("[http]\nlisten = \"0.0.0.0:80\"", "2:10", &["needs `token_file`", "or listen on 127.0.0.1"]);
    check("[http]\ntoken_file = \"gone\"", "2:14", &["failed to read", "gone`: No such file", "relative to"]);
    check("[http]\ntoken_file = \"short\"", "2:14", &["has 6 bytes, at least 16", "urandom"]);
}

#[test]
fn bad_settings_of_a_log_on_nats_are_refused() {
    let check_nats = |line: &str, at: &str, said: &[&str]| check(&format!("[log]\nkind = \"nats\"\n{line}"), at, said);
    check_nats("path = \"x\"", "3:8", &["`path` belongs to kind = \"embedded\"", "`data` in [host]"]);
    check_nats("url = \"localhost:4222\"", "3:7", &["`localhost:4222` is not the address", "begin with nats://"]);
    check_nats("url = \"nats://a,\"", "3:7", &["`` is not the address of a server"]);
    check_nats("url = \"nats://me:secret@a\"", "3:7", &["a name or a password in it", "password_file"]);
    check_nats("replicas = 6", "3:12", &["out of range", "from 1 to 5"]);
    check_nats("ca_file = \"gone\"", "3:11", &["there is no file", "relative to"]);
    check_nats("retain = { max_bytes = \"1GiB\" }", "3:10", &["does not count its bytes", "leave `max_bytes` out"]);
    check_nats("login = \"me\"", "3:9", &["`login` is a text", "files of their own"]);
    check_nats("login = {}", "3:9", &["does not say one way to connect", "credentials_file"]);
    check_nats("login = { user = \"me\" }", "3:9", &["does not say one way to connect"]);
    check_nats("login = { nkey_file = \"gone\" }", "3:23", &["failed to read"]);
    check_nats("login = { token = \"x\" }", "3:11", &["unknown setting `token` in `login`"]);
}

#[test]
fn subjects_of_plain_clients_meet_neither_each_other_nor_the_logs() {
    let check_nats = |line: &str, at: &str, said: &[&str]| check(&format!("[log]\nkind = \"nats\"\n{line}"), at, said);
    check_nats(
        "ingress = [\"orders.>\", \"a.*\"]\negress = [\"orders.accepted\"]",
        "4:11",
        &["`orders.accepted` in `egress` has topics in common with `orders.>` in `ingress`"],
    );
    check_nats("ingress = [\"orders.>\", \"orders.*\"]", "3:24", &["`orders.>` and `orders.*` in `ingress` have"]);
    check_nats("ingress = [\">\"]", "3:12", &["meets the subjects of the logs", "name the first token"]);
    check_nats("egress = [\"*.made\"]", "3:11", &["meets the subjects of the logs"]);
    check_nats("egress = [\"sb.shop.messages\"]", "3:11", &["is the host's or the server's own"]);
    check_nats("ingress = [\"_INBOX.>\"]", "3:12", &["is the host's or the server's own"]);
    check_nats("ingress = [\"$JS.>\"]", "3:12", &["a character other than"]);
    check_nats("ingress_channels = [\"a\"]", "3:20", &["belongs to kind = \"redis\"", "in `ingress`"]);
    let check_redis =
        |line: &str, at: &str, said: &[&str]| check(&format!("[log]\nkind = \"redis\"\n{line}"), at, said);
    check_redis(
        "ingress_channels = [\"orders.>\"]\negress = [\"orders.accepted\"]",
        "4:11",
        &["`orders.accepted` in `egress` has topics in common with `orders.>` in `ingress_channels`"],
    );
    check_redis("ingress_channels = [\"a.*\", \"a.>\"]", "3:28", &["`a.*` and `a.>` in `ingress_channels` have"]);
}

#[test]
fn a_log_on_nats_is_read_with_its_login() {
    let files = Files::new();
    let read = |lines: &str| {
        let text = format!("[log]\nkind = \"nats\"\n{lines}");
        files.parse(&text, &Overrides::default()).unwrap().settings
    };
    let plain = read("");
    let LogSettings::Nats { url, login, ca_file, replicas, retain, edges } = plain.log else {
        panic!("{:?}", plain.log)
    };
    assert_eq!((url.as_str(), login, ca_file, replicas), ("nats://127.0.0.1:4222", NatsLogin::None, None, 1));
    assert_eq!((retain, edges, plain.host.data), (Retain::default(), Edges::default(), files.path("data")));
    let settings =
        read("url = \"tls://a:1, tls://b:2\"\nreplicas = 3\nlogin = { user = \"me\", password_file = \"token\" }");
    let LogSettings::Nats { url, login, replicas, .. } = settings.log else { panic!("{:?}", settings.log) };
    assert_eq!((url.as_str(), replicas), ("tls://a:1, tls://b:2", 3));
    assert!(matches!(&login, NatsLogin::User { user, .. } if user == "me"), "{login:?}");
    assert!(!format!("{login:?}").contains("0123456789abcdef"), "{login:?}");
}

#[test]
fn bad_settings_of_a_log_on_redis_are_refused() {
    let check_redis =
        |line: &str, at: &str, said: &[&str]| check(&format!("[log]\nkind = \"redis\"\n{line}"), at, said);
    check_redis("path = \"x\"", "3:8", &["`path` belongs to kind = \"embedded\"", "`data` in [host]"]);
    check_redis("url = \"nats://a\"", "3:7", &["`nats://a` is not the address", "begin with redis://"]);
    check_redis("url = \"redis://:secret@a\"", "3:7", &["a name or a password in it", "password_file"]);
    check_redis("url = \"redis+sentinel://a,b\"", "3:7", &["does not name a master", "/mymaster"]);
    check_redis("replicas = 3", "3:12", &["`replicas` belongs to kind = \"nats\""]);
    check_redis("retain = { max_bytes = \"1GiB\" }", "3:10", &["does not count its bytes", "`maxmemory`"]);
    check_redis("login = { user = \"me\" }", "3:9", &["does not say how to connect", "password_file"]);
    check_redis("login = {}", "3:9", &["does not say how to connect"]);
    check_redis("login = { nkey_file = \"token\" }", "3:11", &["nkey_file"]);
}

#[test]
fn a_log_on_redis_is_read_with_its_login() {
    let files = Files::new();
    let read = |lines: &str| {
        let text = format!("[log]\nkind = \"redis\"\n{lines}");
        files.parse(&text, &Overrides::default()).unwrap().settings
    };
    let plain = read("");
    let LogSettings::Redis { url, login, ca_file, retain, edges } = plain.log else { panic!("{:?}", plain.log) };
    assert_eq!((url.as_str(), login, ca_file), ("redis://127.0.0.1:6379", RedisLogin::None, None));
    assert_eq!((retain, edges, plain.host.data), (Retain::default(), Edges::default(), files.path("data")));
    let LogSettings::Redis { edges, .. } =
        read("ingress = [\"orders.>\"]\ningress_channels = [\"sensors.*\"]\negress = [\"done\"]").log
    else {
        panic!("another kind of log")
    };
    let texts = [&edges.ingress, &edges.channels, &edges.egress].map(|patterns| patterns[0].to_string());
    assert_eq!(texts, ["orders.>", "sensors.*", "done"]);
    let settings = read("url = \"unix:///run/redis.sock\"\nlogin = { user = \"me\", password_file = \"token\" }");
    let LogSettings::Redis { url, login, .. } = settings.log else { panic!("{:?}", settings.log) };
    assert_eq!(url, "unix:///run/redis.sock");
    assert!(matches!(&login, RedisLogin::User { user, .. } if user == "me"), "{login:?}");
    assert!(!format!("{login:?}").contains("0123456789abcdef"), "{login:?}");
    let alone = read("login = { password_file = \"token\" }");
    assert!(matches!(alone.log, LogSettings::Redis { login: RedisLogin::Password(_), .. }));
}

#[test]
fn bad_settings_of_a_handler_are_refused() {
    check("[handlers.Order]", "1:11", &["`Order` is not a handler name: use a-z"]);
    check("[handlers]\norder = 1", "2:9", &["`order` under `handlers` is not a section"]);
    check("[handlers.order]\nsubscribe = [\"a\"]", "1:11", &["the handler has no `module`", "order.wasm"]);
    check("[handlers.order]\nmodule = \"m.wasm\"", "1:11", &["the handler has no `subscribe`", "events.*"]);
    check_handler("subscrib = []", "4:1", &["unknown setting `subscrib` in [handlers.order]", "mean `subscribe`?"]);
    check_handler("time-out = \"2s\"", "4:1", &["did you mean `timeout`?"]);
    check_handler("concurrency = 5", "4:1", &["unknown setting `concurrency`", "one of module, subscribe"]);
    check_handler("http = {}", "4:1", &["not supported", "cannot call out"]);
    check_handler("reply = \"a\"", "4:1", &["not supported", "answer no requests"]);
    check_handler("signals = []", "4:1", &["not supported", "use `subscribe`"]);
    check_handler("start = \"newest\"", "4:9", &["`start` cannot be `newest`", "\"latest\", \"earliest\" or a time"]);
    check_handler("start = 2026-01-31", "4:9", &["`start` cannot be `2026-01-31`", "add `Z` for UTC"]);
    check_handler("start = 2026-01-31T08:00:00", "4:9", &["add `Z` for UTC"]);
    check_handler("start = 5", "4:9", &["`start` is an integer"]);
    check_handler("publish = \"orders.*\"", "4:11", &["`publish` is a text", "brackets"]);
    check_handler("publish = [5]", "4:12", &["an entry of `publish` is an integer"]);
    check_handler("publish = [\"a.>.b\"]", "4:12", &["`>` must be the last token of `a.>.b`", "use `*` for one token"]);
    check_handler("publish = [\"a.b*\"]", "4:12", &["token `b*`", "`*` stands for a whole token"]);
    check_handler("publish = [\"a..b\"]", "4:12", &["empty token"]);
    check_handler("publish = [\"a\", \"a\"]", "4:17", &["`a` is there twice in `publish`"]);
    check_handler("publish = [\"_control\"]", "4:12", &["the grant `_control` can never match"]);
    check_handler("shards = 0", "4:10", &["`shards` is out of range: 0", "from 1 to 1024"]);
    check_handler("shards = -1", "4:10", &["`shards` is out of range: -1"]);
    check_handler("shards = 99999999999999999999999", "4:10", &["out of range"]);
    check_handler("shards = \"8\"", "4:10", &["`shards` is a text"]);
    check_handler("sandbox = \"hot\"", "4:11", &["`sandbox` cannot be \"hot\"", "\"fresh\" or \"warm\""]);
    check_handler("timeout = \"2\"", "4:11", &["`2` has no unit", "write `2s` or `2ms`"]);
    check_handler("timeout = \"1ms\"", "4:11", &["`timeout` is out of range: 1ms", "from \"10ms\" to \"1h\""]);
    check_handler("timeout = \"2 seconds\"", "4:11", &["`2 seconds` is not a duration", "`1h30m`"]);
    check_handler("memory = \"64MB\"", "4:10", &["`MB` of `64MB` is not a unit of size", "write `64MiB`"]);
    check_handler("memory = \"8GiB\"", "4:10", &["out of range", "from \"1MiB\" to \"4GiB\""]);
    check_handler("memory = 64", "4:10", &["`memory` is an integer"]);
    check_handler("on_failure = \"stop\"", "4:14", &["\"park\" or \"skip\""]);
}

#[test]
fn bad_keys_and_ids_are_refused() {
    check_handler("key = \"user\"", "4:7", &["`user` names no field", "write `/user`"]);
    check_handler("key = \"$.user\"", "4:7", &["write `/user`"]);
    check_handler("key = [\"*\"]", "4:8", &["`*` stands alone: write `key = \"*\"`"]);
    check_handler("key = true", "4:7", &["`key` is true", "\"*\" or false"]);
    check_handler("key = []", "4:7", &["`key` has 0 entries"]);
    check_handler("key = \"/a~2\"", "4:7", &["not a JSON pointer", "`~0`"]);
    check_handler("key = \"header:\"", "4:7", &["not the name of a header"]);
    check_handler("key = \"topic:0\"", "4:7", &["`0` is not the number of a token", "from 1 to 16"]);
    check_handler("key = \"topic:3\"", "4:7", &["no subscribed topic has 3 tokens"]);
    check_handler("id = false", "4:6", &["`id` is false", "`dedup = false`"]);
    check_handler("id = [\"/id\", 5]", "4:14", &["an entry of `id` is an integer"]);
}

#[test]
fn bad_policies_are_refused() {
    check_handler("dedup = true", "4:9", &["`dedup` is true", "false, or a table", "on unless it is false"]);
    check_handler("dedup = { window = \"1y\" }", "4:20", &["`y` of `1y` is not a unit of time"]);
    check_handler("dedup = { size = 1 }", "4:11", &["unknown setting `size` in `dedup`", "window, max, topics"]);
    check_handler("dedup = { topics = [\"other\"] }", "4:21", &["`other` can never match"]);
    check_handler("retry = 5", "4:9", &["`retry` is an integer", "a table, retry = { … }"]);
    check_handler("retry = { attempts = 0 }", "4:22", &["`attempts` is out of range"]);
    check_handler("retry = { min = \"2m\", max = \"1m\" }", "4:29", &["longest wait", "raise `max`"]);
    check_handler("limit = { rate = 5 }", "4:18", &["`rate` is an integer", "from \"1/h\" to"]);
    check_handler("limit = { rate = \"5\" }", "4:18", &["does not say in which time", "write `5/s`"]);
    check_handler("dead = 5", "4:8", &["`dead` is an integer", "a table, dead = { … }"]);
    check_handler("dead = { max = 0 }", "4:16", &["`max` is out of range: 0", "from 1 to 10_000_000"]);
    check_handler("dead = { full = \"drop\" }", "4:17", &["`full` cannot be \"drop\"", "mean \"drop-oldest\"?"]);
    check_handler("limit = { body = \"1MiB\" }", "4:18", &["out of range", "to \"512KiB\""]);
    check_handler("limit = { concurrency = 1.5 }", "4:25", &["a number with a fraction"]);
}

#[test]
fn bad_breakers_are_refused() {
    check_handler("breaker = true", "4:11", &["`breaker` is true", "false, or a table", "on unless it is false"]);
    check_handler("breaker = { trip = \"never\" }", "4:20", &["`trip` cannot be \"never\"", "\"count\" or \"rate\""]);
    check_handler("breaker = { trip = \"count\", failures = 0 }", "4:40", &["`failures` is out of range: 0"]);
    check_handler("breaker = { trip = \"rate\", percent = 101 }", "4:38", &["out of range: 101", "from 1 to 100"]);
    check_handler("breaker = { trip = \"rate\", window = \"1ms\" }", "4:37", &["from \"1s\" to \"1h\""]);
    check_handler(
        "breaker = { trip = \"rate\", failures = 3 }",
        "4:39",
        &[
            "`failures` has no effect with trip = \"rate\"",
            "percent, samples, window",
            "\"consecutive\" or trip = \"count\"",
        ],
    );
    check_handler("breaker = { window = \"10s\" }", "4:22", &["no effect with trip = \"consecutive\"", "failures"]);
    check_handler("breaker = { wait = \"2m\", max_wait = \"1m\" }", "4:37", &["longest wait", "raise `max_wait`"]);
    check_handler("breaker = { max_wait = \"1ms\" }", "4:24", &["longest wait", "lower `wait`"]);
    check_handler("breaker = { max = \"1m\" }", "4:13", &["unknown setting `max` in `breaker`", "mean `max_wait`?"]);
}

#[test]
fn bad_values_of_a_handler_are_refused() {
    check_handler("config = 5", "4:10", &["`config` is an integer", "currency"]);
    check_handler("config = { a = [] }", "4:16", &["`a` in `config` is a list", "{ env = \"NAME\" }"]);
    check_handler("config = { a = { env = \"UNSET\" } }", "4:24", &["variable `UNSET` is not set"]);
    check_handler("config = { a = { env = \"\" } }", "4:24", &["is not set"]);
    check_handler("config = { a = { file = \"gone\" } }", "4:25", &["failed to read", "gone`"]);
    check_handler("config = { a = {} }", "4:16", &["needs either `env` or `file`"]);
    check_handler("config = { a = { env = \"TOKEN\", file = \"token\" } }", "4:16", &["either `env` or `file`"]);
    check_handler("config = { a = { env = \"TOKEN\", enw = 1 } }", "4:33", &["did you mean `env`?"]);
}

#[test]
fn bad_modules_and_handlers_that_are_there_twice_are_refused() {
    let missing = "[handlers.a]\nsubscribe = [\"a\"]\nmodule = \"gone.wasm\"";
    check(missing, "3:10", &["failed to find the module", "gone.wasm`", "sluicebox build"]);
    check("[handlers.a]\nsubscribe = [\"a\"]\nmodule = \"d.wasm\"", "3:10", &["is not a file"]);
    check("[handlers.a]\nsubscribe = []\nmodule = \"m.wasm\"", "2:13", &["would get nothing"]);
    check("[handlers.a]\nsubscribe = [\"_x\"]\nmodule = \"m.wasm\"", "2:14", &["belong to the host"]);
    let twice = "[handlers.a]\nmodule = \"m.wasm\"\nsubscribe = [\"a\"]\n[handlers.a]\n";
    check(twice, "4:11", &["duplicate key", "remove or rename one"]);
}

#[test]
fn all_errors_are_shown_at_once_in_the_order_of_the_file() {
    let text = "namespace = 5\n[http]\nport = 1\n[handlers.a]\ntimeout = \"x\"\nshards = 0\n";
    let problems = Files::new().parse(text, &Overrides::default()).unwrap_err();
    let lines: Vec<_> = problems.0.iter().map(|problem| problem.place.as_ref().unwrap().line).collect();
    assert_eq!(lines, [1, 3, 4, 4, 5, 6], "{problems}");
    assert!(problems.to_string().ends_with("6 errors in the settings"));
}

#[test]
fn secrets_are_in_no_message_and_no_debug_output() {
    let files = Files::new();
    for text in [
        handler("config = { a = \"s3cret\", b = [] }"),
        handler("config.a = \"s3cret\"\nconfig.b = []"),
        handler("[handlers.order.config]\na = \"s3cret\"\nb = []"),
        handler("config = { a = \"s3cret }"),
        handler("confg = { a = \"s3cret\" }"),
        handler("[handlers.order.config]\na = \"s3cret"),
        "handlers.order = { config = { a = \"s3cret\" }, shards = 0 }".into(),
        "[http]\ntoken = \"s3cret\"".into(),
    ] {
        let problems = files.parse(&text, &Overrides::default()).unwrap_err();
        assert!(!format!("{problems} {problems:?}").contains("s3cret"), "{problems}");
    }
    let loaded = files.parse(&handler("config = { a = \"s3cret\" }"), &Overrides::default()).unwrap();
    assert_eq!(loaded.settings.handlers[0].config, [("a".to_owned(), Secret::new("s3cret"))]);
    assert!(!format!("{loaded:?}").contains("s3cret"));
}

#[test]
fn a_short_file_gets_careful_defaults() {
    let files = Files::new();
    let loaded = files.parse(&handler(""), &Overrides::default()).unwrap();
    let expected = HandlerSettings {
        name: HandlerName::parse("order").unwrap(),
        module: files.path("m.wasm"),
        subscribe: vec![Pattern::parse("events.*").unwrap()],
        key: KeyFrom::Message,
        id: IdFrom::Message,
        shards: 8,
        start: Start::Latest,
        publish: vec![],
        sandbox: SandboxMode::Fresh,
        timeout: Duration::from_secs(2),
        memory_bytes: 64 << 20,
        policy: Policy::default(),
        show_state: ShowState::Values,
        config: vec![],
    };
    assert_eq!(loaded.settings.handlers, [expected]);
    assert_eq!(loaded.settings.namespace.as_str(), "default");
    assert_eq!(loaded.settings.log, LogSettings::Embedded { path: files.path("data"), retain: Retain::default() });
    assert_eq!(
        loaded.settings.host,
        HostSettings {
            name: None,
            lease: Duration::from_secs(5),
            data: files.path("data"),
            clock_skew_max: Duration::from_secs(300),
            accept_clock: false,
            waiting_bytes_max: 256 << 20,
            delayed: DelayedBound::default(),
        },
        "beside the log"
    );
    assert_eq!(loaded.settings.http, HttpSettings { listen: ([127, 0, 0, 1], 8080).into(), token: None });
    assert!(loaded.warnings.is_empty());
}

#[test]
fn every_setting_is_read() {
    let files = Files::new();
    let text = r#"
        namespace = "shop"
        [log]
        kind = "embedded"
        path = "store"
        retain = { age = "1d", max_bytes = "50GiB" }
        [host]
        data = "own"
        waiting = "64MiB"
        delayed = { max = 8, max_bytes = "3MiB" }
        [http]
        listen = "0.0.0.0:80"
        token_file = "token"
        [handlers.order]
        module = "m.wasm"
        subscribe = ["events.new_order", "events.ban_user"]
        start = 2026-01-31T09:00:00+01:00
        publish = ["orders.*"]
        key = ["/user", "header:User", "topic:2"]
        id = "/id"
        shards = 0x10
        sandbox = "warm"
        timeout = "500ms"
        memory = "1GiB"
        dedup = { window = "1h30m", max = 1_000, topics = ["events.new_order"] }
        retry = { attempts = 3, min = "1s", max = "1m" }
        on_failure = "skip"
        show_state = "sizes"
        breaker = { trip = "rate", percent = 20, samples = 50, window = "30s", wait = "1s", max_wait = "5m" }
        limit = { concurrency = 4, rate = "1_000/m", body = "1KiB" }
        dead = { max = 5, full = "stop" }
        delayed = { max = 7, max_bytes = "2MiB" }
        config = { currency = "EUR", rate = 2, on = true, token = { env = "TOKEN" }, cert = { file = "token" } }
        [handlers.all]
        module = "m.wasm"
        subscribe = [">"]
        start = "earliest"
        key = "*"
        dedup = false
        breaker = false
        [handlers.free]
        module = "m.wasm"
        subscribe = ["a"]
        key = false
        breaker = { trip = "count", failures = 3 }
    "#;
    let Settings { namespace, log, host, http, handlers } = files.parse(text, &Overrides::default()).unwrap().settings;
    assert_eq!(namespace.as_str(), "shop");
    let retain = Retain { age: Some(Duration::from_secs(86_400)), bytes_max: Some(50 << 30) };
    assert_eq!(log, LogSettings::Embedded { path: files.path("store"), retain });
    let (data, clock_skew_max) = (files.path("own"), Duration::from_secs(300));
    let delayed = DelayedBound { messages_max: 8, bytes_max: 3 << 20 };
    let waiting_bytes_max = 64 << 20;
    let (name, lease) = (None, Duration::from_secs(5));
    assert_eq!(
        host,
        HostSettings { name, lease, data, clock_skew_max, accept_clock: false, waiting_bytes_max, delayed }
    );
    assert_eq!(http, HttpSettings { listen: ([0, 0, 0, 0], 80).into(), token: Some(Secret::new("0123456789abcdef")) });
    let [all, free, order] = handlers.try_into().unwrap();
    assert_eq!((all.start, all.key, all.policy.dedup), (Start::Earliest, KeyFrom::All, None));
    assert_eq!((free.key, all.policy.breaker), (KeyFrom::None, None));
    let trip = Trip::Count { failures: 3, window: Duration::from_secs(10) };
    assert_eq!(free.policy.breaker, Some(BreakerSettings { trip, ..BreakerSettings::default() }));
    assert_eq!(order.start, Start::At(Timestamp(1_769_846_400_000)));
    let pointer = Field::Pointer("/user".into());
    assert_eq!(order.key, KeyFrom::Fields(vec![pointer, Field::Header("User".into()), Field::TopicToken(2)]));
    assert_eq!(order.id, IdFrom::Fields(vec![Field::Pointer("/id".into())]));
    assert_eq!((order.shards, order.sandbox, order.show_state), (16, SandboxMode::Warm, ShowState::Sizes));
    assert_eq!((order.timeout, order.memory_bytes), (Duration::from_millis(500), 1 << 30));
    let topics = Some(vec![Pattern::parse("events.new_order").unwrap()]);
    let expected = Policy {
        dedup: Some(Dedup { window: Duration::from_secs(5400), marks_max: 1000, topics }),
        retry: Retry { attempts: 3, min: Duration::from_secs(1), max: Duration::from_secs(60) },
        on_failure: OnFailure::Skip,
        concurrency: 4,
        rate: Some(RateLimit { runs: 1000, per: Duration::from_secs(60) }),
        body_bytes_max: 1024,
        breaker: Some(BreakerSettings {
            trip: Trip::Rate { percent: 20, samples: 50, window: Duration::from_secs(30) },
            wait: Duration::from_secs(1),
            max_wait: Duration::from_secs(300),
        }),
        dead: DeadBox { letters_max: 5, full: DeadFull::Stop },
        delayed: DelayedBound { messages_max: 7, bytes_max: 2 << 20 },
    };
    assert_eq!(order.policy, expected);
    let values: Vec<_> = order.config.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    let cert = ("cert", "0123456789abcdef");
    let token = ("token", "from the environment");
    assert_eq!(values, [cert, ("currency", "EUR"), ("on", "true"), ("rate", "2"), token]);
}

#[test]
fn retain_false_keeps_everything_and_a_table_names_what_differs() {
    let day = Duration::from_secs(86_400);
    for (typed, age, bytes_max) in [
        ("false", None, None),
        ("{}", Some(7 * day), None),
        ("{ max_bytes = \"64MiB\" }", Some(7 * day), Some(64 << 20)),
        ("{ age = false, max_bytes = \"1GiB\" }", None, Some(1 << 30)),
    ] {
        let text = format!("[log]\nretain = {typed}");
        let LogSettings::Embedded { retain, .. } =
            Files::new().parse(&text, &Overrides::default()).unwrap().settings.log
        else {
            panic!("another kind of log");
        };
        assert_eq!(retain, Retain { age, bytes_max }, "{typed}");
    }
}

#[test]
fn a_longer_first_wait_alone_moves_the_longest_along() {
    let text = handler("breaker = { wait = \"5m\" }\nretry = { min = \"5m\" }");
    let handlers = Files::new().parse(&text, &Overrides::default()).unwrap().settings.handlers;
    let Policy { breaker, retry, .. } = &handlers[0].policy;
    let five_minutes = Duration::from_secs(300);
    assert_eq!((breaker.as_ref().unwrap().max_wait, retry.max), (five_minutes, five_minutes));
}

#[test]
fn a_handler_that_may_get_its_own_messages_is_taken_with_a_warning() {
    let loaded = Files::new().parse(&handler("publish = [\"events.done\"]"), &Overrides::default()).unwrap();
    let shown = loaded.warnings[0].to_string();
    assert!(shown.contains("warning: the handler may get its own messages: `events.done` meets `events.*`"), "{shown}");
}

#[test]
fn flags_and_variables_win_over_the_file() {
    let files = Files::new();
    let overrides =
        Overrides { listen: Some("localhost:1".into()), data: Some("elsewhere".into()), ..Overrides::default() };
    let settings = files.parse("[http]\nlisten = \"127.0.0.1:80\"\n[log]\npath = \"x\"", &overrides).unwrap().settings;
    assert_eq!(settings.http.listen, ([127, 0, 0, 1], 1).into());
    assert_eq!(settings.log, LogSettings::Embedded { path: "elsewhere".into(), retain: Retain::default() });

    let overrides = Overrides {
        namespace: Some("mine".into()),
        listen: Some("0.0.0.0:80".into()),
        token_file: Some(files.path("token")),
        ..Overrides::default()
    };
    let Settings { namespace, http, .. } = files.parse("namespace = \"shop\"", &overrides).unwrap().settings;
    assert_eq!((namespace.as_str(), http.token), ("mine", Some(Secret::new("0123456789abcdef"))));
    for (token_file, expected) in [("gone", "failed to read the token"), ("short", "has 6 bytes, at least 16")] {
        let overrides = Overrides { token_file: Some(files.path(token_file)), ..Overrides::default() };
        let shown = files.parse("namespace = \"shop\"", &overrides).unwrap_err().to_string();
        assert!(shown.contains(expected) && shown.contains("--> --token-file or SLUICEBOX_TOKEN_FILE\n"), "{shown}");
    }
    let overrides = Overrides { namespace: Some("My Shop".into()), ..Overrides::default() };
    let shown = files.parse("namespace = \"shop\"", &overrides).unwrap_err().to_string();
    assert!(shown.contains("`My Shop` is not a namespace\n  --> --namespace or SLUICEBOX_NAMESPACE\n"), "{shown}");

    for (listen, expected) in [("nonsense", "is not an address"), ("0.0.0.0:80", "needs `token_file`")] {
        let overrides = Overrides { listen: Some(listen.into()), ..Overrides::default() };
        let shown = files.parse("namespace = \"a\"", &overrides).unwrap_err().to_string();
        assert!(shown.contains(expected) && shown.contains("--> --listen or SLUICEBOX_LISTEN\n"), "{shown}");
    }
}

#[test]
fn another_kind_of_log_is_taken_where_its_server_is_by_default_and_the_same_as_the_file_says() {
    let files = Files::new();
    let url = |text: &str, kind| match files
        .parse(text, &Overrides { log: Some(kind), ..Overrides::default() })
        .unwrap()
        .settings
        .log
    {
        LogSettings::Embedded { path, .. } => path.display().to_string(),
        LogSettings::Nats { url, .. } | LogSettings::Redis { url, .. } => url,
    };
    let (embedded, nats) =
        ("[log]\nkind = \"embedded\"\npath = \"x\"", "[log]\nkind = \"nats\"\nurl = \"nats://far:1\"");
    assert_eq!(url(embedded, LogKind::Nats), "nats://127.0.0.1:4222");
    assert_eq!(url(embedded, LogKind::Redis), "redis://127.0.0.1:6379");
    assert_eq!(url(nats, LogKind::Nats), "nats://far:1");
    assert!(url(nats, LogKind::Embedded).ends_with("/data"));
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_panic(text in "(\\PC|[\n\t=\\[\\]{}\"'.#é]){0,80}") {
            if let Err(problems) = Files::new().parse(&text, &Overrides::default()) {
                prop_assert!(problems.to_string().contains("error"));
            }
        }
    }
}
