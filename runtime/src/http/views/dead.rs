//! Dead letters and what becomes of orders about them.

use super::message::MessageView;
use crate::commit::{DeadCount, DeadFilter, DeadOrder, DeadQuery, NumberedDeadLetter};
use crate::log::{Log, LogError};
use serde::{Deserialize, Serialize};

/// A page ends after the letter that reaches this many bytes (1 MiB): answers wait in memory for slow clients.
pub const PAGE_BYTES_MAX: usize = 1 << 20;

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetterView {
    pub number: u64,
    pub handler: String,
    pub shard: u16,
    pub kind: String,
    pub error: String,
    pub attempts: u32,
    /// When it was given up.
    pub time: String,
    /// The key it was handled under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// How often it was given up: sent again under its id, or returned and failed again.
    #[serde(default = "once")]
    pub deaths: u32,
    /// Its offset when it was given up first, and when that was.
    #[serde(default)]
    pub first_offset: u64,
    #[serde(default)]
    pub first_time: String,
    /// How often operators sent it back.
    #[serde(default)]
    pub returns: u32,
    /// The module that failed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    pub message: MessageView,
}

/// What hosts of earlier versions do not say.
fn once() -> u32 {
    1
}

impl From<&NumberedDeadLetter> for DeadLetterView {
    fn from(NumberedDeadLetter { number, letter }: &NumberedDeadLetter) -> Self {
        Self {
            number: *number,
            handler: letter.shard.handler.to_string(),
            shard: letter.shard.index,
            kind: letter.kind.clone(),
            error: letter.error.clone(),
            attempts: letter.attempts,
            time: letter.time.to_string(),
            key: letter.key.as_ref().map(ToString::to_string),
            deaths: letter.deaths.count,
            first_offset: letter.deaths.first_offset.0,
            first_time: letter.deaths.first_time.to_string(),
            returns: letter.deaths.returns,
            digest: letter.digest.map(|digest| digest.to_string()),
            message: MessageView::from(&*letter.message),
        }
    }
}

impl DeadLetterView {
    /// The dead letter of this number, if `log` has it.
    pub async fn find(log: &dyn Log, number: u64) -> Result<Option<Self>, LogError> {
        let filter = DeadFilter { numbers: vec![number], ..DeadFilter::default() };
        // None can be numbered above the largest number, so `None` asks for the same.
        let order = DeadOrder::Newest { below: number.checked_add(1) };
        let found = log.dead(DeadQuery { filter, order, letters_max: 1, bytes_max: PAGE_BYTES_MAX }).await?;
        Ok(found.first().filter(|letter| letter.number == number).map(Self::from))
    }
}

/// Some dead letters, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadPage {
    pub letters: Vec<DeadLetterView>,
    /// `below` of the next page, when there may be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_below: Option<u64>,
}

impl DeadPage {
    /// The newest letters of a filter that are numbered below `below`, at most `letters_max` of them and
    /// [`PAGE_BYTES_MAX`] bytes.
    pub async fn of(
        log: &dyn Log,
        filter: DeadFilter,
        below: Option<u64>,
        letters_max: usize,
    ) -> Result<Self, LogError> {
        let order = DeadOrder::Newest { below };
        let found = log.dead(DeadQuery { filter, order, letters_max, bytes_max: PAGE_BYTES_MAX }).await?;
        // Kinds of log measure a letter a little differently, so half a page may be a full one to them.
        let bytes: usize = found.iter().map(|found| found.letter.message.bytes()).sum();
        let may_go_on = found.len() >= letters_max || bytes >= PAGE_BYTES_MAX / 2;
        let next_below = found.last().map(|found| found.number).filter(|_| may_go_on);
        Ok(Self { letters: found.iter().map(DeadLetterView::from).collect(), next_below })
    }
}

/// How many dead letters a filter means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadCountView {
    pub letters: u64,
    /// The newest of them: what comes later is numbered above. 0 when there is none.
    pub newest: u64,
}

impl From<DeadCount> for DeadCountView {
    fn from(DeadCount { letters, newest, .. }: DeadCount) -> Self {
        Self { letters, newest }
    }
}

/// What an order to retry or drop dead letters is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadOrderView {
    /// Letters that are meant, over all handlers; without those skipped.
    pub letters: u64,
    /// The newest of them: letters that come later are not meant.
    pub upto: u64,
    pub handlers: Vec<HandlerLetters>,
    /// One per handler, durable; empty when there was nothing to do or it was a trial.
    pub commands: Vec<SentCommand>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<SkippedLetters>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandlerLetters {
    pub handler: String,
    pub letters: u64,
}

/// A command in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentCommand {
    pub handler: String,
    pub offset: u64,
}

/// Letters that nobody would do anything about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedLetters {
    pub handler: String,
    pub letters: u64,
    pub reason: String,
}
