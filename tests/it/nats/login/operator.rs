//! An operator with one account and one user, as `nsc` would make them: signed claims, and a file of credentials.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

pub struct Operator {
    operator: KeyPair,
    system: KeyPair,
    account: KeyPair,
    user: KeyPair,
}

/// Claims of `subject`, which `issuer` signs.
fn signed(issuer: &KeyPair, subject: &KeyPair, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(&json!({ "typ": "JWT", "alg": "ed25519-nkey" }));
    let claims = part(&json!({
        "jti": "one", "iat": 1_700_000_000, "iss": issuer.public_key(), "name": "test",
        "sub": subject.public_key(), "nats": claims
    }));
    let signature = issuer.sign(format!("{header}.{claims}").as_bytes()).unwrap();
    format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode(signature))
}

impl Operator {
    pub fn new() -> Self {
        let (operator, user) = (KeyPair::new_operator(), KeyPair::new_user());
        Self { operator, system: KeyPair::new_account(), account: KeyPair::new_account(), user }
    }

    fn account_claims(&self, account: &KeyPair, storage: i64) -> String {
        let limits = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
            "leaf": -1, "mem_storage": storage, "disk_storage": storage, "streams": storage, "consumer": storage
        });
        signed(&self.operator, account, &json!({ "limits": limits, "type": "account", "version": 2 }))
    }

    /// Of a server that knows it.
    pub fn settings(&self) -> String {
        let system = self.system.public_key();
        let claims = json!({ "system_account": system, "type": "operator", "version": 2 });
        let operator = signed(&self.operator, &self.operator, &claims);
        let [of_system, of_account] = [(&self.system, 0), (&self.account, -1)]
            .map(|(account, storage)| format!("{}: {}", account.public_key(), self.account_claims(account, storage)));
        format!(
            "operator: {operator}\nsystem_account: {system}\nresolver: MEMORY\n\
             resolver_preload {{ {of_system}\n {of_account} }}"
        )
    }

    /// The file of its user.
    pub fn credentials(&self) -> String {
        let claims = json!({ "subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2 });
        let user = signed(&self.account, &self.user, &claims);
        let seed = self.user.seed().unwrap();
        format!(
            "-----BEGIN NATS USER JWT-----\n{user}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }
}
