//! Encryption: a server is believed by the file of certificates alone, and anything else is refused with what to do.

use super::{append, bodies, unopened};
use crate::harness::certificates::Authority;
use crate::harness::logs::message;
use crate::harness::process::Place;
use crate::harness::redis::{Options, OwnServer, free_port, open_own};
use sluicebox::log::redis::Login;
use sluicebox::log::{Log, LogError};
use std::path::PathBuf;

/// A server with a certificate for `localhost`, and where it encrypts.
fn encrypting(authority: &Authority) -> (OwnServer, String) {
    let ([certificate, key], port, ca) = (authority.files("localhost"), free_port(), authority.file());
    let texts = [certificate, key, ca].map(|path| path.to_str().unwrap().to_owned());
    let server = OwnServer::start_with(&[
        "--appendfsync",
        "always",
        "--requirepass",
        "the-password",
        "--tls-port",
        &port,
        "--tls-auth-clients",
        "no",
        "--tls-cert-file",
        &texts[0],
        "--tls-key-file",
        &texts[1],
        "--tls-ca-cert-file",
        &texts[2],
    ]);
    (server, format!("rediss://localhost:{port}"))
}

fn options(url: &str, ca_file: Option<PathBuf>) -> Options {
    Options { ca_file, login: Login::Password("the-password".into()), ..Options::new(url, "t") }
}

#[tokio::test]
async fn servers_are_believed_by_the_certificate_file_alone_and_by_their_name() {
    let [authority, stranger] = [Authority::new(), Authority::new()];
    let (server, url) = encrypting(&authority);
    let log = open_own(options(&url, Some(authority.file()))).unwrap();
    append(&log, "x").await.unwrap();
    assert_eq!(bodies(&log).await, ["x"]);
    for (options, said) in [
        (options(&url, Some(stranger.file())), "set `ca_file`"),
        (options(&url, None), "set `ca_file`"),
        // By a name that is not in its certificate.
        (options(&url.replace("localhost", "127.0.0.1"), Some(authority.file())), "as its certificate does"),
        (options(&server.url(), Some(authority.file())), "rediss://"),
        (options(&url, Some("/nowhere/ca.pem".into())), "/nowhere/ca.pem"),
    ] {
        match unopened(options) {
            LogError::Refused { reason } => {
                assert!(reason.contains(said) && !reason.contains("the-password"), "{said}: {reason}");
            }
            other => panic!("{other}"),
        }
    }
    // Where it does not encrypt nobody answers.
    let plain = server.url().replace("redis://127.0.0.1", "rediss://localhost");
    let silent = unopened(options(&plain, Some(authority.file())));
    assert!(matches!(&silent, LogError::Unavailable { reason } if reason.contains(&plain)), "{silent}");
    // Nothing is said in clear to a server that wants encryption.
    let in_clear = unopened(options(&url.replace("rediss://", "redis://"), None)).to_string();
    assert!(in_clear.contains("no connection to the server") && !in_clear.contains("the-password"), "{in_clear}");
}

#[tokio::test]
async fn the_program_connects_as_its_settings_say() {
    let authority = Authority::new();
    let (_server, url) = encrypting(&authority);
    let place = Place::new("", &[]);
    place.put("ca.pem", std::fs::read(authority.file()).unwrap());
    place.put("password", "the-password\n");
    let settings = format!(
        "namespace = \"t\"\n[log]\nkind = \"redis\"\nurl = \"{url}\"\nca_file = \"ca.pem\"\n\
         login = {{ password_file = \"password\" }}\n[http]\nlisten = \"127.0.0.1:0\"\n"
    );
    place.put("sluicebox.toml", &settings);
    let host = place.start();
    assert!(host.publish("a", None, None, "x").await);
    assert!(host.stop().success());
    let log = open_own(options(&url, Some(authority.file()))).unwrap();
    log.append(vec![message("a", "y")]).await.unwrap();
    assert_eq!(bodies(&log).await, ["x", "y"]);
}
