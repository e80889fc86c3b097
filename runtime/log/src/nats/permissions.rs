//! What a login must be permitted, for a server that permits by subject: listed for operators, and asked for at start in a way
//! that changes nothing, since the server answers what it does not permit with nothing but a word beside.

use super::names::Names;
use super::options::Options;
use crate::error::LogError;
use async_nats::client::{Client, Request};
use futures_util::future::join_all;
use std::time::Duration;
use tokio::sync::watch;

/// How long the server may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Which stream has a subject.
pub(super) const STREAM_NAMES: &str = "$JS.API.STREAM.NAMES";
/// What the account has and may have.
const ACCOUNT: &str = "$JS.API.INFO";
/// A reader that is not there.
const NOBODY: &str = "nobody";

/// What is asked of a stream.
fn of_stream(stream: &str, asked: &[&str]) -> Vec<String> {
    asked.iter().map(|asked| format!("$JS.API.STREAM.{asked}.{stream}")).collect()
}

/// What is asked of the readers of a stream. The client asks for its first one without a name.
fn of_readers(stream: &str) -> [String; 4] {
    ["CREATE.STREAM", "CREATE.STREAM.>", "DELETE.STREAM.>", "MSG.NEXT.STREAM.>"]
        .map(|asked| format!("$JS.API.CONSUMER.{}", asked.replace("STREAM", stream)))
}

/// Where a host publishes, which includes what it asks of JetStream.
fn publishes(names: &Names, options: &Options) -> Vec<String> {
    let Options { ingress, egress, .. } = options;
    let mut subjects = vec![names.all(), ACCOUNT.to_owned()];
    for stream in [names.log_stream(), names.state_stream()] {
        subjects.extend(of_stream(&stream, &["INFO", "CREATE", "PURGE", "MSG.GET"]));
        subjects.push(format!("$JS.API.DIRECT.GET.{stream}"));
    }
    subjects.extend(of_readers(&names.log_stream()));
    if !ingress.is_empty() {
        subjects.extend(of_stream(&names.ingress_stream(), &["INFO", "CREATE", "PURGE", "MSG.GET"]));
        subjects.extend(of_readers(&names.ingress_stream()));
    }
    if !ingress.is_empty() || !egress.is_empty() {
        subjects.push(STREAM_NAMES.to_owned());
    }
    subjects.extend(egress.iter().map(ToString::to_string));
    subjects
}

/// Where it subscribes.
fn subscribes(names: &Names) -> Vec<String> {
    vec!["_INBOX.>".to_owned(), names.all()]
}

/// What to say when the server does not permit something.
pub(super) fn advice(options: &Options) -> String {
    let names = Names::new(&options.namespace);
    let listed =
        |subjects: Vec<String>| subjects.iter().map(|subject| format!("`{subject}`")).collect::<Vec<_>>().join(", ");
    format!(
        "permit this login to publish to {} and to subscribe to {}, and nobody else to publish to `{}`",
        listed(publishes(&names, options)),
        listed(subscribes(&names)),
        names.all()
    )
}

/// Does what is to be done, or says what the server does not permit of it: what this receiver has not seen yet.
pub(super) async fn permitted<T>(
    mut denied: watch::Receiver<Option<String>>,
    options: &Options,
    work: impl Future<Output = Result<T, LogError>>,
) -> Result<T, LogError> {
    tokio::select! {
        // Safe to cancel, both: what changes something leaves streams, which the next one finds.
        done = work => done,
        Ok(()) = denied.changed() => {
            let reason = denied.borrow().clone().unwrap_or_default();
            Err(LogError::Refused { reason: format!("{reason}: {}", advice(options)) })
        }
    }
}

/// Asks for whatever is asked of a stream and its readers later.
pub(super) async fn ask_for_stream(client: &Client, names: &Names, stream: &str) {
    let nothing = format!(r#"{{"filter":"{}"}}"#, names.nothing());
    let questions = [
        (format!("$JS.API.STREAM.INFO.{stream}"), String::new()),
        (format!("$JS.API.STREAM.PURGE.{stream}"), nothing),
        (format!("$JS.API.STREAM.MSG.GET.{stream}"), r#"{"seq":1}"#.to_owned()),
    ];
    ask_each(client, questions).await;
}

/// Asks for whatever is asked of the readers of a stream later.
pub(super) async fn ask_for_readers(client: &Client, stream: &str) {
    let questions = [
        (format!("$JS.API.CONSUMER.CREATE.{stream}"), "{}"),
        (format!("$JS.API.CONSUMER.CREATE.{stream}.{NOBODY}"), "{}"),
        (format!("$JS.API.CONSUMER.DELETE.{stream}.{NOBODY}"), ""),
        (format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{NOBODY}"), r#"{"batch":1,"no_wait":true}"#),
    ];
    ask_each(client, questions.map(|(subject, question)| (subject, question.to_owned()))).await;
}

/// Asks what the account has and may have, as is asked later.
pub(super) async fn ask_for_account(client: &Client) {
    ask_each(client, [(ACCOUNT.to_owned(), String::new())]).await;
}

/// Asks which stream has a subject, as is asked later.
pub(super) async fn ask_for_streams_of(client: &Client, names: &Names) {
    let question = format!(r#"{{"subject":"{}"}}"#, names.nothing());
    ask_each(client, [(STREAM_NAMES.to_owned(), question)]).await;
}

/// What they answer does not matter, since what is not permitted is not answered, and shows elsewhere.
async fn ask_each<const N: usize>(client: &Client, questions: [(String, String); N]) {
    let asked = questions.map(|(subject, question)| {
        let request = Request::new().payload(question.into()).timeout(Some(ANSWER));
        client.send_request(subject, request)
    });
    drop(join_all(asked).await);
}
