//! Who connects is who the server knows, by every way to say so, and over TLS; anyone else is told what to do, and no secret
//! is in what is said.

mod operator;

use super::{refused, says};
use crate::harness::certificates::Authority;
use crate::harness::guests::handler;
use crate::harness::logs::message;
use crate::harness::nats::{OwnServer, open_nats, options};
use crate::harness::process::Place;
use nkeys::KeyPair;
use operator::Operator;
use sluicebox::log::Log;
use sluicebox::log::nats::{Login, Options};

async fn takes(options: Options) {
    open_nats(options).unwrap().append(vec![message("a", "x")]).await.unwrap();
}

fn with(server: &OwnServer, login: Login) -> Options {
    Options { login, ..Options::new(server.url(), "t") }
}

#[tokio::test]
async fn an_nkey_connects_and_another_one_is_refused() {
    let [known, unknown] = [KeyPair::new_user(), KeyPair::new_user()];
    let seed = |pair: &KeyPair| pair.seed().unwrap();
    let settings = format!("jetstream: enabled\nauthorization {{ users = [ {{ nkey: {} }} ] }}", known.public_key());
    let server = OwnServer::configured(&settings);
    takes(with(&server, Login::Nkey(seed(&known)))).await;
    let another = refused(with(&server, Login::Nkey(seed(&unknown))));
    says(&another, &["authorization violation", &server.url(), "set `login`"]);
    let broken = refused(with(&server, Login::Nkey("SUANOTASEED".into())));
    says(&broken, &["login", "cannot be used", "check the file"]);
    for said in [another, broken, format!("{:?}", with(&server, Login::Nkey(seed(&unknown))))] {
        assert!(!said.contains(&seed(&unknown)) && !said.contains("NOTASEED"), "{said}");
    }
}

#[tokio::test]
async fn credentials_of_an_operators_user_connect_and_those_of_another_operator_are_refused() {
    let (ours, theirs) = (Operator::new(), Operator::new());
    let server = OwnServer::configured(&format!("jetstream: enabled\n{}", ours.settings()));
    takes(with(&server, Login::Credentials(ours.credentials()))).await;
    let credentials = theirs.credentials();
    let another = refused(with(&server, Login::Credentials(credentials.clone())));
    says(&another, &["authorization violation", "set `login`"]);
    // Whatever line it is cut at.
    let lines: Vec<&str> = credentials.lines().collect();
    let cut = refused(with(&server, Login::Credentials(lines[..4].join("\n"))));
    says(&cut, &["the credentials are not those of a user", "nsc generate creds"]);
    for said in [another, cut] {
        assert!(!lines.iter().any(|line| line.len() > 30 && said.contains(line)), "{said}");
    }
}

#[tokio::test]
async fn servers_are_believed_by_the_certificate_file_alone_and_nothing_is_said_in_clear() {
    let [authority, stranger] = [Authority::new(), Authority::new()];
    let server = OwnServer::configured(&format!(
        "jetstream: enabled\n{}\nauthorization {{ token: the-token }}",
        authority.server("localhost")
    ));
    let login = Login::Token("the-token".into());
    let encrypted = |url: String, ca_file| Options { ca_file, login: login.clone(), ..Options::new(url, "t") };
    let localhost = server.url().replace("127.0.0.1", "localhost");
    takes(encrypted(server.tls_url(), Some(authority.file()))).await;
    // The server asks for encryption.
    takes(encrypted(localhost, Some(authority.file()))).await;
    for options in [
        encrypted(server.tls_url(), Some(stranger.file())),
        encrypted(server.tls_url(), None),
        // By a name that is not in its certificate.
        encrypted(server.url(), Some(authority.file())),
        encrypted(server.tls_url(), Some("/nowhere/ca.pem".into())),
    ] {
        let said = refused(options);
        says(&said, &["no encrypted connection", "set `ca_file`"]);
        assert!(!said.contains("the-token"), "{said}");
    }
    let in_clear = OwnServer::start_with(&["--auth", "the-token"]);
    takes(encrypted(in_clear.url(), None)).await;
    says(&refused(encrypted(in_clear.url(), Some(authority.file()))), &["no encrypted connection", "set `ca_file`"]);
}

#[tokio::test]
async fn of_a_list_of_servers_one_that_lives_is_enough() {
    let alive = options(&crate::harness::nats::fresh_namespace());
    for list in ["nats://127.0.0.1:1, LIVE", "LIVE,nats://127.0.0.1:1", "nats://127.0.0.1:1,nats://127.0.0.1:2,LIVE"] {
        takes(Options { url: list.replace("LIVE", &alive.url), ..alive.clone() }).await;
    }
}

/// As an operator would set it up: encryption and a file of credentials.
#[tokio::test]
async fn the_program_connects_as_its_settings_say_and_prints_what_it_promises() {
    let (operator, authority) = (Operator::new(), Authority::new());
    let server = OwnServer::configured(&format!(
        "jetstream: enabled\n{}\n{}",
        operator.settings(),
        authority.server("localhost")
    ));
    let place = Place::new("", &[&handler("order")]);
    place.put("ca.pem", std::fs::read(authority.file()).unwrap());
    place.put("host.creds", operator.credentials());
    let settings = format!(
        "namespace = \"t\"\n[log]\nkind = \"nats\"\nurl = \"{}\"\nca_file = \"ca.pem\"\n\
         login = {{ credentials_file = \"host.creds\" }}\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [handlers.order]\nmodule = \"order.wasm\"\nsubscribe = [\"events.*\"]\npublish = [\"orders.*\"]\n\
         key = [\"/args/user\"]\nid = \"/id\"\n",
        server.tls_url()
    );
    place.put("sluicebox.toml", &settings);
    let host = place.start_heard();
    assert!(host.publish("events.new_order", None, None, "{}").await, "{}", place.heard());
    assert!(host.stop().success());
    says(&place.heard(), &["what is acknowledged outlives kill -9, not loss of power", "on one server"]);
    place.put("host.creds", Operator::new().credentials());
    let (code, _, said) = place.command(&["run"]);
    assert_eq!(code, 1);
    says(&said, &["failed to open the log of `t`", "authorization violation", "set `login`"]);
}
