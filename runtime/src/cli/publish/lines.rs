//! `sluicebox publish --ndjson`: many lines, a part at a time, so that it is always known how far it is.
//!
//! Each part is one request, answered when it is durable. Whatever ends it early (the host, an interrupt, a bad file), it
//! says up to which line messages are acknowledged and how to go on.

use super::{Line, PublishArgs, Topic, headers, open};
use crate::cli::client::Client;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Output, grouped, note, printable};
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use ureq::SendBody;

/// Lines and bytes of one part: as much as the host appends at a time.
const PART_LINES_MAX: u64 = 1000;
const PART_BYTES_MAX: usize = 1 << 18;
/// A part does not wait for more lines when none comes for so long.
const FLUSH_AFTER: Duration = Duration::from_millis(50);
/// A line that goes on after this (8 MiB) has no end.
const LINE_BYTES_MAX: u64 = 8 << 20;
/// Lines that are read ahead.
const READ_AHEAD: usize = 64;
/// Bad lines that are listed; the rest are counted.
const BAD_LINES_MAX: usize = 100;

/// How far it is. Lines are counted from 1.
#[derive(Default)]
struct Done {
    accepted: u64,
    /// Those of them that appear later.
    delayed: u64,
    bad: u64,
    bad_lines: Vec<Value>,
    first_offset: Option<u64>,
    last_offset: Option<u64>,
    /// Every line up to this one is acknowledged, empty or bad.
    settled_line: u64,
    /// Lines after it that were sent and not answered yet.
    sent_lines: u64,
}

impl Done {
    /// Takes an answer up, whose lines count from 1 too.
    fn add(&mut self, answer: &Value) {
        let number = |name: &str| answer[name].as_u64();
        self.accepted += number("accepted").unwrap_or_default();
        self.delayed += number("delayed").unwrap_or_default();
        self.bad += number("bad").unwrap_or_default();
        for bad in answer["bad_lines"].as_array().map(Vec::as_slice).unwrap_or_default() {
            if self.bad_lines.len() < BAD_LINES_MAX {
                let line = self.settled_line + bad["line"].as_u64().unwrap_or_default();
                self.bad_lines.push(json!({ "line": line, "error": bad["error"] }));
            }
        }
        self.first_offset = self.first_offset.or(number("first_offset"));
        self.last_offset = number("last_offset").or(self.last_offset);
        self.settled_line += number("settled_line").unwrap_or_default();
        self.sent_lines = 0;
    }

    /// Takes up that a part could not be sent. Only of the first it is known that none of it was: later ones go over a
    /// connection that was there.
    fn not_connected(&mut self, failure: &Failure) {
        let refused = |error: &ureq::Error| match error {
            ureq::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
            ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
            _ => false,
        };
        if self.accepted + self.bad == 0 && failure.error.downcast_ref().is_some_and(refused) {
            self.sent_lines = 0;
        }
    }

    fn next_line(&self) -> u64 {
        self.settled_line + 1
    }

    /// `ended`: every line was sent and answered.
    fn to_json(&self, ended: bool) -> Value {
        json!({
            "accepted": self.accepted,
            "delayed": self.delayed,
            "bad": self.bad,
            "bad_lines": self.bad_lines,
            "first_offset": self.first_offset,
            "last_offset": self.last_offset,
            "settled_line": self.settled_line,
            "unknown_lines": self.sent_lines,
            "from_line": (!ended).then(|| self.next_line()),
        })
    }

    /// How to go on.
    fn how_to_go_on(&self) -> String {
        let unknown = match self.sent_lines {
            0 => String::new(),
            lines => format!("; the {} lines after it may be in the log too", grouped(lines)),
        };
        format!("acknowledged up to line {}{unknown}: go on with --from-line {}", self.settled_line, self.next_line())
    }

    fn show(&self, topic: &Topic, ended: bool, output: &mut Output) -> Result<(), Failure> {
        if output.json {
            output.json(&self.to_json(ended))?;
            return Ok(());
        }
        for bad in &self.bad_lines {
            note(format!("line {}: {}", bad["line"], printable(bad["error"].as_str().unwrap_or_default())));
        }
        let more = self.bad.saturating_sub(self.bad_lines.len() as u64);
        if more > 0 {
            note(format!("and {} more bad lines", grouped(more)));
        }
        let messages = if self.accepted == 1 { "message" } else { "messages" };
        let later = match self.delayed {
            0 => String::new(),
            delayed => format!(", {} of them with a delay", grouped(delayed)),
        };
        output.line(format!("published {} {messages} to {topic}{later}", grouped(self.accepted)))?;
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Done>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Done> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn publish(
    args: &PublishArgs,
    topic: &Topic,
    client: &Client,
    path: &str,
    file: &Path,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let bytes = std::fs::metadata(file).ok().filter(std::fs::Metadata::is_file).map(|file| file.len());
    let bar = bar(bytes);
    let lines = read_lines(Progress { from: open(file)?, lines: 0, bar: bar.clone() });
    let mut headers = headers(args);
    headers.push(("content-type".into(), "application/x-ndjson".into()));
    let path = if args.messages { format!("{path}?lines=messages") } else { path.to_owned() };
    let done = Shared::default();
    if output.is_standard {
        say_when_interrupted(done.clone(), topic.clone(), output.json)?;
    }
    let result = publish_parts(args.from_line, client, &path, &headers, &lines, &done);
    bar.finish_and_clear();
    // Held to the end: an interrupt must not say it once more.
    let done = done.lock();
    done.show(topic, result.is_ok(), output)?;
    match result {
        Ok(()) if done.bad > 0 => Ok(Exit::Failed),
        Ok(()) => Ok(Exit::Done),
        Err(Failure { exit, error }) => Err(Failure { exit, error: error.context(done.how_to_go_on()) }),
    }
}

/// Sends every line from `from_line` on.
fn publish_parts(
    from_line: u64,
    client: &Client,
    path: &str,
    headers: &[(String, String)],
    lines: &Receiver<Line>,
    done: &Shared,
) -> Result<(), Failure> {
    for _ in 1..from_line {
        match lines.recv() {
            Ok(Ok(_)) => done.lock().settled_line += 1,
            Ok(Err(error)) => return Err(unreadable(error)),
            Err(_) => break,
        }
    }
    loop {
        let (part, count, end) = next_part(lines);
        if count > 0 {
            done.lock().sent_lines = count;
            let sent = client.post(path, headers, SendBody::from_owned_reader(Cursor::new(part)));
            let (status, answer) = sent.inspect_err(|failure| done.lock().not_connected(failure))?;
            let is_report = answer["settled_line"].is_u64();
            if is_report {
                done.lock().add(&answer);
            } else {
                // It refused before it took anything.
                done.lock().sent_lines = 0;
            }
            let goes_on = status == 200 || (status == 400 && is_report && answer["bad"].as_u64() > Some(0));
            if !goes_on {
                return Err(client.refused(status, &answer));
            }
        }
        match end {
            None => {}
            Some(End::Reached) => return Ok(()),
            Some(End::Failed(error)) => return Err(unreadable(error)),
        }
    }
}

fn unreadable(error: std::io::Error) -> Failure {
    anyhow::Error::new(error).context("failed to read the lines").into()
}

/// Why there are no more lines.
enum End {
    Reached,
    Failed(std::io::Error),
}

/// The lines that are there, or the first that comes; how many; and whether they are the last.
fn next_part(lines: &Receiver<Line>) -> (Vec<u8>, u64, Option<End>) {
    let (mut part, mut count) = (vec![], 0);
    let mut next = lines.recv().map_err(|_| RecvTimeoutError::Disconnected);
    loop {
        match next {
            Ok(Ok(line)) => {
                part.extend_from_slice(&line);
                count += 1;
            }
            Ok(Err(error)) => return (part, count, Some(End::Failed(error))),
            Err(RecvTimeoutError::Disconnected) => return (part, count, Some(End::Reached)),
            Err(RecvTimeoutError::Timeout) => return (part, count, None),
        }
        if count >= PART_LINES_MAX || part.len() >= PART_BYTES_MAX {
            return (part, count, None);
        }
        next = lines.recv_timeout(FLUSH_AFTER);
    }
}

/// Reads lines beside the requests: who waits for a line can then wait for so long alone.
fn read_lines(from: impl Read + Send + 'static) -> Receiver<Line> {
    let (sender, lines) = sync_channel(READ_AHEAD);
    std::thread::spawn(move || send_lines(BufReader::with_capacity(1 << 16, from), &sender));
    lines
}

fn send_lines(mut from: BufReader<impl Read>, lines: &SyncSender<Line>) {
    loop {
        let mut line = vec![];
        let read = from.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        let sent = match read {
            Ok(0) => return,
            Ok(bytes) if bytes as u64 == LINE_BYTES_MAX && !line.ends_with(b"\n") => {
                let error = format!("a line does not end within {LINE_BYTES_MAX} bytes");
                lines.send(Err(std::io::Error::other(error)))
            }
            Ok(_) => lines.send(Ok(line)),
            Err(error) => lines.send(Err(error)),
        };
        // Nobody wants more: an error ended it, or the host refused.
        if sent.is_err() {
            return;
        }
    }
}

/// From now on SIGINT and SIGTERM say how far it is, and end the process.
fn say_when_interrupted(done: Shared, topic: Topic, json: bool) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    // It lasts as long as the process.
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                // Safe to cancel, both: one is enough.
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        let done = done.lock();
        // The process ends, whether this can be written or not.
        let _ = done.show(&topic, false, &mut Output::new(json));
        note(format!("interrupted: {}", done.how_to_go_on()));
        std::process::exit(Exit::Failed as i32);
    });
    Ok(())
}

/// Counts what is read from it.
struct Progress {
    from: Box<dyn Read + Send>,
    lines: u64,
    /// Of bytes. Shows nothing unless a terminal watches.
    bar: ProgressBar,
}

/// `bytes`: how many there will be, if that is known.
fn bar(bytes: Option<u64>) -> ProgressBar {
    let (bar, template) = match bytes {
        Some(bytes) => (ProgressBar::new(bytes), "{bytes} of {total_bytes}, {bytes_per_sec}, {eta} left: {msg}"),
        None => (ProgressBar::no_length(), "{bytes}, {bytes_per_sec}: {msg}"),
    };
    let bar = bar.with_finish(ProgressFinish::AndClear);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        // Only a template with a mistake is refused; the progress then looks plain.
        Err(_) => bar,
    }
}

impl Read for Progress {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.lines += buffer[..count].iter().filter(|byte| **byte == b'\n').count() as u64;
        self.bar.inc(count as u64);
        self.bar.set_message(format!("{} lines", grouped(self.lines)));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_counts_bytes_and_lines_of_what_is_read() {
        for bytes in [Some(9), None] {
            let mut progress = Progress { from: Box::new(&b"one\ntwo\n3"[..]), lines: 0, bar: bar(bytes) };
            std::io::copy(&mut progress, &mut std::io::sink()).unwrap();
            assert_eq!((progress.lines, progress.bar.position(), progress.bar.length()), (2, 9, bytes));
            progress.bar.finish_and_clear();
            assert!(progress.bar.is_finished());
        }
    }

    #[test]
    fn parts_are_bounded_and_hold_every_line_once() {
        let text = "1\n".repeat(2500) + "last";
        let lines = read_lines(Cursor::new(text.clone().into_bytes()));
        let (mut found, mut counts) = (vec![], vec![]);
        loop {
            let (part, count, end) = next_part(&lines);
            found.extend(part);
            counts.push(count);
            if end.is_some() {
                break;
            }
        }
        assert_eq!(String::from_utf8(found).unwrap(), text);
        assert!(
            counts.iter().all(|count| *count <= PART_LINES_MAX) && counts.iter().sum::<u64>() == 2501,
            "{counts:?}"
        );
    }
}
