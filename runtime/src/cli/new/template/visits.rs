//! Counts the visits of each page, and publishes every new count.

use serde::{Deserialize, Serialize};
use sluicebox_sdk::{Context, Failure, Json};

/// The event, as it comes in on `web.visit`.
#[derive(Deserialize)]
struct Visit {
    page: String,
}

/// Published to `visits.counted`.
#[derive(Serialize, Deserialize)]
struct Counted {
    page: String,
    visits: u64,
}

#[sluicebox_sdk::handler]
fn visits(visit: Json<Visit>, cx: &mut Context) -> Result<(), Failure> {
    // State belongs to the message's key: here the page, see `key` in sluicebox.toml.
    let visits = cx.state::<u64>("visits")?.unwrap_or_default() + 1;
    cx.set_state("visits", &visits)?;
    let page = visit.page.clone();
    cx.publish("visits.counted")
        .key(&visit.page)
        .json(&Counted { page, visits })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use sluicebox_sdk::testing::{TestMessage, run};

    fn visit(page: &str) -> TestMessage {
        TestMessage::json("web.visit", &json!({ "page": page })).key(page)
    }

    #[test]
    fn the_second_visit_of_a_page_is_number_two() {
        let first = run(visits, visit("/home"));
        let second = run(visits, visit("/home").state_of(&first));
        assert_eq!(second.result, Ok(()));
        assert_eq!(second.published[0].topic, "visits.counted");
        let counted: Counted = second.published[0].json().unwrap();
        assert_eq!((counted.page.as_str(), counted.visits), ("/home", 2));
    }

    #[test]
    fn an_event_without_a_page_is_refused_with_the_reason() {
        let message = TestMessage::json("web.visit", &json!({ "path": "/home" })).key("/home");
        let run = run(visits, message);
        let reason = run.result.unwrap_err().to_string();
        assert!(reason.contains("missing field `page`"), "{reason}");
        assert!(run.published.is_empty());
    }
}
