//! The stream that plain clients publish to: made if it is not there, checked if it is, and never changed.

use crate::error::LogError;
use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamByNameErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, Stream};
use async_nats::jetstream::{Context, ErrorCode};
use sluicebox_core::topic::Pattern;

/// The stream of this name on these subjects.
pub(super) async fn opened(
    context: &Context,
    name: &str,
    subjects: &[Pattern],
    replicas: usize,
) -> Result<Stream, LogError> {
    let unavailable = |reason: String| LogError::Unavailable { reason: format!("stream {name}: {reason}") };
    let refused = |reason: String| LogError::Refused { reason };
    match context.get_stream(name).await {
        Ok(stream) => {
            check(&stream.cached_info().config, subjects).map_err(refused)?;
            return Ok(stream);
        }
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(ref answer) if answer.error_code() == ErrorCode::STREAM_NOT_FOUND => {}
            _ => return Err(unavailable(error.to_string())),
        },
    }
    let wanted = Config {
        name: name.to_owned(),
        subjects: subjects.iter().map(ToString::to_string).collect(),
        num_replicas: replicas,
        ..Config::default()
    };
    match context.create_stream(wanted).await {
        Ok(stream) => Ok(stream),
        Err(error) => match error.kind() {
            CreateStreamErrorKind::JetStream(answer) if answer.error_code() == ErrorCode::STREAM_SUBJECT_OVERLAP => {
                let others = overlapping(context, subjects).await;
                let (other, command) = match others.first() {
                    Some(other) => (
                        format!("stream {other}"),
                        format!(
                            "take them out of it with `nats stream edit {other} --subjects …`, or out of `ingress`"
                        ),
                    ),
                    None => ("another stream".into(), "take them out of it, or out of `ingress`".into()),
                };
                Err(refused(format!("subjects of `ingress` belong to {other} already: {command}")))
            }
            _ => Err(unavailable(error.to_string())),
        },
    }
}

/// Streams that have some of these subjects, as far as the server says.
async fn overlapping(context: &Context, subjects: &[Pattern]) -> Vec<String> {
    let mut found = vec![];
    for subject in subjects {
        if let Ok(name) = context.stream_by_subject(subject.as_str()).await {
            found.push(name);
        }
    }
    found
}

/// What of a stream would lose messages, or let others change them; with the command that mends it.
fn check(found: &Config, subjects: &[Pattern]) -> Result<(), String> {
    let name = &found.name;
    let mut wanted: Vec<&str> = subjects.iter().map(Pattern::as_str).collect();
    let mut has: Vec<&str> = found.subjects.iter().map(String::as_str).collect();
    wanted.sort_unstable();
    has.sort_unstable();
    let for_good = [
        (found.retention != RetentionPolicy::Limits, "lets go of messages when others have read them"),
        (found.allow_message_ttl, "lets publishers say when messages go"),
        (found.mirror.is_some(), "is a mirror of another stream"),
        (found.sealed, "is sealed"),
    ];
    if let Some((_, what)) = for_good.into_iter().find(|(is_so, _)| *is_so) {
        return Err(format!(
            "stream {name} {what}, so messages for `ingress` may be lost: once nobody needs what is in it, remove it with \
             `nats stream rm {name}` and start the host, which makes it anew"
        ));
    }
    let edits = [
        (wanted != has, format!("--subjects {}", wanted.join(","))),
        (found.allow_rollup, "--no-allow-rollup".into()),
        (found.no_ack, "--ack".into()),
        (!found.max_age.is_zero(), "--max-age 0".into()),
        (found.max_messages > 0, "--max-msgs=-1".into()),
        (found.max_messages_per_subject > 0, "--max-msgs-per-subject=-1".into()),
        (found.max_bytes > 0 && found.discard == DiscardPolicy::Old, "--discard new".into()),
    ];
    match edits.into_iter().find(|(differs, _)| *differs) {
        None => Ok(()),
        Some((_, flag)) => Err(format!(
            "stream {name} is not set up as `ingress` needs it: change it with `nats stream edit {name} {flag}`"
        )),
    }
}

/// Whether a stream has this subject.
pub(super) async fn has(context: &Context, subject: &str) -> Result<bool, String> {
    match context.stream_by_subject(subject).await {
        Ok(_) => Ok(true),
        Err(error) => match error.kind() {
            GetStreamByNameErrorKind::NotFound => Ok(false),
            _ => Err(error.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_would_lose_messages_is_refused_with_the_command_that_mends_it() {
        let subjects = [Pattern::parse("orders.>").unwrap()];
        let good = Config { name: "in".into(), subjects: vec!["orders.>".into()], ..Config::default() };
        assert_eq!(check(&good, &subjects), Ok(()));
        let told = |config: Config| check(&config, &subjects).unwrap_err();
        assert!(
            told(Config { allow_rollup: true, ..good.clone() }).contains("`nats stream edit in --no-allow-rollup`")
        );
        assert!(told(Config { subjects: vec!["a".into()], ..good.clone() }).contains("--subjects orders.>"));
        assert!(told(Config { max_messages: 5, ..good.clone() }).contains("--max-msgs=-1"));
        assert!(told(Config { max_bytes: 5, ..good.clone() }).contains("--discard new"));
        let new = Config { max_bytes: 5, discard: DiscardPolicy::New, ..good.clone() };
        assert_eq!(check(&new, &subjects), Ok(()));
        assert!(told(Config { retention: RetentionPolicy::WorkQueue, ..good }).contains("`nats stream rm in`"));
    }
}
