//! Messages followed as events, from the log and live.

use super::*;

/// Events of a tail as they come: `(name, data)`.
pub(super) struct Events {
    response: reqwest::Response,
    text: String,
}

impl Events {
    pub(super) async fn open(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut events = Self { response, text: String::new() };
        assert_eq!(events.next().await.unwrap().0, "start");
        events
    }

    pub(super) async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name| event.lines().find_map(|line| line.strip_prefix(name));
                let parsed = field("data: ").map(|data| serde_json::from_str(data).unwrap());
                let name = field("event: ").unwrap_or("message").to_owned();
                self.text = rest.to_owned();
                if let Some(data) = parsed {
                    return Some((name, data));
                }
                continue;
            }
            self.text += std::str::from_utf8(&self.response.chunk().await.unwrap()?).unwrap();
        }
    }

    /// The bodies of the next messages, as numbers.
    pub(super) async fn bodies(&mut self, count: usize) -> Vec<usize> {
        let mut bodies = vec![];
        while bodies.len() < count {
            let (name, data) = self.next().await.unwrap();
            assert_eq!(name, "message", "{data}");
            bodies.push(data["body"].as_str().unwrap().parse().unwrap());
        }
        bodies
    }
}

#[tokio::test]
async fn a_tail_shows_the_past_and_then_the_present_without_a_gap() {
    let server = Server::start().await;
    let past = server.append("a.b", 0..1000).await;
    let other = server.append("other", 0..10).await;
    let mut earliest = Events::open(server.get("/v1/topics/a.*/tail?from=earliest")).await;
    let mut latest = Events::open(server.get("/v1/topics/a.b/tail")).await;
    let mut at = Events::open(server.get(&format!("/v1/topics/%3E/tail?from={}", other[8]))).await;
    let mut again = Events::open(server.get("/v1/topics/a.b/tail").header("last-event-id", past[997])).await;
    server.append("a.b", 1000..1100).await;
    assert_eq!(earliest.bodies(1100).await, (0..1100).collect::<Vec<_>>());
    assert_eq!(latest.bodies(100).await, (1000..1100).collect::<Vec<_>>());
    assert_eq!(at.bodies(3).await, [8, 9, 1000]);
    assert_eq!(again.bodies(3).await, [998, 999, 1000]);
}

#[tokio::test]
async fn a_tail_that_was_too_slow_misses_nothing() {
    let server = Server::start().await;
    let mut events = Events::open(server.get("/v1/topics/a/tail")).await;
    // One batch each, far more than a log holds for a slow tail. Appends to memory never yield, so on this one thread
    // the server cannot read meanwhile.
    for n in 0..5000 {
        server.append("a", n..n + 1).await;
    }
    assert_eq!(events.bodies(5000).await, (0..5000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_tail_ends_where_it_was_told_to() {
    let server = Server::start().await;
    let offsets = server.append("a", 0..600).await;
    for (query, expected) in [
        ("from=earliest&follow=false".to_owned(), 600),
        (format!("from=earliest&to={}", offsets[9]), 10),
        (format!("from={}&follow=false&to={}", offsets[598], u64::MAX), 2),
        ("from=latest&follow=false".to_owned(), 0),
        ("from=earliest&to=0".to_owned(), 0),
    ] {
        let mut events = Events::open(server.get(&format!("/v1/topics/a/tail?{query}"))).await;
        assert_eq!(events.bodies(expected).await.len(), expected, "{query}");
        assert_eq!(events.next().await.unwrap().0, "end", "{query}");
        assert_eq!(events.next().await, None, "{query}");
    }
}

#[tokio::test]
async fn a_tail_begins_at_a_time_or_an_age_and_shows_one_key_alone() {
    let server = Server::start().await;
    let publish = async |key: &str, body: usize| {
        send(server.post("a").header("Sluicebox-Key", key).body(body.to_string())).await.0
    };
    for body in 0..4 {
        assert_eq!(publish(["ada", "bob"][body % 2], body).await, StatusCode::OK);
    }
    for (query, expected) in [
        ("from=1970-01-01T00:00:01Z", vec![0, 1, 2, 3]),
        ("from=2970-01-01T00:00:00%2B02:00", vec![]),
        ("since=1h", vec![0, 1, 2, 3]),
        ("since=1h&key=bob", vec![1, 3]),
        ("from=earliest&key=ada", vec![0, 2]),
        ("from=earliest&key=eve", vec![]),
    ] {
        let mut events = Events::open(server.get(&format!("/v1/topics/a/tail?follow=false&{query}"))).await;
        assert_eq!(events.bodies(expected.len()).await, expected, "{query}");
        assert_eq!(events.next().await.unwrap().0, "end", "{query}");
    }
    let mut live = Events::open(server.get("/v1/topics/a/tail?key=bob")).await;
    for body in 4..8 {
        assert_eq!(publish(["ada", "bob"][body % 2], body).await, StatusCode::OK);
    }
    assert_eq!(live.bodies(2).await, [5, 7]);
}

#[tokio::test]
async fn too_many_tails_are_refused_and_a_closed_one_makes_room() {
    let server = Server::start_with(|face| face.tails = Arc::new(Semaphore::new(1)), None, [127, 0, 0, 1]).await;
    let first = Events::open(server.get("/v1/topics/a/tail")).await;
    let response = server.get("/v1/topics/a/tail").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
    drop(first);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while server.get("/v1/topics/a/tail").send().await.unwrap().status() != StatusCode::OK {
        assert!(std::time::Instant::now() < deadline, "the place is never free again");
    }
}

#[tokio::test]
async fn a_tail_finds_what_lies_behind_many_messages_of_other_topics() {
    use crate::log::embedded::{EmbeddedLog, Options};
    let directory = tempfile::tempdir().unwrap();
    let log = Arc::new(EmbeddedLog::open(directory.path(), Options::default()).unwrap());
    // More than the log looks at for one read.
    let foreign = NewMessage::new(Topic::parse("foreign").unwrap(), "");
    log.append(vec![foreign; 45_000]).await.unwrap();
    log.append(vec![NewMessage::new(Topic::parse("wanted").unwrap(), "7")]).await.unwrap();
    let server = Server::start_with(|face| face.log = log, None, [127, 0, 0, 1]).await;
    let mut events = Events::open(server.get("/v1/topics/wanted/tail?from=earliest")).await;
    let bodies = tokio::time::timeout(Duration::from_secs(30), events.bodies(1)).await;
    assert_eq!(bodies, Ok(vec![7]), "it waits for a message that is there");
}

#[tokio::test]
async fn stop_ends_tails_and_lets_the_listener_go() {
    let server = Server::start().await;
    let mut events = Events::open(server.get("/v1/topics/a/tail")).await;
    server.stop.cancel();
    let (name, data) = events.next().await.unwrap();
    assert_eq!((name.as_str(), &data["error"]), ("error", &json!("the host stops")));
    assert_eq!(events.next().await, None);
    server.task.await.unwrap();
    assert!(server.client.get(format!("http://{}/livez", server.address)).send().await.is_err());
}
