//! Delayed messages that are cancelled: the one that the operator saw, and no other that was given its number since.

use super::{messages, place, publish, typed, until, until_applied};
use crate::harness::process::{Place, Process};
use serde_json::Value;
use sluicebox::log::Log;
use sluicebox::log::embedded::{EmbeddedLog, Options};

/// The delayed messages as an operator sees them.
fn delayed(place: &Place, host: &Process) -> Vec<Value> {
    let page = typed(place, host, &["handlers", "waiting", "first", "--json"]);
    let page: Value = serde_json::from_str(&page).unwrap();
    page["delayed"].as_array().unwrap().clone()
}

/// The orders to cancel in the log.
async fn orders(place: &Place) -> Vec<Value> {
    let commands = messages(place, "_control.first").await;
    let commands = commands.iter().map(|command| serde_json::from_slice::<Value>(&command.body).unwrap());
    commands.filter(|command| command["command"] == "cancel-delayed").collect()
}

#[tokio::test]
async fn an_order_to_cancel_hits_no_message_that_got_the_number_of_the_one_it_means() {
    let place = place("");
    let host = place.start();
    publish(&host, "ada", "later 3600 the first").await;
    until(&host, "done", 1).await;
    let first = delayed(&place, &host).remove(0);
    typed(&place, &host, &["handlers", "cancel", "first", &format!("{}/{}", first["shard"], first["number"])]);
    host.until("it is gone", async |_| delayed(&place, &host).is_empty()).await;
    let [order] = &orders(&place).await[..] else { panic!("one order") };
    assert_eq!(order["id"], first["id"], "the order names what was seen");
    host.stop();

    // After a restart numbers begin after those that are held.
    let host = place.start();
    publish(&host, "ada", "later 3600 the second").await;
    until(&host, "done", 1).await;
    let second = delayed(&place, &host).remove(0);
    assert_eq!((&second["shard"], &second["number"]), (&first["shard"], &first["number"]), "this is the case");
    assert_ne!(second["id"], first["id"]);
    host.stop();

    // The same order once more, as it comes when whoever gave it did not hear that it was taken.
    let again = messages(&place, "_control.first").await.remove(0);
    let log = EmbeddedLog::open(&place.data(), Options::default()).unwrap();
    let mut command = sluicebox::message::NewMessage::new(again.topic.clone(), again.body.clone());
    log.append(vec![command.clone()]).await.unwrap();
    // And one of an earlier version, which does not name an id, means whatever has the number.
    command.body = serde_json::to_vec(&serde_json::json!({
        "command": "cancel-delayed", "shard": second["shard"], "number": second["number"]
    }))
    .unwrap()
    .into();
    drop(log);
    let host = place.start();
    until_applied(&host, 1).await;
    assert_eq!(delayed(&place, &host), [second]);
    host.stop();
    let log = EmbeddedLog::open(&place.data(), Options::default()).unwrap();
    log.append(vec![command]).await.unwrap();
    drop(log);
    let host = place.start();
    host.until("it is gone", async |_| delayed(&place, &host).is_empty()).await;
}
