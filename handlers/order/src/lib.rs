//! Takes orders: one accepted order per id, totals per user, nothing for banned users.
//!
//! Events: `{"type": "new_order", "id": …, "args": {"user": …, "amount_cents": …}}` and
//! `{"type": "ban_user", "id": …, "args": {"user": …}}`, on the topics `events.<type>`.

use serde::{Deserialize, Serialize};
use sluicebox_sdk::{Context, Failure, Json};

/// An event as it comes in.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event {
    NewOrder { id: String, args: NewOrder },
    BanUser { args: BanUser },
}

#[derive(Deserialize)]
struct NewOrder {
    user: String,
    amount_cents: u64,
}

#[derive(Deserialize)]
struct BanUser {
    user: String,
}

/// What is kept per user.
#[derive(Default, Serialize, Deserialize)]
struct Account {
    orders: u64,
    amount_cents: u64,
    banned: bool,
}

/// Published to `orders.accepted`.
#[derive(Serialize)]
struct Accepted<'e> {
    order: &'e str,
    user: &'e str,
    amount_cents: u64,
    /// The user's orders so far, this one included.
    orders: u64,
    total_cents: u64,
}

/// Published to `orders.refused`.
#[derive(Serialize)]
struct Refused<'e> {
    order: &'e str,
    user: &'e str,
    reason: &'static str,
}

#[sluicebox_sdk::handler]
fn order(event: Json<Event>, cx: &mut Context) -> Result<(), Failure> {
    let mut account: Account = cx.state("account")?.unwrap_or_default();
    match &*event {
        Event::NewOrder { id, args } if account.banned => {
            cx.count("order_refused", 1)?;
            let refused = Refused { order: id, user: &args.user, reason: "the user is banned" };
            cx.publish("orders.refused").key(&args.user).json(&refused)?;
            return Ok(());
        }
        Event::NewOrder { id, args } => {
            account.orders += 1;
            account.amount_cents = account.amount_cents.saturating_add(args.amount_cents);
            cx.count("new_order_ok", 1)?;
            let accepted = Accepted {
                order: id,
                user: &args.user,
                amount_cents: args.amount_cents,
                orders: account.orders,
                total_cents: account.amount_cents,
            };
            cx.publish("orders.accepted").key(&args.user).json(&accepted)?;
        }
        Event::BanUser { args } => {
            account.banned = true;
            cx.count("ban_user_ok", 1)?;
            cx.publish("orders.banned").key(&args.user).text(&args.user)?;
        }
    }
    cx.set_state("account", &account)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use sluicebox_sdk::testing::{TestMessage, run};

    fn new_order(id: &str) -> TestMessage {
        let event = json!({"type": "new_order", "id": id, "args": {"user": "ada", "amount_cents": 1250}});
        TestMessage::json("events.new_order", &event).key("ada")
    }

    #[test]
    fn an_order_is_accepted_and_added_up() {
        let run = run(order, new_order("o-1"));
        assert_eq!(run.result, Ok(()));
        assert_eq!(run.published[0].topic, "orders.accepted");
        assert_eq!(run.counts["new_order_ok"], 1);
    }

    #[test]
    fn an_unknown_type_is_refused_with_what_was_expected() {
        let run = run(order, TestMessage::json("events.x", &json!({"type": "x", "args": {"user": "ada"}})).key("ada"));
        let reason = run.result.unwrap_err().to_string();
        assert!(reason.contains("unknown variant `x`, expected `new_order` or `ban_user`"), "{reason}");
    }
}
