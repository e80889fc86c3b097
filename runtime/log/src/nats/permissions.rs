//! What a login must be permitted, for a server that permits by subject.

use super::names::Names;

/// Where a host publishes, which includes what it asks of JetStream.
pub(super) fn publishes(names: &Names) -> Vec<String> {
    let streams = [names.log_stream(), names.state_stream()];
    let asked = ["STREAM.INFO", "STREAM.CREATE", "STREAM.PURGE", "STREAM.MSG.GET", "DIRECT.GET"];
    let of_streams =
        asked.iter().flat_map(|asked| streams.iter().map(move |stream| format!("$JS.API.{asked}.{stream}")));
    let log = &streams[0];
    let of_readers = ["CREATE.LOG", "CREATE.LOG.>", "DELETE.LOG.>", "MSG.NEXT.LOG.>"]
        .map(|asked| asked.replace("LOG", log))
        .map(|asked| format!("$JS.API.CONSUMER.{asked}"));
    std::iter::once(names.all()).chain(of_streams).chain(of_readers).collect()
}

/// Where it subscribes.
pub(super) fn subscribes(names: &Names) -> Vec<String> {
    vec!["_INBOX.>".to_owned(), names.all()]
}

/// What to say when the server does not permit something.
pub(super) fn advice(names: &Names) -> String {
    let listed =
        |subjects: Vec<String>| subjects.iter().map(|subject| format!("`{subject}`")).collect::<Vec<_>>().join(", ");
    format!(
        "permit this login to publish to {} and to subscribe to {}, and nobody else to publish to `{}`",
        listed(publishes(names)),
        listed(subscribes(names)),
        names.all()
    )
}
