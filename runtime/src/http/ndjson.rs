//! Newline-delimited JSON: each line is the body of one message, or with `?lines=messages` a whole [message](super::line).
//!
//! Lines are appended in chunks while they arrive, in order, so memory is bounded and a long import never starts over:
//! it is not atomic. A chunk does not wait for more when none comes for a moment. The answer says how many were accepted and which lines were not. Empty lines are skipped.

use super::body::BodyReader;
use super::envelope::Envelope;
use super::error::ApiError;
use super::face::Face;
use super::line::{self, LineKind};
use crate::delays::Delaying;
use crate::message::{NewMessage, Offset};
use crate::topic::Topic;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Messages of one append.
const CHUNK_MESSAGES_MAX: usize = 1000;
/// Bytes of one append (256 KiB).
const CHUNK_BYTES_MAX: usize = 1 << 18;
/// A line that goes on after this (8 MiB) has no end.
const LINE_BYTES_MAX: usize = 8 << 20;
/// Lines that came are appended when no more come for so long.
const FLUSH_AFTER: Duration = Duration::from_millis(50);
/// Bad lines that the answer lists; the rest are counted.
const BAD_LINES_MAX: usize = 100;

pub(super) async fn publish(
    face: &Face,
    topic: Topic,
    envelope: Envelope,
    kind: LineKind,
    body: Body,
) -> Result<Response, ApiError> {
    if envelope.id.is_some() {
        let error = "`Sluicebox-Id` would make every line but the first a duplicate: leave it out";
        return Err(ApiError::bad_request(error));
    }
    let (chunk, rooms, report) = (vec![], vec![], Report::default());
    let mut import = Import { face, topic, envelope, kind, chunk, rooms, chunk_bytes: 0, report };
    let result = import.run(body).await;
    let Report { accepted, bad, .. } = import.report;
    let report = import.report.into_fields();
    match result {
        Err(error) => Err(error.with_all(report)),
        Ok(()) if bad > 0 => {
            let error = format!("{bad} of {} lines were not accepted", accepted + bad);
            Err(ApiError::new(StatusCode::BAD_REQUEST, error).with_all(report))
        }
        Ok(()) => Ok(Json(report).into_response()),
    }
}

struct Import<'f> {
    face: &'f Face,
    topic: Topic,
    envelope: Envelope,
    kind: LineKind,
    chunk: Vec<NewMessage>,
    /// Of those in the chunk that appear later.
    rooms: Vec<Delaying>,
    chunk_bytes: usize,
    report: Report,
}

/// What became of the lines.
#[derive(Default)]
struct Report {
    accepted: u64,
    /// Those of them that appear later.
    delayed: u64,
    bad: u64,
    bad_lines: Vec<Value>,
    first: Option<Offset>,
    last: Option<Offset>,
    /// Every line up to this one was appended, empty or bad.
    settled_line: u64,
}

impl Report {
    fn into_fields(self) -> Map<String, Value> {
        Map::from_iter([
            ("accepted".to_owned(), json!(self.accepted)),
            ("delayed".to_owned(), json!(self.delayed)),
            ("bad".to_owned(), json!(self.bad)),
            ("bad_lines".to_owned(), json!(self.bad_lines)),
            ("first_offset".to_owned(), json!(self.first.map(|offset| offset.0))),
            ("last_offset".to_owned(), json!(self.last.map(|offset| offset.0))),
            ("settled_line".to_owned(), json!(self.settled_line)),
        ])
    }
}

impl Import<'_> {
    async fn run(&mut self, body: Body) -> Result<(), ApiError> {
        let line_bytes_max = self.kind.bytes_max();
        let mut lines = Lines::new(line_bytes_max);
        // A chunk with the line that fills it, and a line under way.
        let mut parts = BodyReader::new(self.face, body, CHUNK_BYTES_MAX + 2 * line_bytes_max).await?;
        loop {
            let next = match self.chunk.is_empty() {
                true => parts.next().await?,
                // Safe to cancel: a part is handed out whole or stays.
                false => match tokio::time::timeout(FLUSH_AFTER, parts.next()).await {
                    Ok(next) => next?,
                    Err(_) => {
                        self.append(lines.number).await?;
                        continue;
                    }
                },
            };
            let Some(part) = next else { break };
            lines.feed(part);
            let settled = self.report.settled_line;
            while let Some(line) = lines.next() {
                self.take(line).await?;
            }
            if lines.dropped_bytes > LINE_BYTES_MAX {
                self.append(lines.number).await?;
                let error = format!("line {} does not end within {LINE_BYTES_MAX} bytes", lines.number + 1);
                return Err(ApiError::too_large(error));
            }
            if self.report.settled_line != settled {
                // It waited for the log, not for the client.
                parts.reset_deadline();
            }
        }
        if let Some(line) = lines.last() {
            self.take(line).await?;
        }
        self.append(lines.number).await
    }

    async fn take(&mut self, line: Line) -> Result<(), ApiError> {
        match self.message(line.text) {
            Ok(None) => {}
            Ok(Some((message, delay))) => {
                let message = match delay {
                    None => message,
                    Some(delay) => self.delayed(message, delay, line.number).await?,
                };
                self.chunk_bytes += message.bytes();
                self.chunk.push(message);
            }
            Err(error) => {
                self.report.bad += 1;
                if self.report.bad_lines.len() < BAD_LINES_MAX {
                    self.report.bad_lines.push(json!({ "line": line.number, "error": error }));
                }
            }
        }
        match self.chunk.len() >= CHUNK_MESSAGES_MAX || self.chunk_bytes >= CHUNK_BYTES_MAX {
            true => self.append(line.number).await,
            false => Ok(()),
        }
    }

    /// The message of this line as it is appended when it is to appear later. Where that cannot be, what came before is
    /// appended all the same.
    async fn delayed(&mut self, message: NewMessage, delay: Duration, line: u64) -> Result<NewMessage, ApiError> {
        match self.face.delayed(message, delay).await {
            Ok((message, room)) => {
                self.rooms.push(room);
                Ok(message)
            }
            Err(error) => {
                self.append(line - 1).await?;
                Err(error)
            }
        }
    }

    /// What the line is, and when it is to appear.
    fn message(&self, text: Result<Bytes, TooLong>) -> Result<Option<(NewMessage, Option<Duration>)>, String> {
        let text = text.map_err(|TooLong| format!("the line is longer than {} bytes", self.kind.bytes_max()))?;
        if text.trim_ascii().is_empty() {
            return Ok(None);
        }
        let (envelope, body) = match self.kind {
            LineKind::Body => {
                let checked = serde_json::from_slice::<serde::de::IgnoredAny>(&text);
                checked.map_err(|error| format!("not JSON: {}", line::within_line(&error)))?;
                (self.envelope.clone(), text)
            }
            LineKind::Message => line::message(self.envelope.clone(), &text)?,
        };
        let delay = envelope.delay();
        let message = envelope.message(self.topic.clone(), body);
        message.map(|message| Some((message, delay))).map_err(|error| error.to_string())
    }

    /// Appends what was taken up to this line.
    async fn append(&mut self, line: u64) -> Result<(), ApiError> {
        self.chunk_bytes = 0;
        if !self.chunk.is_empty() {
            let (chunk, rooms) = (std::mem::take(&mut self.chunk), std::mem::take(&mut self.rooms));
            let delayed = rooms.len() as u64;
            let offsets = self.face.append(chunk, rooms).await?;
            self.report.first = self.report.first.or(offsets.first().copied());
            self.report.last = offsets.last().copied();
            self.report.accepted += offsets.len() as u64;
            self.report.delayed += delayed;
            self.face.counts.appended.inc_by(offsets.len() as u64);
        }
        self.report.settled_line = line;
        Ok(())
    }
}

/// A line without its end.
struct Line {
    /// From 1.
    number: u64,
    text: Result<Bytes, TooLong>,
}

/// A line that cannot be a body; what there was of it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TooLong;

/// Splits parts of a body into lines, holding at most one line and one part.
struct Lines {
    /// Most bytes of one line.
    bytes_max: usize,
    part: Bytes,
    /// The beginning of a line that earlier parts began.
    begun: Vec<u8>,
    /// The line under way is too long already.
    too_long: bool,
    /// What there was of it.
    dropped_bytes: usize,
    /// Lines handed out.
    number: u64,
}

impl Lines {
    fn new(bytes_max: usize) -> Self {
        Self { bytes_max, part: Bytes::new(), begun: vec![], too_long: false, dropped_bytes: 0, number: 0 }
    }

    /// Called when `next` has nothing more.
    fn feed(&mut self, part: Bytes) {
        self.part = part;
    }

    fn next(&mut self) -> Option<Line> {
        match self.part.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                let rest = self.part.split_to(end);
                // Without the newline.
                let _ = self.part.split_to(1);
                Some(self.finish(rest))
            }
            None => {
                let rest = std::mem::take(&mut self.part);
                self.too_long |= self.begun.len() + rest.len() > self.bytes_max;
                match self.too_long {
                    true => {
                        self.dropped_bytes += self.begun.len() + rest.len();
                        self.begun = vec![];
                    }
                    false => self.begun.extend_from_slice(&rest),
                }
                None
            }
        }
    }

    /// What follows the last newline.
    fn last(&mut self) -> Option<Line> {
        (self.too_long || !self.begun.is_empty()).then(|| self.finish(Bytes::new()))
    }

    fn finish(&mut self, rest: Bytes) -> Line {
        self.number += 1;
        self.dropped_bytes = 0;
        let begun = std::mem::take(&mut self.begun);
        let too_long = std::mem::take(&mut self.too_long) || begun.len() + rest.len() > self.bytes_max;
        let mut text: Bytes = if begun.is_empty() { rest } else { [&begun[..], &rest[..]].concat().into() };
        if text.ends_with(b"\r") {
            text.truncate(text.len() - 1);
        }
        Line { number: self.number, text: if too_long { Err(TooLong) } else { Ok(text) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::BODY_BYTES_MAX;
    use proptest::prelude::*;

    fn split(parts: &[&[u8]]) -> Vec<Result<Vec<u8>, TooLong>> {
        let mut lines = Lines::new(BODY_BYTES_MAX);
        let mut found = vec![];
        for part in parts {
            lines.feed(Bytes::copy_from_slice(part));
            while let Some(line) = lines.next() {
                found.push(line.text.map(Vec::from));
            }
        }
        found.extend(lines.last().map(|line| line.text.map(Vec::from)));
        assert_eq!(lines.number as usize, found.len());
        found
    }

    #[test]
    fn a_line_that_is_too_long_is_dropped_and_the_next_one_kept() {
        let long = vec![b'x'; BODY_BYTES_MAX];
        assert_eq!(split(&[&long, b"y\n1\n"]), [Err(TooLong), Ok(b"1".to_vec())]);
        assert_eq!(split(&[&long, &long, &long]), [Err(TooLong)]);
        assert_eq!(split(&[&long, b"\n"]), [Ok(long.clone())]);
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_the_body_arrives(text in "[a\r\n]{0,20}", cuts in proptest::collection::vec(0usize..20, 0..4)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            let mut parts = vec![];
            let mut from = 0;
            for cut in cuts {
                parts.push(&text.as_bytes()[from..cut]);
                from = cut;
            }
            parts.push(&text.as_bytes()[from..]);
            let whole = text.strip_suffix('\n').unwrap_or(&text);
            let expected: Vec<Result<Vec<u8>, TooLong>> = match text.is_empty() {
                true => vec![],
                false => whole.split('\n').map(|line| Ok(line.strip_suffix('\r').unwrap_or(line).into())).collect(),
            };
            prop_assert_eq!(split(&parts), expected);
        }
    }
}
