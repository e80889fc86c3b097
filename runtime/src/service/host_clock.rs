//! The host's time: where it begins, and what people are told of the machine's clock.
//!
//! A start compares the machine's clock with where the host's time was left: with the log's last time, and with the host that
//! ran before in the same boot of the machine, if one did. Within a bound the host's time goes on where it was; beyond it the
//! host does not start unless an operator takes the clock as it is. While it runs a step of the clock changes nothing, and is
//! said. [`crate::skew`] says why.

use super::StartError;
use super::host_data::HostData;
use crate::clock::{self, Timestamp};
use crate::config::HostSettings;
use crate::http::Readiness;
use crate::log::embedded::{HostBoot, Opening};
use crate::sandbox::atomic_file;
use crate::skew::{Left, Skew, WARN_ABOVE};
use crate::telemetry::{ClockMetrics, events};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Between two looks at the machine's clock.
const LOOK: Duration = Duration::from_secs(1);

/// What a host leaves for the next one of the same boot, as it is written.
#[derive(Serialize, Deserialize)]
struct Note {
    boot_id: String,
    /// In milliseconds since 1970.
    boot_ms: u64,
}

/// Sets where the host's time begins, before anything is dated. Blocks on the disk.
pub(super) fn begin(opening: &Opening, host_data: &HostData, settings: &HostSettings) -> Result<(), StartError> {
    shift_for_tests();
    let (file, boot_id) = (host_data.clock(), std::fs::read_to_string(BOOT_ID).unwrap_or_default());
    let last = opening.last_time().map_err(StartError::ClockLog)?;
    let (accepted, noted) = (opening.accepted().map_err(StartError::ClockLog)?, read(&file));
    // A host that accepted the clock and died had not written its own note yet: that one is of before.
    let boot = boot_of(accepted.as_ref(), &boot_id).or(boot_of(noted.as_ref(), &boot_id));
    let (wall, since_boot) = (clock::now(), clock::since_boot());
    let compared = Left { last, boot }.compare(wall, since_boot);
    let (skew, goes_on_at) = (compared.skew, compared.goes_on_at);
    let begin = match compared.redate() {
        None => goes_on_at,
        Some(redate) if settings.accept_clock => {
            let accepted = HostBoot { boot_id: boot_id.clone(), boot: wall.before(since_boot) };
            opening.redate(&redate, &accepted).map_err(StartError::ClockLog)?;
            tracing::warn!("{}; it is taken as it is, and the times in the log were moved along", describe(wall, skew));
            wall
        }
        Some(_) if skew.by() > settings.clock_skew_max => {
            return Err(StartError::Clock {
                described: describe(wall, skew),
                skew_max: about(settings.clock_skew_max),
            });
        }
        Some(_) => {
            tracing::warn!("{}: {GOES_ON}", describe(wall, skew));
            goes_on_at
        }
    };
    clock::begin_at(begin);
    match write(&file, &HostBoot { boot_id, boot: begin.before(since_boot) }) {
        Ok(()) => opening.accepted_is_noted().map_err(StartError::ClockLog)?,
        Err(error) => tracing::warn!(
            path = %file.display(), %error,
            "cannot keep where the host's time is: after a restart a clock that was set ahead is not noticed"
        ),
    }
    Ok(())
}

/// Where hosts share a log, the host's time is that of the log, before anything is dated: so what one of them dates is the same
/// time for another one that takes it over, whatever their machines' clocks say.
pub(super) fn begin_with(log: Timestamp, settings: &HostSettings) {
    shift_for_tests();
    if settings.accept_clock {
        tracing::warn!(
            "`--accept-clock` has no meaning here: hosts go by the clock of the log's server, and no machine's counts"
        );
    }
    let wall = clock::now();
    let skew = Skew::of(wall, log);
    if skew != Skew::None {
        tracing::warn!("the machine's clock says {wall}, {} the log's: {GOES_BY_THE_LOG}", way(skew));
    }
    clock::begin_at(log);
}

/// The host's time when the machine booted, as far as it is known of this boot.
fn boot_of(known: Option<&HostBoot>, boot_id: &str) -> Option<Timestamp> {
    // Where the machine does not name its boots no two are known to be the same.
    known.filter(|known| !boot_id.is_empty() && known.boot_id == boot_id).map(|known| known.boot)
}

pub(super) const GOES_ON: &str = "the host goes on by its own time; to take the clock as it is, restart with \
                                  `sluicebox run --accept-clock`";
pub(super) const GOES_BY_THE_LOG: &str = "the host goes by the log's time: put the machine's clock right";

fn read(file: &Path) -> Option<HostBoot> {
    let Note { boot_id, boot_ms } = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    Some(HostBoot { boot_id, boot: Timestamp(boot_ms) })
}

fn write(file: &Path, host: &HostBoot) -> std::io::Result<()> {
    let temporary: PathBuf = file.with_extension("tmp");
    let note = Note { boot_id: host.boot_id.clone(), boot_ms: host.boot.0 };
    atomic_file::write(file, &temporary, &serde_json::to_vec(&note)?)
}

/// Tells people about the machine's clock, as it changes, and what they can do. Ends when it is dropped.
pub(super) async fn watch(metrics: ClockMetrics, readiness: Readiness, goes_on: &'static str) {
    let mut looks = tokio::time::interval(LOOK);
    let mut told = Skew::None;
    loop {
        looks.tick().await;
        shift_for_tests();
        let (wall, host) = (clock::now(), clock::steady());
        let skew = Skew::of(wall, host);
        metrics.show(wall, host);
        // A clock that is off and stays so is said once.
        if changed(told, skew) {
            told = skew;
            let described = (skew != Skew::None).then(|| format!("{}: {goes_on}", describe(wall, skew)));
            events::clock(described.as_deref());
            readiness.notice("clock", described);
        }
    }
}

fn changed(told: Skew, found: Skew) -> bool {
    match (told, found) {
        (Skew::None, Skew::None) => false,
        (Skew::Ahead(told), Skew::Ahead(found)) | (Skew::Behind(told), Skew::Behind(found)) => {
            told.abs_diff(found) > WARN_ABOVE
        }
        _ => true,
    }
}

fn describe(wall: Timestamp, skew: Skew) -> String {
    format!("the machine's clock says {wall}, {} the host's time", way(skew))
}

fn way(skew: Skew) -> String {
    format!("{} {}", about(skew.by()), if matches!(skew, Skew::Ahead(_)) { "ahead of" } else { "behind" })
}

/// A duration for people, in the unit that fits.
fn about(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..120 => format!("{:.1} s", duration.as_secs_f64()),
        120..7200 => format!("{} min", (seconds + 30) / 60),
        7200..172_800 => format!("{} h", (seconds + 1800) / 3600),
        _ => format!("{} days", (seconds + 43_200) / 86_400),
    }
}

/// `SLUICEBOX_CLOCK_SHIFT=FILE` sets the clock of this process by as many milliseconds as the file says, at each look.
/// Builds with debug assertions only.
#[cfg(debug_assertions)]
fn shift_for_tests() {
    let file = std::env::var_os("SLUICEBOX_CLOCK_SHIFT");
    if let Some(ms) = file.and_then(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok()) {
        clock::shift(ms);
    }
}

#[cfg(not(debug_assertions))]
fn shift_for_tests() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_without_a_name_is_never_the_one_before() {
        let known = |boot_id: &str| HostBoot { boot_id: boot_id.into(), boot: Timestamp(7) };
        assert_eq!(boot_of(Some(&known("a")), "a"), Some(Timestamp(7)));
        assert_eq!(boot_of(Some(&known("a")), "b"), None);
        assert_eq!(boot_of(Some(&known("")), ""), None);
        assert_eq!(boot_of(None, "a"), None);
    }
}
