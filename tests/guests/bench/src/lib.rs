//! The handler of the sandbox benchmark: parses a JSON event and makes three host calls (reads state, writes state,
//! publishes).

use serde::{Deserialize, Serialize};
use sluicebox_sdk::{Context, Failure, Json};

#[derive(Deserialize)]
struct NewOrder {
    user: String,
    amount_cents: u64,
    items: Vec<String>,
}

#[derive(Default, Serialize, Deserialize)]
struct Totals {
    orders: u64,
    amount_cents: u64,
}

#[derive(Serialize)]
struct Accepted<'a> {
    user: &'a str,
    items: usize,
    total_cents: u64,
}

#[sluicebox_sdk::handler]
fn order(event: Json<NewOrder>, cx: &mut Context) -> Result<(), Failure> {
    let mut totals: Totals = cx.state("totals")?.unwrap_or_default();
    totals.orders += 1;
    totals.amount_cents += event.amount_cents;
    cx.set_state("totals", &totals)?;
    let accepted = Accepted { user: &event.user, items: event.items.len(), total_cents: totals.amount_cents };
    cx.publish("orders.accepted").key(&event.user).json(&accepted)?;
    Ok(())
}
