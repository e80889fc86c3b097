//! `/v1/dead`: looks at dead letters, and orders to retry or drop them.
//!
//! An order is about the letters that there are when it is given: their newest number is part of it. It becomes one
//! command per handler, durable when it is answered (202); the shards execute it, so letters go one after the other.

use super::body;
use super::commands;
use super::error::ApiError;
use super::face::Face;
use super::handlers::Known;
use super::named;
use super::parameters::{Parameters, PathText};
use super::views::{
    DeadCountView, DeadLetterView, DeadOrderView, DeadPage, HandlerLetters, SentCommand, SkippedLetters,
};
use crate::commit::DeadFilter;
use crate::control::{Command, JOBS_MAX};
use crate::handler::HandlerName;
use crate::message::Key;
use crate::topic::Pattern;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Letters of one page, unless asked otherwise and at most.
const LETTERS_DEFAULT: usize = 100;
const LETTERS_MAX: usize = 1000;
/// Numbers in one filter: it is part of the record of every shard until it is done.
const NUMBERS_MAX: usize = 1000;
/// Bytes of a kind in a filter; kinds are short words.
const KIND_BYTES_MAX: usize = 64;

pub(super) async fn list(
    State(face): State<Arc<Face>>,
    mut parameters: Parameters,
) -> Result<Json<DeadPage>, ApiError> {
    let filter = filter_of(&mut parameters)?;
    let below = parameters.number("below")?;
    let limit = parameters.number("limit")?.map(|limit| usize::try_from(limit).unwrap_or(LETTERS_MAX));
    parameters.finish()?;
    named::check(&*face.log, &filter).await?;
    let letters_max = limit.unwrap_or(LETTERS_DEFAULT).clamp(1, LETTERS_MAX);
    Ok(Json(DeadPage::of(&*face.log, filter, below, letters_max).await?))
}

pub(super) async fn count(
    State(face): State<Arc<Face>>,
    mut parameters: Parameters,
) -> Result<Json<DeadCountView>, ApiError> {
    let filter = filter_of(&mut parameters)?;
    parameters.finish()?;
    named::check(&*face.log, &filter).await?;
    Ok(Json(face.log.dead_count(filter).await?.into()))
}

pub(super) async fn show(
    State(face): State<Arc<Face>>,
    PathText(number): PathText,
    parameters: Parameters,
) -> Result<Json<DeadLetterView>, ApiError> {
    parameters.finish()?;
    let shown: String = number.chars().take(100).collect();
    let wanted: u64 = number.parse().map_err(|_| ApiError::bad_request(format!("`{shown}` is not a number")))?;
    match DeadLetterView::find(&*face.log, wanted).await? {
        Some(letter) => Ok(Json(letter)),
        None => Err(ApiError::new(StatusCode::NOT_FOUND, format!("there is no dead letter {wanted}"))),
    }
}

pub(super) async fn retry(
    State(face): State<Arc<Face>>,
    parameters: Parameters,
    request: Request,
) -> Result<Response, ApiError> {
    order(&face, parameters, request, Action::Retry).await
}

pub(super) async fn drop(
    State(face): State<Arc<Face>>,
    parameters: Parameters,
    request: Request,
) -> Result<Response, ApiError> {
    order(&face, parameters, request, Action::Drop).await
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Retry,
    Drop,
}

async fn order(
    face: &Face,
    mut parameters: Parameters,
    request: Request,
    action: Action,
) -> Result<Response, ApiError> {
    let is_trial = parameters.flag("dry_run", false)?;
    parameters.finish()?;
    let (parts, sent) = request.into_parts();
    let mut fields = body::command(face, &parts.headers, sent).await?;
    let to = match action {
        Action::Retry => receiver(&mut fields)?,
        Action::Drop => None,
    };
    let filter = meant(fields)?;
    let known = Known::of(face).await?;
    let names_one = filter.handler.is_some();
    if let Some(handler) = &filter.handler {
        known.commanded(&known.name(handler.as_str())?)?;
    }
    if let Some(to) = &to {
        if to.is_reserved() {
            let error = format!("handler `{to}` is the host's own and takes no letters of others: name another");
            return Err(ApiError::new(StatusCode::CONFLICT, error));
        }
        // Nobody would take the letters up, nor keep them from being deleted with what is old.
        known.commanded(&known.name(to.as_str())?)?;
    }
    named::check(&*face.log, &filter).await?;

    // Counted first: a letter that comes while the handlers are counted is numbered above.
    let upto = face.log.dead_count(filter.clone()).await?.newest;
    let mut order = DeadOrderView { upto, ..DeadOrderView::default() };
    let mut wanted = vec![];
    for name in known.names() {
        if filter.handler.as_ref().is_some_and(|handler| handler != name) {
            continue;
        }
        let filter = DeadFilter { handler: Some(name.clone()), upto: Some(upto), ..filter.clone() };
        let letters = face.log.dead_count(filter.clone()).await?.letters;
        if letters == 0 {
            continue;
        }
        if let Err(error) = check(&known, name, to.as_ref()) {
            if names_one {
                return Err(error);
            }
            order.skipped.push(SkippedLetters { handler: name.to_string(), letters, reason: error.error });
            continue;
        }
        order.letters += letters;
        order.handlers.push(HandlerLetters { handler: name.to_string(), letters });
        let filter = DeadFilter { numbers: numbers_upto(upto, filter.numbers), ..filter };
        wanted.push((
            name,
            match action {
                Action::Retry => Command::RetryDead { filter, to: to.clone() },
                Action::Drop => Command::DropDead { filter },
            },
        ));
    }
    if is_trial || wanted.is_empty() {
        return Ok(Json(order).into_response());
    }
    let offsets = commands::append(face, &wanted).await?;
    let sent = wanted.iter().zip(offsets);
    order.commands =
        sent.map(|((name, _), offset)| SentCommand { handler: name.to_string(), offset: offset.0 }).collect();
    Ok((StatusCode::ACCEPTED, Json(order)).into_response())
}

/// Those that are numbers of letters. Whoever moves the log numbers new letters above all that commands name. There are letters
/// of these numbers, so at least one stays: none would mean all letters.
fn numbers_upto(upto: u64, mut numbers: Vec<u64>) -> Vec<u64> {
    numbers.retain(|number| *number <= upto);
    numbers
}

/// Whether the handler will execute one order more.
fn check(known: &Known, name: &HandlerName, to: Option<&HandlerName>) -> Result<(), ApiError> {
    let handler = known.commanded(name)?;
    let is_own_word = name.is_delay() || *name == HandlerName::ingress();
    if is_own_word && to.is_some() {
        let what =
            if name.is_delay() { "a message that a publisher delayed" } else { "a word of what a plain client sent" };
        let error = format!(
            "a dead letter of `{name}` is {what}, which no handler understands: retry it without another receiver"
        );
        return Err(ApiError::new(StatusCode::CONFLICT, error));
    }
    if handler.shards.iter().any(|shard| shard.control.jobs.len() >= JOBS_MAX) {
        let error = format!("{JOBS_MAX} orders about dead letters of handler `{name}` are under way: wait for them");
        return Err(ApiError::unavailable(error));
    }
    Ok(())
}

/// The handler in a body that gets the letters; `None`: each goes back to its own.
fn receiver(fields: &mut Map<String, Value>) -> Result<Option<HandlerName>, ApiError> {
    match fields.remove("to") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(name)) => HandlerName::parse(&name).map(Some).map_err(ApiError::bad_request),
        Some(_) => Err(ApiError::bad_request("`to` is the name of a handler")),
    }
}

/// The filter in a body. One without any condition would mean everything, so it has to say that.
fn meant(mut fields: Map<String, Value>) -> Result<DeadFilter, ApiError> {
    let bad = |error: &dyn std::fmt::Display| ApiError::bad_request(format!("the filter cannot be read: {error}"));
    let all = match fields.remove("all") {
        None | Some(Value::Bool(false)) => false,
        Some(Value::Bool(true)) => true,
        Some(_) => return Err(bad(&"`all` must be true or false")),
    };
    let filter: DeadFilter = serde_json::from_value(Value::Object(fields)).map_err(|error| bad(&error))?;
    check_filter(&filter)?;
    let limited = DeadFilter { upto: None, ..filter.clone() };
    if !all && limited == DeadFilter::default() {
        let error = "an empty filter means every dead letter: say what is meant (handler, shard, key, topic, kind, \
                     numbers), or send {\"all\": true}";
        return Err(ApiError::bad_request(error));
    }
    Ok(filter)
}

/// The filter in the parameters.
fn filter_of(parameters: &mut Parameters) -> Result<DeadFilter, ApiError> {
    let filter = DeadFilter {
        handler: parameters.parsed("handler", HandlerName::parse)?,
        shard: parameters
            .parsed("shard", |text| text.parse().map_err(|_| format!("`{text}` is not the index of a shard")))?,
        key: parameters.parsed("key", |text| Key::try_from(text.to_owned()))?,
        topic: parameters.parsed("topic", Pattern::parse)?,
        kind: parameters.take("kind"),
        numbers: parameters.parsed("numbers", numbers)?.unwrap_or_default(),
        upto: parameters.number("upto")?,
    };
    check_filter(&filter)?;
    Ok(filter)
}

fn numbers(text: &str) -> Result<Vec<u64>, String> {
    let each = text.split(',').map(|number| {
        let shown: String = number.chars().take(100).collect();
        number.parse().map_err(|_| format!("`{shown}` is not a number: write such as 3,5"))
    });
    each.collect()
}

fn check_filter(filter: &DeadFilter) -> Result<(), ApiError> {
    if filter.numbers.len() > NUMBERS_MAX {
        let error = format!("{} numbers are too many: at most {NUMBERS_MAX} at a time", filter.numbers.len());
        return Err(ApiError::bad_request(error));
    }
    if filter.kind.as_ref().is_some_and(|kind| kind.is_empty() || kind.len() > KIND_BYTES_MAX) {
        return Err(ApiError::bad_request("`kind` is the kind of a failure, such as reject or trap"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::numbers_upto;

    #[test]
    fn numbers_that_no_letter_has_yet_are_no_part_of_an_order() {
        assert_eq!(numbers_upto(7, vec![u64::MAX, 7, 8, 1]), [7, 1]);
        assert!(numbers_upto(7, vec![]).is_empty());
    }
}
