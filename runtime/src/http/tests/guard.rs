//! Who may ask: no foreign page, and nobody without the token.

use super::*;

#[tokio::test]
async fn foreign_hosts_and_origins_are_refused_on_loopback() {
    let server = Server::start().await;
    let own = format!("http://{}", server.address);
    for (name, value, expected) in [
        ("host", "localhost", 200),
        ("host", "LOCALHOST:1", 200),
        ("host", "127.0.0.1", 200),
        ("host", "[::1]:80", 200),
        ("host", "evil.example", 403),
        ("host", "127.0.0.1.evil.example", 403),
        ("host", "user@localhost", 403),
        ("host", "192.168.0.1", 403),
        ("host", "", 403),
        ("origin", own.as_str(), 200),
        ("origin", "http://evil.example", 403),
        ("origin", "http://localhost:1", 403),
        ("origin", "null", 403),
    ] {
        let response = server.get("/livez").header(name, value).send().await.unwrap();
        assert_eq!(response.status().as_u16(), expected, "{name}: {value}");
    }
    // A page may send such a request without asking first.
    let request = server.post("a").header("origin", "http://evil.example").header("content-type", "text/plain");
    assert_eq!(send(request.body("x")).await.0, StatusCode::FORBIDDEN);
    assert!(server.messages().await.is_empty());
}

/// Every path with something in the place of its variable part.
fn every_route() -> impl Iterator<Item = (Method, String)> {
    routes::ROUTES.iter().map(|route| {
        let filled = route.path.split('/').map(|part| if part.starts_with('{') { "order" } else { part });
        (route.method.clone(), filled.collect::<Vec<_>>().join("/"))
    })
}

#[tokio::test]
async fn no_route_is_open_to_a_foreign_page_or_without_the_token() {
    let local = Server::start().await;
    let token = Server::start_with(|_| {}, Some(TOKEN), [0, 0, 0, 0]).await;
    let mut checked = 0;
    for (method, path) in every_route() {
        for (name, value) in [("origin", "http://evil.example"), ("origin", "null"), ("host", "evil.example")] {
            let (status, answer) = send(local.request(method.clone(), &path).header(name, value)).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path} {name}: {answer}");
        }
        let is_health = ["/livez", "/readyz"].contains(&path.as_str());
        for authorization in [None, Some("Bearer wrong-wrong-wrong"), Some(TOKEN)] {
            let mut request = token.request(method.clone(), &path).header("host", "shop.example");
            if let Some(value) = authorization {
                request = request.header("authorization", value);
            }
            let status = request.send().await.unwrap().status();
            assert_eq!(status == StatusCode::UNAUTHORIZED, !is_health, "{method} {path}: {status}");
        }
        checked += 1;
    }
    assert_eq!(checked, routes::ROUTES.len());
    assert!(local.messages().await.is_empty() && token.messages().await.is_empty());
}

#[test]
fn every_path_has_the_name_under_which_it_is_counted() {
    let name = |path: &str| routes::route_of(path).map(|route| route.path);
    for (_, path) in every_route() {
        let counted = name(&path).unwrap_or_else(|| panic!("{path} is counted as unknown"));
        assert!(routes::ROUTES.iter().any(|route| route.path == counted));
    }
    for (path, expected) in [
        ("/v1/dead/7", Some("/v1/dead/{number}")),
        ("/v1/dead/count", Some("/v1/dead/count")),
        ("/v1/topics/a.b", Some("/v1/topics/{topic}")),
        ("/v1/topics/a.b/tail", Some("/v1/topics/{pattern}/tail")),
        ("/v1/topics/", None),
        ("/v1/handlers/order/pause/now", None),
        ("/v1", None),
        ("", None),
    ] {
        assert_eq!(name(path), expected, "{path}");
    }
}

#[tokio::test]
async fn with_a_token_everything_but_health_needs_it() {
    let server = Server::start_with(|_| {}, Some(TOKEN), [0, 0, 0, 0]).await;
    for (authorization, expected) in [
        (None, 401),
        (Some("Bearer wrong"), 401),
        (Some("Bearer "), 401),
        (Some("Bearer"), 401),
        (Some("Basic 0123456789abcdef"), 401),
        (Some("Bearer 0123456789abcdef0"), 401),
        (Some("Bearer 0123456789abcdef"), 200),
        (Some("bearer  0123456789abcdef"), 200),
    ] {
        for path in ["/metrics", "/v1/status"] {
            let mut request = server.get(path).header("host", "shop.example");
            if let Some(value) = authorization {
                request = request.header("authorization", value);
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.status().as_u16(), expected, "{path} {authorization:?}");
            assert_eq!(response.headers().contains_key("www-authenticate"), expected == 401);
        }
    }
    assert_eq!(server.get("/livez").send().await.unwrap().status(), StatusCode::OK);
    let (status, answer) = send(server.post("a").body("x")).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(answer["error"].as_str().unwrap().contains("Authorization: Bearer"));
    assert!(server.messages().await.is_empty());
}
