//! Tells users which of their alarms are active, when asked: each change of status once, the oldest first.
//!
//! `AlarmStatusChanged` `{"AlarmID", "UserID", "Status": "CLEARED" | "WARNING" | "CRITICAL", "ChangedAt": RFC 3339}` is
//! remembered; `SendAlarmDigest` `{"UserID"}` publishes `AlarmDigest` `{"UserID", "ActiveAlarms": [{"AlarmID", "Status",
//! "LatestChangedAt"}]}` with what changed since the last one, or nothing. `UserId` and `AlarmId` are accepted too.
//!
//! The events come late, twice and in any order. [`alarms`] has the rules and the bounds of a user's state.

mod alarms;
mod event;
mod instant;

use alarms::{ActiveAlarm, Alarms, Taken};
use event::Object;
use serde::Serialize;
use sluicebox_sdk::{Context, Failure, Json};

/// Published to `AlarmDigest`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Digest<'e> {
    #[serde(rename = "UserID")]
    user: &'e str,
    active_alarms: Vec<ActiveAlarm>,
}

#[sluicebox_sdk::handler]
fn alarm(event: Json<Object>, cx: &mut Context) -> Result<(), Failure> {
    match cx.topic() {
        "AlarmStatusChanged" => change(&event, cx),
        "SendAlarmDigest" => digest(&event, cx),
        other => Err(Failure::reject(format_args!(
            "topic `{other}` is neither AlarmStatusChanged nor SendAlarmDigest: set `subscribe` to these two"
        ))),
    }
}

fn change(event: &Object, cx: &Context) -> Result<(), Failure> {
    let change = event::change(event)?;
    let mut alarms = alarms_of(change.user, cx)?;
    match alarms.take(&change).map_err(Failure::reject)? {
        Taken::Yes => {
            cx.set_state("alarms", &alarms)?;
            cx.count("change_ok", 1)?;
        }
        Taken::Late => cx.count("change_late", 1)?,
    }
    Ok(())
}

fn digest(event: &Object, cx: &Context) -> Result<(), Failure> {
    let user = event::user(event)?;
    let mut alarms = alarms_of(user, cx)?;
    let active_alarms = alarms.digest();
    if active_alarms.is_empty() {
        cx.count("digest_empty", 1)?;
        return Ok(());
    }
    cx.set_state("alarms", &alarms)?;
    cx.count("digest_ok", 1)?;
    cx.publish("AlarmDigest").key(user).json(&Digest { user, active_alarms })?;
    Ok(())
}

/// The user's alarms, which are the state only if the messages are keyed by the user.
fn alarms_of(user: &str, cx: &Context) -> Result<Alarms, Failure> {
    if cx.key() != Some(user) {
        // A fault of the settings, not of the message: it is kept until they are right.
        return Err(Failure::retry(r#"the key is not the user: set `key = ["/UserID", "/UserId"]`"#));
    }
    Ok(cx.state("alarms")?.unwrap_or_default())
}

#[cfg(test)]
mod tests;
