//! The two streams of a namespace: made if they are not there, checked if they are, and never changed.
//!
//! What is checked is what an operator, or another program, may have set up so that acknowledged messages go without a word.
//! Whatever differs is said together with the command that mends it.

use super::names::Names;
use super::options::PAYLOAD_BYTES_MIN;
use crate::error::LogError;
use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, PersistenceMode, RetentionPolicy, StorageType, Stream};
use async_nats::jetstream::{Context, ErrorCode};
use std::fmt::Display;
use std::time::Duration;

/// How often it is looked whether both streams are there: another host may be making them.
const LOOKS: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// The stream of all that happens and the stream of state.
pub(super) async fn streams(context: &Context, names: &Names, replicas: usize) -> Result<(Stream, Stream), LogError> {
    let config = |name: String, subjects: Vec<String>, of_subject: i64| Config {
        name,
        subjects,
        max_messages_per_subject: of_subject,
        num_replicas: replicas,
        allow_direct: true,
        ..Config::default()
    };
    let log = config(names.log_stream(), names.log_subjects(), -1);
    let state = Config { allow_message_ttl: true, ..config(names.state_stream(), names.state_subjects(), 1) };
    let mut looks = 0;
    let (log_there, state_there) = loop {
        let there = (existing(context, &log.name).await?, existing(context, &state.name).await?);
        let (lost, left) = match &there {
            (None, Some(_)) => (&log.name, &state.name),
            // The first entry is written when both are there.
            (Some(there), None) if there.cached_info().state.last_sequence > 0 => (&state.name, &log.name),
            _ => break there,
        };
        looks += 1;
        if looks == LOOKS {
            return Err(LogError::Refused {
                reason: format!(
                    "stream {left} is there and stream {lost} is not, so what was acknowledged is lost: restore it with \
                     `nats stream restore`, or begin anew without any of it after `nats stream rm {left}`"
                ),
            });
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    };
    Ok((opened(context, log, log_there).await?, opened(context, state, state_there).await?))
}

async fn existing(context: &Context, name: &str) -> Result<Option<Stream>, LogError> {
    match context.get_stream(name).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
            GetStreamErrorKind::JetStream(error) => Err(refusal(name, error.error_code(), &error)),
            _ => Err(LogError::Unavailable { reason: format!("stream {name}: {error}") }),
        },
    }
}

async fn opened(context: &Context, wanted: Config, there: Option<Stream>) -> Result<Stream, LogError> {
    let name = &wanted.name;
    let stream = match there {
        Some(stream) => stream,
        None => match context.create_stream(wanted.clone()).await {
            Ok(stream) => stream,
            Err(error) => match error.kind() {
                // Another host was faster, and its settings are not these.
                CreateStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NAME_EXIST => {
                    let gone = || LogError::Unavailable { reason: format!("stream {name} comes and goes") };
                    existing(context, name).await?.ok_or_else(gone)?
                }
                CreateStreamErrorKind::JetStream(error) => return Err(refusal(name, error.error_code(), &error)),
                _ => return Err(LogError::Unavailable { reason: format!("stream {name}: {error}") }),
            },
        },
    };
    checked(&wanted, &stream.cached_info().config)?;
    Ok(stream)
}

/// Why the server does not make or show a stream, and what mends it.
fn refusal(name: &str, code: ErrorCode, error: &dyn Display) -> LogError {
    let what_to_do = match code {
        ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED | ErrorCode::CLUSTER_NO_PEERS => {
            "start as many servers as `replicas` in [log] says, as one cluster, or lower it"
        }
        ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT | ErrorCode::JETSTREAM_NOT_ENABLED => {
            "enable JetStream for the account of this login"
        }
        ErrorCode::STREAM_SUBJECT_OVERLAP => {
            "another stream takes subjects below `sb.`, which are the log's: remove it"
        }
        ErrorCode::MAXIMUM_STREAMS_LIMIT
        | ErrorCode::STORAGE_RESOURCES_EXCEEDED
        | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED => "raise the limits of the account",
        _ => return LogError::Unavailable { reason: format!("stream {name}: {error}") },
    };
    LogError::Refused { reason: format!("stream {name}: {error}: {what_to_do}") }
}

/// One setting of a stream that is not as it must be.
struct Differs {
    setting: &'static str,
    is: String,
    must: String,
    /// Of `nats stream edit`; `None`: the server lets nobody change it.
    flag: Option<String>,
}

/// An error that names everything in `found` that could lose messages or be in the way.
fn checked(wanted: &Config, found: &Config) -> Result<(), LogError> {
    let mut differs = vec![];
    let mut must = |is_good: bool, setting, is: &dyn Display, must: &dyn Display, flag: Option<String>| {
        if !is_good {
            differs.push(Differs { setting, is: is.to_string(), must: must.to_string(), flag });
        }
    };
    let flag = |text: &str| Some(text.to_owned());
    let mut subjects = (found.subjects.clone(), wanted.subjects.clone());
    subjects.0.sort_unstable();
    subjects.1.sort_unstable();
    let listed = wanted.subjects.join(",");
    let flag_subjects = Some(format!("--subjects '{listed}'"));
    must(subjects.0 == subjects.1, "subjects", &found.subjects.join(","), &listed, flag_subjects);
    let of_subject = wanted.max_messages_per_subject;
    let flag_of_subject = Some(format!("--max-msgs-per-subject={of_subject}"));
    let found_of_subject = found.max_messages_per_subject;
    let is_same = found_of_subject == of_subject || (found_of_subject <= 0 && of_subject <= 0);
    must(is_same, "max_msgs_per_subject", &found_of_subject, &of_subject, flag_of_subject);
    must(found.max_age.is_zero(), "max_age", &format!("{:?}", found.max_age), &"0", flag("--max-age 0s"));
    must(found.max_messages <= 0, "max_msgs", &found.max_messages, &"-1", flag("--max-msgs=-1"));
    let discards_new = found.max_bytes <= 0 || found.discard == DiscardPolicy::New;
    must(discards_new, "discard", &"old, with max_bytes", &"new", flag("--discard new"));
    must(!found.discard_new_per_subject, "discard_new_per_subject", &true, &false, flag("--no-discard-per-subject"));
    let size_max = usize::try_from(found.max_message_size).unwrap_or(0);
    let takes_size = size_max == 0 || size_max >= PAYLOAD_BYTES_MIN;
    must(takes_size, "max_msg_size", &found.max_message_size, &"-1", flag("--max-msg-size=-1"));
    must(found.allow_direct, "allow_direct", &false, &true, flag("--allow-direct"));
    must(!found.allow_rollup, "allow_rollup_hdrs", &true, &false, flag("--no-allow-rollup"));
    must(!found.no_ack, "no_ack", &true, &false, flag("--ack"));
    let takes_ttl = found.allow_message_ttl || !wanted.allow_message_ttl;
    must(takes_ttl, "allow_msg_ttl", &false, &true, flag("--allow-msg-ttl"));
    let enough = found.num_replicas >= wanted.num_replicas;
    let flag_replicas = Some(format!("--replicas {}", wanted.num_replicas));
    must(enough, "replicas", &found.num_replicas, &format!("{} or more", wanted.num_replicas), flag_replicas);
    let is_transformed = found.subject_transform.is_some();
    must(!is_transformed, "subject_transform", &"set", &"absent", None);
    let has_sources = found.mirror.is_some() || found.sources.as_ref().is_some_and(|sources| !sources.is_empty());
    must(!has_sources, "mirror or sources", &"set", &"absent", None);
    must(found.storage == StorageType::File, "storage", &"memory", &"file", None);
    let keeps = found.retention == RetentionPolicy::Limits;
    must(keeps, "retention", &format!("{:?}", found.retention), &"limits", None);
    let is_async = matches!(found.persist_mode, Some(PersistenceMode::Async));
    must(!is_async, "persist_mode", &"async", &"default", None);
    must(!found.deny_purge, "deny_purge", &true, &false, None);
    must(!found.sealed, "sealed", &true, &false, None);
    let has_markers = found.subject_delete_marker_ttl.is_some_and(|ttl| !ttl.is_zero());
    must(!has_markers, "subject_delete_marker_ttl", &"set", &"absent", flag("--subject-del-markers-ttl 0s"));
    refused(&wanted.name, &differs)
}

fn refused(name: &str, differs: &[Differs]) -> Result<(), LogError> {
    if differs.is_empty() {
        return Ok(());
    }
    let all: Vec<String> = differs
        .iter()
        .map(|Differs { setting, is, must, .. }| format!("{setting} is {is} and must be {must}"))
        .collect();
    let flags: Vec<&str> = differs.iter().filter_map(|differs| differs.flag.as_deref()).collect();
    let mend = if flags.len() == differs.len() {
        format!("change it with `nats stream edit {name} {}`", flags.join(" "))
    } else {
        format!(
            "not all of it can be changed in a stream that is there: keep what is in it with `nats stream backup {name} \
             DIRECTORY`, remove it, and the host makes it as it must be; or use another `namespace`"
        )
    };
    Err(LogError::Refused { reason: format!("stream {name} is not set up as it must be: {}: {mend}", all.join("; ")) })
}
