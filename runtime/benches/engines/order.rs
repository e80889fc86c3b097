//! The work of `handlers/order` without a sandbox: the same JSON, with its state in memory.

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event {
    NewOrder { id: String, args: NewOrder },
}

#[derive(Deserialize)]
struct NewOrder {
    user: String,
    amount_cents: u64,
}

#[derive(Default)]
struct Account {
    orders: u64,
    amount_cents: u64,
}

#[derive(Serialize)]
struct Accepted<'e> {
    order: &'e str,
    user: &'e str,
    amount_cents: u64,
    orders: u64,
    total_cents: u64,
}

/// The accounts of all users.
#[derive(Default)]
pub struct Orders(HashMap<String, Account>);

impl Orders {
    /// What is published of an event.
    pub fn handle(&mut self, body: &[u8]) -> anyhow::Result<Vec<u8>> {
        let Event::NewOrder { id, args: NewOrder { user, amount_cents } } =
            serde_json::from_slice(body).context("an event of the bench itself")?;
        let account = match self.0.get_mut(&user) {
            Some(account) => account,
            None => self.0.entry(user.clone()).or_default(),
        };
        account.orders += 1;
        account.amount_cents = account.amount_cents.saturating_add(amount_cents);
        let (orders, total_cents) = (account.orders, account.amount_cents);
        Ok(serde_json::to_vec(&Accepted { order: &id, user: &user, amount_cents, orders, total_cents })?)
    }
}
