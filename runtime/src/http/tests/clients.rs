//! Clients that are slow, huge, many or hostile, on real sockets: each is got rid of, and another one is served meanwhile.

use super::tail::Events;
use super::*;
use std::future::Future;
use tokio::time::{Instant, Interval};

/// Everything a test waits for happens within this.
const PATIENCE: Duration = Duration::from_secs(30);
/// A client that the host waits for has this long.
const SHORT: Duration = Duration::from_millis(150);
const LOOPBACK: [u8; 4] = [127, 0, 0, 1];

async fn impatient() -> Server {
    impatient_with(|_| {}).await
}

async fn impatient_with(change: impl FnOnce(&mut ClientLimits)) -> Server {
    let change = |face: &mut Face| {
        let limits = &mut face.limits;
        (limits.head_timeout, limits.body_timeout, limits.write_timeout) = (SHORT, SHORT, SHORT);
        change(limits);
        face.large_answers = Arc::new(Semaphore::new(face.limits.large_answers_max));
        face.bodies_kib = Arc::new(Semaphore::new(face.limits.bodies_kib_max));
    };
    Server::start_with(change, None, LOOPBACK).await
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes and returns all that is answered until the host hangs up.
    async fn exchange(&self, bytes: &[u8]) -> String {
        let (mut reader, mut writer) = self.connect().await.into_split();
        let bytes = bytes.to_vec();
        // The host may hang up before it has read everything.
        let sending = tokio::spawn(async move { writer.write_all(&bytes).await.map(|()| writer) });
        let answer = soon("the host hangs up", read_all(&mut reader)).await;
        sending.abort();
        answer
    }

    /// Another client is served.
    async fn serves(&self) {
        let answer =
            soon("another client is answered", Client::new().get(format!("http://{}/livez", self.address)).send());
        assert_eq!(answer.await.unwrap().status(), StatusCode::OK);
    }

    fn cut(&self, reason: &str) -> u64 {
        self.metrics.http().connections_cut.with_label_values(&[reason]).get()
    }
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain until {what}"))
}

fn pace() -> Interval {
    tokio::time::interval(Duration::from_millis(5))
}

/// Reads until the other side ends, in whatever way.
async fn read_all(reader: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let (mut all, mut part) = (vec![], vec![0; 1 << 16]);
    while let Ok(bytes @ 1..) = reader.read(&mut part).await {
        all.extend_from_slice(&part[..bytes]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// The status of an answer, and the reason in its body.
#[track_caller]
fn refusal(answer: &str) -> (u16, String) {
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    let reason = serde_json::from_str::<Value>(body).ok().and_then(|body| body["error"].as_str().map(str::to_owned));
    (status.unwrap_or_else(|| panic!("no status in {answer:?}")), reason.unwrap_or_default())
}

#[tokio::test]
async fn a_byte_now_and_then_does_not_keep_a_connection() {
    let server = impatient().await;
    let post = "POST /v1/topics/a HTTP/1.1\r\nHost: localhost\r\n";
    let cases = [
        ("GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".to_owned(), ""),
        (format!("{post}Content-Length: 100000\r\n\r\n"), "the body comes too slowly: "),
        (
            format!("{post}Content-Type: application/x-ndjson\r\nContent-Length: 100000\r\n\r\n"),
            "the body comes too slowly: ",
        ),
        (
            "POST /v1/dead/drop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000\r\n\r\n{".into(),
            "the body comes too slowly: ",
        ),
    ];
    for (begun, expected) in cases {
        let (mut reader, mut writer) = server.connect().await.into_split();
        writer.write_all(begun.as_bytes()).await.unwrap();
        let started = Instant::now();
        let dripping = async {
            let mut pace = pace();
            while writer.write_all(b"1").await.is_ok() {
                pace.tick().await;
            }
        };
        let answer = tokio::select! {
            answer = soon("the host hangs up", read_all(&mut reader)) => answer,
            // Only the host ends it.
            () = dripping => read_all(&mut reader).await,
        };
        assert!(started.elapsed() < SHORT * 40, "{begun}: {:?}", started.elapsed());
        match expected {
            "" => assert!(!answer.contains("200"), "{answer}"),
            _ => {
                let (status, reason) = refusal(&answer);
                assert_eq!(status, 408, "{begun}: {answer}");
                assert!(reason.starts_with(expected), "{begun}: {reason}");
            }
        }
        server.serves().await;
    }
    assert!(server.messages().await.is_empty());
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_hung_up_on() {
    let server = impatient().await;
    let body = vec![b'x'; 500_000];
    let topic = Topic::parse("events.made").unwrap();
    let appended = server.log.append(vec![NewMessage::new(topic, body); 40]).await.unwrap();
    let offsets: Vec<u64> = appended.into_iter().map(|offset| offset.0).collect();
    stage::route(&server.log, "order", KeyFrom::None, 1).await;
    stage::bury(&server.log, "order", 0, &offsets, |_, _| {}).await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    for (path, requests) in [("/v1/topics/events.made/tail?from=earliest", 1), ("/v1/dead", 20), ("/livez", 200_000)] {
        let mut stream = server.connect().await;
        let requests = get(path).repeat(requests);
        let sending = async {
            let _ = stream.write_all(requests.as_bytes()).await;
            std::future::pending::<()>().await;
        };
        let before = server.cut("unread");
        let cut = async {
            let mut pace = pace();
            while server.cut("unread") == before {
                pace.tick().await;
            }
        };
        tokio::select! {
            () = sending => {}
            () = soon("a client that does not read is hung up on", cut) => {}
        }
        server.serves().await;
    }
}

#[tokio::test]
async fn looks_whose_clients_do_not_read_make_room_for_others() {
    let server = impatient_with(|limits| {
        (limits.large_answers_max, limits.idle_min) = (2, Duration::from_millis(10));
        // It is the turns that are short here, not the time: making the answers may take longer than a head may.
        (limits.head_timeout, limits.write_timeout) = (PATIENCE * 10, PATIENCE * 10);
    })
    .await;
    let appended = server.log.append(vec![NewMessage::new(Topic::parse("a").unwrap(), vec![b'x'; 500_000]); 40]).await;
    let offsets: Vec<u64> = appended.unwrap().into_iter().map(|offset| offset.0).collect();
    stage::route(&server.log, "order", KeyFrom::None, 1).await;
    stage::bury(&server.log, "order", 0, &offsets, |_, _| {}).await;
    let mut streams = vec![];
    for _ in 0..4 {
        let mut stream = server.connect().await;
        // As many as fill what the kernel holds for both sides.
        let request = "GET /v1/dead HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(20);
        stream.write_all(request.as_bytes()).await.unwrap();
        streams.push(stream);
    }
    let mut pace = pace();
    let full = async {
        while server.cut("turn") < 1 {
            pace.tick().await;
        }
    };
    soon("one of them loses its turn to the next one", full).await;
    let (status, _) = soon("another look is answered", send(server.get("/v1/status"))).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn a_look_that_finds_no_turn_is_told_to_come_back() {
    let server =
        impatient_with(|limits| (limits.large_answers_max, limits.large_answer_wait) = (0, Duration::from_millis(1)))
            .await;
    for path in ["/v1/handlers", "/v1/handlers/a", "/v1/dead", "/v1/dead/1", "/v1/status", "/metrics"] {
        let response = server.get(path).send().await.unwrap();
        assert_eq!(response.headers()["retry-after"], "1");
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["error"], "too many clients look at once: try again", "{path}");
    }
    server.serves().await;
    assert_eq!(send(server.post("a").body("1")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn bodies_wait_for_room_and_one_alone_always_has_it() {
    let server = impatient_with(|limits| limits.bodies_kib_max = 100).await;
    assert_eq!(send(server.post("a").body(vec![b'x'; BODY_BYTES_MAX])).await.0, StatusCode::OK);
    let mut slow = server.connect().await;
    let head = "POST /v1/topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n12345";
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut pace = pace();
    let waits = async {
        while server.metrics.http().connections.get() == 0 {
            pace.tick().await;
        }
    };
    soon("the slow client is there", waits).await;
    // A small one needs no room, and a large one gets it when the slow one's time is over.
    assert_eq!(send(server.post("a").body("z")).await.0, StatusCode::OK);
    assert_eq!(soon("a body finds room", send(server.post("a").body(vec![b'y'; 50_000]))).await.0, StatusCode::OK);
    assert_eq!(server.messages().await.len(), 3);
}

#[tokio::test]
async fn ten_thousand_silent_connections_keep_nobody_out() {
    let places = 64;
    let server = impatient_with(|limits| {
        (limits.connections_max, limits.idle_min) = (places, Duration::from_millis(2));
        // It is the places that are short here, not the time.
        limits.head_timeout = PATIENCE * 10;
    })
    .await;
    let (address, mut silent) = (server.address, vec![]);
    for round in 0..20 {
        let connecting = (0..500).map(|_| TcpStream::connect(address));
        silent.extend(soon("they connect", futures_util::future::join_all(connecting)).await);
        server.serves().await;
        assert!(server.metrics.http().connections.get() <= places as i64, "round {round}");
        // Those that were sent away, so that this process does not run out of file descriptors.
        silent.drain(..silent.len().saturating_sub(1000));
    }
    assert!(server.cut("place") > 1_000, "{} had to leave", server.cut("place"));
    drop(silent);
    server.serves().await;
}

#[tokio::test]
async fn a_connection_at_work_does_not_lose_its_place() {
    let server =
        impatient_with(|limits| (limits.connections_max, limits.idle_min) = (2, Duration::from_millis(1))).await;
    let mut events = Events::open(server.get("/v1/topics/a/tail")).await;
    for _ in 0..50 {
        let _silent = server.connect().await;
        server.serves().await;
    }
    server.append("a", 0..1).await;
    assert_eq!(events.bodies(1).await, [0]);
}

#[tokio::test]
async fn a_body_or_line_without_end_is_refused_after_a_bounded_part_of_it() {
    let server = impatient().await;
    let head = "POST /v1/topics/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n";
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let lines = format!("{head}Content-Type: application/x-ndjson\r\n\r\n7\r\n{{\"a\":1}}\r\n1\r\n\n\r\n");
    let cases = [
        (format!("{head}\r\n"), "the body is larger than 524288 bytes"),
        (head.replace("topics/a", "dead/retry") + "\r\n", "the body is larger than 65536 bytes"),
        (lines, "line 2 does not end within 8388608 bytes"),
    ];
    for (head, expected) in cases {
        let (mut reader, mut writer) = server.connect().await.into_split();
        let mut sent = 0;
        let sending = async {
            let _ = writer.write_all(head.as_bytes()).await;
            while writer.write_all(chunk.as_bytes()).await.is_ok() {
                sent += chunk.len();
            }
            std::future::pending::<()>().await;
        };
        let answer = tokio::select! {
            () = sending => unreachable!("it never ends"),
            answer = soon("the host hangs up", read_all(&mut reader)) => answer,
        };
        assert_eq!(refusal(&answer), (413, expected.to_owned()));
        // What it took, what it dropped after the answer, and what the kernel holds for both sides.
        assert!(sent < 32 << 20, "{sent} bytes were taken");
        server.serves().await;
    }
    let bodies: Vec<_> = server.messages().await.iter().map(|message| message.body.clone()).collect();
    assert_eq!(bodies, ["{\"a\":1}"], "the line before was taken");
}

#[tokio::test]
async fn packed_bodies_are_refused_before_they_are_read() {
    let server = impatient().await;
    let bomb = vec![0x1f; 1000];
    for (encoding, shown) in [("gzip", "gzip"), ("br", "br"), ("identity, deflate", "identity, deflate")] {
        for path in ["/v1/topics/a", "/v1/dead/drop", "/v1/handlers/order/pause"] {
            let request = server.request(Method::POST, path).header("content-encoding", encoding).body(bomb.clone());
            let (status, answer) = send(request).await;
            let expected = format!("a body with Content-Encoding `{shown}` is not taken: send it as it is");
            assert_eq!((status.as_u16(), &answer["error"]), (415, &json!(expected)), "{path}");
        }
    }
    let identity = server.post("a").header("content-encoding", "Identity").body("1");
    assert_eq!(send(identity).await.0, StatusCode::OK);
    assert_eq!(server.messages().await.len(), 1);
}

#[tokio::test]
async fn pipelined_requests_are_answered_one_after_the_other() {
    let server = impatient().await;
    let publish = |n: usize| {
        let body = n.to_string();
        format!("POST /v1/topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let requests: String = (0..2000).map(publish).collect();
    let answers = server.exchange(requests.as_bytes()).await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2000);
    let bodies: Vec<String> =
        server.messages().await.iter().map(|message| String::from_utf8(message.body.to_vec()).unwrap()).collect();
    assert_eq!(bodies, (0..2000).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_message_may_have_as_many_headers_as_is_promised() {
    let server = impatient().await;
    let with = |count: usize| {
        let headers = (0..count).map(|n| format!("Sluicebox-Header-N{n}: 1\r\n")).collect::<String>();
        format!(
            "POST /v1/topics/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}Content-Length: 1\r\n\r\n1"
        )
    };
    let answer = server.exchange(with(256).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(server.messages().await[0].headers.iter().count(), 256);
    let (status, reason) = refusal(&server.exchange(with(257).as_bytes()).await);
    assert!(status == 413 && reason.contains("257 headers"), "{status} {reason}");
    let (status, reason) = refusal(&server.exchange(with(400).as_bytes()).await);
    assert!(status == 431 && reason.contains("a message may have 256 headers"), "{status} {reason}");
}

#[tokio::test]
async fn an_answer_that_comes_before_the_body_says_that_the_connection_ends() {
    let server = impatient().await;
    // No room for any body that is large.
    let full = Server::start_with(|face| face.bodies_kib.close(), None, LOOPBACK).await;
    let head = "POST /v1/topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500000\r\n";
    for (server, begun, status) in [
        (&full, format!("{head}\r\nabc"), 503),
        (&server, format!("{head}Content-Encoding: gzip\r\n\r\n"), 415),
        (&server, head.replace("500000", "5000000") + "\r\n", 413),
        (&server, head.replace("/v1/topics/a", "/nowhere") + "\r\nabc", 404),
        (&server, format!("{head}\r\nabc"), 408),
    ] {
        let answer = server.exchange(begun.as_bytes()).await;
        assert_eq!(refusal(&answer).0, status, "{answer}");
        assert!(answer.to_ascii_lowercase().contains("\r\nconnection: close\r\n"), "{answer}");
    }
    // With the body read the connection goes on, and with a request that has none.
    for _ in 0..2 {
        let response = server.post("a").body("1").send().await.unwrap();
        assert_eq!(response.headers().get("connection"), None);
        let response = server.get("/nowhere").send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.headers().get("connection")), (404, None));
    }
}

#[tokio::test]
async fn clients_that_drip_a_head_or_a_body_keep_nobody_out() {
    let post = "POST /v1/topics/a HTTP/1.1\r\nHost: localhost\r\n";
    for begun in [format!("{post}X-Slow: "), format!("{post}Content-Length: 100000\r\n\r\n")] {
        let places = 8;
        let server = impatient_with(|limits| {
            (limits.connections_max, limits.idle_min) = (places, Duration::from_millis(100));
            // It is the places that are short here, not the time.
            (limits.head_timeout, limits.body_timeout) = (PATIENCE * 10, PATIENCE * 10);
        })
        .await;
        let mut dripping = vec![];
        for _ in 0..places {
            let (mut stream, begun) = (server.connect().await, begun.clone());
            dripping.push(tokio::spawn(async move {
                let mut pace = pace();
                let mut sent = stream.write_all(begun.as_bytes()).await;
                while sent.is_ok() {
                    pace.tick().await;
                    sent = stream.write_all(b"1").await;
                }
            }));
        }
        let mut waits = pace();
        while server.metrics.http().connections.get() < places as i64 {
            waits.tick().await;
        }
        for _ in 0..3 {
            server.serves().await;
        }
        assert!(server.cut("place") >= 1, "{begun}");
        dripping.iter().for_each(|client| client.abort());
    }
}

#[tokio::test]
async fn what_is_no_http_is_refused_by_status() {
    let server = impatient().await;
    let many: String = (0..400).map(|n| format!("X-{n}: 1\r\n")).collect();
    let host = "Host: localhost\r\n";
    let cases = [
        (format!("GET /livez HTTP/1.1\r\n{host}{many}\r\n"), 431),
        (format!("GET /livez HTTP/1.1\r\n{host}X: {}\r\n\r\n", "x".repeat(200_000)), 431),
        (format!("GET /{} HTTP/1.1\r\n{host}\r\n", "x".repeat(70_000)), 414),
        ("hello\r\n\r\n".to_owned(), 400),
        (format!("GET /livez HTTP/7.0\r\n{host}\r\n"), 400),
        (format!("GET /livez HTTP/1.1\r\n{host}bad header\r\n\r\n"), 400),
        (format!("POST /v1/topics/a HTTP/1.1\r\n{host}Content-Length: 1\r\nContent-Length: 2\r\n\r\n12"), 400),
        (format!("POST /v1/topics/a HTTP/1.1\r\n{host}Content-Length: -1\r\n\r\n1"), 400),
        (format!("POST /v1/topics/a HTTP/1.1\r\n{host}Transfer-Encoding: gzip\r\n\r\n1"), 400),
        (format!("POST /v1/topics/a HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\nzz\r\n1\r\n"), 400),
        ("GET /livez HTTP/1.1\r\n\r\n".into(), 403),
        (format!("GET /livez HTTP/1.1\r\n{host}Host: evil.example\r\n\r\n"), 403),
    ];
    for (request, status) in cases {
        let shown: String = request.chars().take(80).collect();
        let answer = server.exchange(request.as_bytes()).await;
        assert!(!answer.is_empty(), "{shown}: no answer");
        let (found, reason) = refusal(&answer);
        assert_eq!(found, status, "{shown}");
        assert!(!reason.is_empty(), "{shown}: no reason in {answer}");
    }
    server.serves().await;
    assert!(server.messages().await.is_empty());
}

#[tokio::test]
async fn a_refused_client_that_still_sends_reads_why() {
    let server = impatient_with(|limits| limits.linger_timeout = PATIENCE).await;
    let head = "POST /v1/topics/a HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 600000\r\n\r\n";
    for _ in 0..20 {
        let (mut reader, mut writer) = server.connect().await.into_split();
        writer.write_all(head.as_bytes()).await.unwrap();
        // The refusal is there before the body is sent.
        let mut first = [0; 12];
        soon("it is answered", reader.read_exact(&mut first)).await.unwrap();
        writer.write_all(&vec![b'x'; 600_000]).await.unwrap();
        writer.shutdown().await.unwrap();
        let answer = format!("{}{}", String::from_utf8_lossy(&first), soon("it ends", read_all(&mut reader)).await);
        let (status, reason) = refusal(&answer);
        assert_eq!(status, 403);
        assert!(reason.contains("does not answer for `evil.example`"), "{reason}");
    }
}
