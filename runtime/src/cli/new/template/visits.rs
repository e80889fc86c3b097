//! Counts the visits of each page, and publishes every new count.

use serde::{Deserialize, Serialize};
use sluicebox_sdk::{Context, Failure, Json};

/// The event, as it comes in on `web.visit`.
#[derive(Deserialize)]
struct Visit {
    page: String,
}

/// Published to `visits.counted`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Counted {
    page: String,
    visits: u64,
}

#[sluicebox_sdk::handler]
fn visits(visit: Json<Visit>, cx: &mut Context) -> Result<(), Failure> {
    // State belongs to the message's key: here the page, see `key` in sluicebox.toml.
    let visits = cx.state::<u64>("visits")?.unwrap_or_default() + 1;
    cx.set_state("visits", &visits)?;
    cx.publish("visits.counted").key(&visit.page).json(&Counted { page: visit.page.clone(), visits })?;
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
        assert_eq!(second.published[0].json::<Counted>().unwrap(), Counted { page: "/home".into(), visits: 2 });
    }

    #[test]
    fn an_event_without_a_page_is_refused_with_the_reason() {
        let run = run(visits, TestMessage::json("web.visit", &json!({ "path": "/home" })).key("/home"));
        assert!(run.result.unwrap_err().to_string().contains("missing field `page`"));
        assert!(run.published.is_empty());
    }
}
