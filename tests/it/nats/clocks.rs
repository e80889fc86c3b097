//! Hosts whose machines' clocks differ go by the log's time: nothing is due early, and nothing waits for a clock that is behind.

use super::says;
use crate::harness::nats::OwnServer;
use crate::harness::process::{Place, Process};

const YEAR_MS: i64 = 365 * 24 * 3_600_000;

async fn delayed(host: &Process) -> usize {
    let page: serde_json::Value = serde_json::from_str(&host.get("/v1/handlers/_delay/waiting").await).unwrap();
    page["delayed"].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn what_is_delayed_on_a_host_whose_clock_is_a_year_off_is_due_by_the_logs_time() {
    for shift_ms in [YEAR_MS, -YEAR_MS] {
        let server = OwnServer::start();
        let place = Place::new("", &[]);
        place.put("shift", shift_ms.to_string());
        let shift = place.path().join("shift").to_str().unwrap().to_owned();
        let url = server.url();
        let settings = format!(
            "namespace = \"t\"\n[log]\nkind = \"nats\"\nurl = \"{url}\"\negress = [\"out.>\"]\n[http]\nlisten = \"127.0.0.1:0\"\n"
        );
        place.put("sluicebox.toml", settings);
        let host = place.start_by(&[], &[("SLUICEBOX_CLOCK_SHIFT", &shift)]);
        assert_ne!(host.url, "", "{}", place.heard());
        let way = if shift_ms > 0 { "365 days ahead of the log's" } else { "365 days behind the log's" };
        says(&place.heard(), &[way, "put the machine's clock right"]);
        for delay in ["1h", "1s"] {
            host.until("it is taken", async |host| {
                let sent =
                    host.client.post(format!("{}/v1/topics/out.late", host.url)).header("sluicebox-delay", delay);
                sent.body("x").send().await.is_ok_and(|answer| answer.status().is_success())
            })
            .await;
        }
        host.until("both are held", async |host| delayed(host).await >= 1).await;
        let done = r#"messages_total{handler="_egress",outcome="done",topic="out.late"}"#;
        host.until("the second goes out", async |host| host.metric(done).await == 1).await;
        assert_eq!(delayed(&host).await, 1, "the first is not due");
        assert!(host.stop().success());
    }
}
