//! Wrong command lines through the real program: what a person sees, word for word, and the exit code.

use crate::harness::process::PROGRAM;
use std::process::{Command, Stdio};

/// Runs the program in a folder of its own, without the variables of whoever runs the tests.
fn sluicebox(arguments: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("full")).unwrap();
    std::fs::write(folder.path().join("full/mine"), "").unwrap();
    let mut command = Command::new(PROGRAM);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SLUICEBOX_")) {
        command.env_remove(name);
    }
    let output = command.args(arguments).current_dir(folder.path()).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "{arguments:?} left something behind");
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn check(arguments: &[&str], exit: i32, shown: &str) {
    let (found, output, error) = sluicebox(arguments);
    assert_eq!((found, output.as_str(), error.trim_end()), (exit, "", shown), "{arguments:?}");
}

const MORE: &str = "\n\nFor more information, try '--help'.";

/// As the parser of the command line says it, with the line of usage.
#[track_caller]
fn check_usage(arguments: &[&str], message: &str, usage: &str) {
    check(arguments, 2, &format!("error: {message}\n\nUsage: sluicebox {usage}{MORE}"));
}

/// As the parser of a value says it.
#[track_caller]
fn check_value(arguments: &[&str], message: &str) {
    check(arguments, 2, &format!("error: {message}{MORE}"));
}

#[test]
fn a_command_that_is_none_is_answered_with_the_nearest_one() {
    let usage = "[OPTIONS] <COMMAND>";
    let similar = |typed: &str, near: &str| {
        format!("unrecognized subcommand '{typed}'\n\n  tip: a similar subcommand exists: '{near}'")
    };
    check_usage(&["publsh"], &similar("publsh", "publish"), usage);
    check_usage(&["dead", "lst"], &similar("lst", "list"), &format!("dead {usage}"));
    check_usage(
        &["handlers", "breaker", "open", "order"],
        "unrecognized subcommand 'open'\n\n  tip: there is: trip, reset, help",
        &format!("handlers breaker {usage}"),
    );
}

#[test]
fn a_flag_that_is_none_is_answered_with_the_nearest_one() {
    let similar = |typed: &str, near: &str| {
        format!("unexpected argument '{typed}' found\n\n  tip: a similar argument exists: '{near}'")
    };
    check_usage(
        &["publish", "a", "1", "--heder", "x=y"],
        &similar("--heder", "--header"),
        "publish --header <NAME=VALUE> <TOPIC> <BODY>...",
    );
    check_usage(&["status", "--shard"], &similar("--shard", "--shards"), "status --shards");
    check_usage(&["check", "extra"], "unexpected argument 'extra' found", "check [OPTIONS]");
}

#[test]
fn what_is_missing_or_contradicts_is_named() {
    let missing = |name: &str| format!("the following required arguments were not provided:\n  <{name}>");
    check_usage(&["publish"], &missing("TOPIC"), "publish <TOPIC> [BODY]...");
    check_usage(&["handlers", "pause"], &missing("NAME"), "handlers pause <NAME>");
    check_usage(&["new"], &missing("NAME"), "new <NAME>");
    check_usage(
        &["publish", "a", "1", "--file", "x"],
        "the argument '[BODY]...' cannot be used with '--file <FILE>'",
        "publish <TOPIC> <BODY>...",
    );
    check_usage(
        &["settings", "--markdown", "timeout"],
        "the argument '--markdown' cannot be used with '[NAME]'",
        "settings --markdown [NAME]",
    );
}

#[test]
fn values_that_cannot_be_say_what_can() {
    check_value(
        &["publish", "a", "1", "--header", "x"],
        "invalid value 'x' for '--header <NAME=VALUE>': write NAME=VALUE",
    );
    check_value(
        &["tail", "--from", "now"],
        "invalid value 'now' for '--from <WHERE>': use latest, earliest, an offset, or a time such as \
         2026-01-31T08:00:00Z",
    );
    check_value(
        &["dead", "show", "x"],
        "invalid value 'x' for '<NUMBER>': write the number that `sluicebox dead list` shows",
    );
    check_value(
        &["handlers", "pause", "Order"],
        "invalid value 'Order' for '<NAME>': `Order` is not a handler name: use a-z, then up to 62 of a-z 0-9 _ -",
    );
    check_value(
        &["completions", "tcsh"],
        "invalid value 'tcsh' for '<SHELL>'\n  [possible values: bash, elvish, fish, powershell, zsh]\n\n  \
         tip: a similar value exists: 'zsh'",
    );
    check_value(&["check", "--config"], "a value is required for '--config <FILE>' but none was supplied");
    check_value(&["check", "--data", ""], "a value is required for '--data <DIR>' but none was supplied");
    check_value(
        &["bench", "--messages", "5"],
        "invalid value '5' for '--messages <MESSAGES>': 5 is not in 1000..=4294967295",
    );
}

#[test]
fn what_only_the_command_can_judge_is_wrong_usage_too() {
    check(
        &["publish", "a.*", "1"],
        2,
        "error: `a.*` is a pattern, a concrete topic is needed here: `*` and `>` cannot be published to",
    );
    check(
        &["publish", "a", "1", "2", "--id", "x"],
        2,
        "error: one --id for several messages would make all but the first duplicates",
    );
    check(
        &["publish", "a", "1", "--url", "https://x"],
        2,
        "error: `https://x` needs TLS, which sluicebox does not speak: use http://, or a tunnel to the host",
    );
    check(&["tail", "a.>.b"], 2, "error: `>` must be the last token of `a.>.b`");
    check(&["settings", "timeuot"], 2, "error: there is no setting `timeuot`: did you mean `timeout`?");
    check(
        &["new", "My Shop"],
        2,
        "error: `My Shop` is not a name for a workspace or a handler: use a-z, then up to 62 of a-z 0-9 _ -, such as `my-shop`",
    );
    check(
        &["dead", "retry"],
        2,
        "error: say which dead letters to retry: their numbers, --handler, --shard, --key, --topic, --kind, or --all",
    );
}

#[test]
fn what_was_typed_right_and_cannot_be_done_is_a_failure_of_another_code() {
    check(
        &["new", "full"],
        1,
        "error: `full` is there already and is not empty: nothing was changed; choose another name, or another folder \
         with --path",
    );
    check(
        &["new", "shop", "--sdk", "full"],
        1,
        "error: there is no sluicebox-sdk in `full`: --sdk names the folder with its Cargo.toml, such as `guest-sdk` of \
         the repository",
    );
    check(
        &["build", "gone"],
        1,
        "error: there is no Cargo.toml in `gone` or one level below: go to the directory of the handlers, or name it",
    );
    check(
        &["run"],
        3,
        "error: failed to read the settings: No such file or directory (os error 2)\n  --> sluicebox.toml\n  \
         expected: a TOML file of at most 1048576 bytes with at least one setting\n  \
         hint: name the file with --config or SLUICEBOX_CONFIG, go to the directory where it is, or make one with \
         `sluicebox new`\n\n1 error in the settings",
    );
}

#[test]
fn programs_get_wrong_usage_as_json() {
    for (arguments, exit, told) in [
        (
            &["publsh", "--json"][..],
            2,
            "unrecognized subcommand 'publsh'\n\n  tip: a similar subcommand exists: 'publish'",
        ),
        (&["settings", "--json", "timeuot"], 2, "there is no setting `timeuot`: did you mean `timeout`?"),
        (&["run", "--json"], 3, "1 error in the settings"),
    ] {
        let (found, output, error) = sluicebox(arguments);
        let error: serde_json::Value = serde_json::from_str(&error).unwrap();
        assert_eq!((found, output.as_str(), error["error"].as_str()), (exit, "", Some(told)), "{arguments:?}");
        assert_eq!(error["exit"], exit);
    }
}

#[test]
fn completions_of_every_shell_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (exit, script, error) = sluicebox(&["completions", shell]);
        assert_eq!((exit, error.as_str()), (0, ""), "{shell}");
        for word in ["publish", "handlers", "settings-only", "rollback"] {
            assert!(script.contains(word), "{shell} does not complete {word}");
        }
    }
    let (exit, output, _) = sluicebox(&["completions", "bash", "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!((exit, &answer["shell"]), (0, &"bash".into()));
}

#[test]
fn the_reference_is_on_the_terminal_and_for_programs() {
    let (exit, output, _) = sluicebox(&["settings", "breaker.window"]);
    let expected = "\
handlers.NAME.breaker.window
  How far back it looks; for trip = \"count\" and \"rate\".
  values:  a duration from \"1s\" to \"1h\"
  default: \"10s\"
  example: [handlers.order]
           breaker = { trip = \"rate\", window = \"1m\" }
";
    assert_eq!((exit, output.as_str()), (0, expected));
    let (_, output, _) = sluicebox(&["settings", "--json", "listen"]);
    let answer: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!(answer["settings"][0]["name"], "http.listen");
    assert_eq!(answer["settings"][0]["flag"], "--listen");
    let (_, output, _) = sluicebox(&["settings"]);
    assert!(output.starts_with("SETTING ") && output.contains("\nhandlers.NAME.limit.rate "), "{output}");
}

#[test]
fn a_host_that_broken_settings_would_have_named_is_not_looked_for_silently() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("sluicebox.toml"), "[http\n").unwrap();
    let mut command = Command::new(PROGRAM);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SLUICEBOX_")) {
        command.env_remove(name);
    }
    // A topic that the host refuses, should one run at the usual place.
    let output =
        command.args(["tail", "_x", "--no-follow"]).current_dir(folder.path()).stdin(Stdio::null()).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    let expected = "`sluicebox.toml` cannot be read (`sluicebox check` says why), so the host is looked for at \
                    http://127.0.0.1:8080: name it with --url\n";
    assert!(error.starts_with(expected), "{error}");
}
