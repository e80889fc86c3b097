//! What is particular to the log on NATS.

use crate::harness::logs::message;
use crate::harness::nats::{OwnServer, open_nats};
use sluicebox::log::nats::{Login, Options};
use sluicebox::log::{Log, LogError};

#[tokio::test]
async fn who_connects_is_who_the_server_knows_or_is_refused_with_the_reason() {
    let by_token = OwnServer::start_with(&["--auth", "the-token"]);
    let by_user = OwnServer::start_with(&["--user", "shop", "--pass", "the-password"]);
    let token = |text: &str| Login::Token(text.into());
    let user = |password: &str| Login::User { user: "shop".into(), password: password.into() };
    for (server, good, bad) in [
        (&by_token, token("the-token"), [Login::None, token("another"), user("the-password")]),
        (&by_user, user("the-password"), [Login::None, token("the-token"), user("another")]),
    ] {
        let options = |login| Options { login, ..Options::new(server.url(), "t") };
        open_nats(options(good)).unwrap().append(vec![message("a", "x")]).await.unwrap();
        for login in bad {
            match open_nats(options(login)).map(drop) {
                Err(error @ LogError::Refused { .. }) => {
                    let said = error.to_string();
                    assert!(said.contains("authorization") && !said.contains("the-"), "{said}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_with_the_reason() {
    let nobody = Options::new("nats://127.0.0.1:1", "t");
    match open_nats(nobody).map(drop) {
        Err(error @ LogError::Unavailable { .. }) => assert!(error.to_string().contains("127.0.0.1:1"), "{error}"),
        other => panic!("{other:?}"),
    }
}
