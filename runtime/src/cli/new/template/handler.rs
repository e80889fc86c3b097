//! Counts the events of each user, and publishes every new count: the place to write what `{{name}}` should do.

use serde::{Deserialize, Serialize};
use sluicebox_sdk::{Context, Failure, Json};

/// The event, as it comes in on `{{name}}.event`.
#[derive(Deserialize)]
struct Event {
    user: String,
}

/// Published to `{{name}}.counted`.
#[derive(Serialize, Deserialize)]
struct Counted {
    user: String,
    events: u64,
}

#[sluicebox_sdk::handler]
fn handle(event: Json<Event>, cx: &mut Context) -> Result<(), Failure> {
    // State belongs to the message's key: here the user, see `key` in sluicebox.toml.
    let events = cx.state::<u64>("events")?.unwrap_or_default() + 1;
    cx.set_state("events", &events)?;
    let user = event.user.clone();
    cx.publish("{{name}}.counted")
        .key(&event.user)
        .json(&Counted { user, events })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use sluicebox_sdk::testing::{TestMessage, run};

    #[test]
    fn the_first_event_of_a_user_is_number_one() {
        let event = TestMessage::json("{{name}}.event", &json!({ "user": "ada" })).key("ada");
        let run = run(handle, event);
        assert_eq!(run.result, Ok(()));
        let counted: Counted = run.published[0].json().unwrap();
        assert_eq!((counted.user.as_str(), counted.events), ("ada", 1));
    }
}
