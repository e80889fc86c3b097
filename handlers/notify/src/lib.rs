//! Tells users what became of their orders: one notification per accepted order.
//!
//! Listens to the same events as `order`, with a dedup of its own, and to what `order` accepts.

use serde::{Deserialize, Serialize};
use sluicebox_sdk::{Context, Failure, FromMessage, Json, Message};

/// The part of an event that matters here.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event {
    NewOrder {},
    BanUser {},
}

/// What `order` publishes to `orders.accepted`.
#[derive(Deserialize)]
struct Accepted {
    order: String,
    user: String,
    amount_cents: u64,
}

/// Published to `notifications.order`.
#[derive(Serialize)]
struct Notification {
    user: String,
    text: String,
}

#[sluicebox_sdk::handler]
fn notify(message: Message, cx: &mut Context) -> Result<(), Failure> {
    if message.topic == "orders.accepted" {
        let Json(accepted) = Json::<Accepted>::from_message(&message)?;
        let (euros, cents) = (accepted.amount_cents / 100, accepted.amount_cents % 100);
        let text = format!("Your order {} over {euros}.{cents:02} was accepted.", accepted.order);
        cx.count("notification_ok", 1)?;
        cx.publish("notifications.order")
            .key(&accepted.user)
            .json(&Notification { user: accepted.user.clone(), text })?;
        return Ok(());
    }
    match Json::from_message(&message)?.0 {
        Event::NewOrder {} => cx.count("new_order_ok", 1)?,
        Event::BanUser {} => cx.count("ban_user_ok", 1)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use sluicebox_sdk::testing::{TestMessage, run};

    #[test]
    fn an_accepted_order_is_told_to_its_user() {
        let accepted = json!({"order": "o-1", "user": "ada", "amount_cents": 1250});
        let run = run(notify, TestMessage::json("orders.accepted", &accepted).key("ada"));
        assert_eq!(run.result, Ok(()));
        let text = String::from_utf8(run.published[0].body.clone()).unwrap();
        assert!(text.contains("Your order o-1 over 12.50 was accepted."), "{text}");
    }

    #[test]
    fn both_events_are_counted() {
        for (kind, counter) in [("new_order", "new_order_ok"), ("ban_user", "ban_user_ok")] {
            let run = run(notify, TestMessage::json("events.x", &json!({"type": kind, "args": {}})).key("ada"));
            assert_eq!((run.result, run.counts[counter]), (Ok(()), 1));
        }
    }
}
