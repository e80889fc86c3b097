//! `sluicebox deploy`: puts a module in force on every host that runs the handler.

use super::client::{Client, HostArgs, encoded, needs_host};
use super::dead::parse_handler;
use super::failure::{Exit, Failure};
use super::output::{Output, grouped, is_watched, note, printable, show_progress};
use crate::clock;
use crate::config;
use crate::handler::{Digest, HandlerName, MODULE_BYTES_MAX};
use crate::http::views::HandlerView;
use anyhow::{Context as _, anyhow};
use clap::Args;
use serde_json::{Value, json};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::SendBody;

/// What a host could not have it tries again within half of this: what it says of the version before is not the last word.
const PROBLEM_AFTER: Duration = Duration::from_secs(10);
/// Between two looks whether it is in force.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub struct DeployArgs {
    /// The handler; the settings of the hosts name it
    #[arg(value_parser = parse_handler)]
    name: HandlerName,
    /// The module: a WebAssembly component, as `sluicebox build` makes it
    file: PathBuf,
    /// Wait for this host too; can be given several times. All hosts of the namespace take the module, whether they are waited
    /// for or not
    #[arg(long, value_name = "URL")]
    also: Vec<String>,
    /// How long to wait until it is in force, such as 30s; 0s: not at all
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = config::duration)]
    wait: Duration,
    #[command(flatten)]
    host: HostArgs,
}

pub(super) fn run(args: &DeployArgs, output: &mut Output) -> Result<Exit, Failure> {
    let DeployArgs { name, file, also, wait, host } = args;
    let module = read(file)?;
    let client = Client::new(host)?;
    let others = also.iter().map(|url| Client::new(&host.at(url))).collect::<Result<Vec<_>, _>>()?;
    if is_watched() {
        show_progress(&format!("{name}: sending {} bytes; the host tries them out", grouped(module.len() as u64)));
    }
    let path = format!("/v1/handlers/{}", encoded(name.as_str()));
    let sent = client.put(&format!("{path}/module"), SendBody::from_owned_reader(std::io::Cursor::new(module)));
    let (status, answer) = sent.map_err(needs_host)?;
    if status != 202 {
        return Err(client.refused(status, &answer));
    }
    let (digest, offset) = (deployed(&answer)?, &answer["offset"]);
    let mut waiting: Vec<&Client> = std::iter::once(&client).chain(&others).collect();
    let mut in_force: Vec<&str> = vec![];
    let began = clock::instant();
    while !waiting.is_empty() && began.elapsed() < *wait {
        if is_watched() {
            let urls: Vec<&str> = waiting.iter().map(|host| host.url()).collect();
            show_progress(&format!("{name}: version {digest} is in the log; waiting for {}", urls.join(", ")));
        }
        let mut left = vec![];
        for host in waiting {
            match look(host, &path, digest)? {
                Look::InForce => in_force.push(host.url()),
                Look::Problem(problem) if began.elapsed() > PROBLEM_AFTER.min(*wait / 2) => {
                    let problem = printable(&problem);
                    return Err(anyhow!("{} goes on with the version that it had: {problem}", host.url()).into());
                }
                Look::Problem(_) | Look::NotYet => left.push(host),
            }
        }
        waiting = left;
        if !waiting.is_empty() {
            std::thread::sleep(LOOK.min(wait.saturating_sub(began.elapsed())));
        }
    }
    if is_watched() {
        show_progress("");
    }
    let left: Vec<&str> = waiting.iter().map(|host| host.url()).collect();
    if output.json {
        output.json(&json!({
            "handler": name, "digest": digest, "offset": offset, "in_force": in_force, "not_yet": left
        }))?;
    } else {
        output.line(format!("{name}: version {digest} is in the log at offset {offset}"))?;
        in_force.iter().try_for_each(|url| output.line(format!("in force at {url}")))?;
    }
    if left.is_empty() || wait.is_zero() {
        return Ok(Exit::Done);
    }
    note(format!(
        "not in force after {wait:?} at {}: it will be once the host can; `sluicebox handlers show {name}` says what is in \
         the way",
        left.join(", ")
    ));
    Ok(Exit::Failed)
}

/// The bytes, unless they cannot be a module.
fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let shown = file.display();
    let opened = std::fs::File::open(file);
    let opened = opened.with_context(|| {
        format!("failed to open `{shown}`: `sluicebox build` makes the modules of a folder of handlers")
    })?;
    let mut module = vec![];
    let read = opened.take(MODULE_BYTES_MAX as u64 + 1).read_to_end(&mut module);
    read.with_context(|| format!("failed to read `{shown}`"))?;
    match module.len() {
        0 => Err(Failure::usage(format!("`{shown}` is empty"))),
        bytes if bytes > MODULE_BYTES_MAX => Err(Failure::usage(format!(
            "`{shown}` has more than {} bytes, which no host loads: build it with optimisation, and without debug information",
            grouped(MODULE_BYTES_MAX as u64)
        ))),
        _ => Ok(module),
    }
}

fn deployed(answer: &Value) -> Result<Digest, Failure> {
    let digest = answer["digest"].as_str().and_then(Digest::parse);
    digest.ok_or_else(|| anyhow!("the host answered what is not expected: {}", printable(&answer.to_string())).into())
}

/// How far a host is.
enum Look {
    InForce,
    NotYet,
    /// Why it does not run the version.
    Problem(String),
}

fn look(host: &Client, path: &str, digest: Digest) -> Result<Look, Failure> {
    let view: HandlerView = host.get_json(path)?;
    let Some(running) = view.running else {
        return Err(anyhow!("{} does not run the handler: its settings do not name it", host.url()).into());
    };
    if running.digest == Some(digest) {
        return Ok(Look::InForce);
    }
    let problem = running.problem.filter(|problem| problem.contains(&digest.to_string()));
    Ok(problem.map_or(Look::NotYet, Look::Problem))
}
