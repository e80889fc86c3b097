//! `ingress`, `ingress_channels` and `egress` in `[log]`: which subjects and channels plain clients share with the log.

use crate::config::declared::host::{LOG_CHANNELS, LOG_EGRESS, LOG_INGRESS};
use crate::config::findings::Findings;
use crate::config::section::Section;
use crate::config::settings::Edges;
use crate::config::values::{self, PatternAt, plain};
use crate::topic::Pattern;

/// The subjects of the logs themselves.
const LOGS: &str = "sb.>";

pub(super) fn read(findings: &mut Findings<'_>, section: &mut Section<'_>) -> Edges {
    let ingress = section.read(findings, &LOG_INGRESS, values::patterns).unwrap_or_default();
    let channels = section.read(findings, &LOG_CHANNELS, values::patterns).unwrap_or_default();
    let egress = section.read(findings, &LOG_EGRESS, values::patterns).unwrap_or_default();
    for (name, patterns) in [("ingress", &ingress), ("ingress_channels", &channels), ("egress", &egress)] {
        patterns.iter().for_each(|at| check(findings, name, at));
    }
    for (name, patterns, hint) in [
        ("ingress", &ingress, "a stream has each subject once: keep the wider one"),
        ("ingress_channels", &channels, "each message would come once for both: keep the wider one"),
    ] {
        for (index, at) in patterns.iter().enumerate() {
            if let Some(other) = patterns[..index].iter().find(|other| other.pattern.overlaps(&at.pattern)) {
                let message = format!("`{}` and `{}` in `{name}` have topics in common", other.pattern, at.pattern);
                let problem = findings.error(at.span.clone(), message);
                problem.expected("patterns without a common topic").hint(hint);
            }
        }
        for at in &egress {
            if let Some(other) = patterns.iter().find(|other| other.pattern.overlaps(&at.pattern)) {
                let message =
                    format!("`{}` in `egress` has topics in common with `{}` in `{name}`", at.pattern, other.pattern);
                let problem = findings.error(at.span.clone(), message);
                problem
                    .expected("patterns without a common topic")
                    .hint("what goes out would come in again, for ever: let each side have topics of its own");
            }
        }
    }
    Edges { ingress: plain(ingress), channels: plain(channels), egress: plain(egress) }
}

fn check(findings: &mut Findings<'_>, name: &str, PatternAt { pattern, span }: &PatternAt) {
    let is_logs = Pattern::parse(LOGS).is_ok_and(|logs| logs.overlaps(pattern));
    if !is_logs && !pattern.as_str().starts_with('_') {
        return;
    }
    let (whose, hint) = match pattern.as_str().starts_with(['*', '>']) {
        true => ("meets the subjects of the logs, `sb.>`", "name the first token, such as `orders.>`"),
        false => ("is the host's or the server's own", "name topics of your own, such as `orders.>`"),
    };
    let problem = findings.error(span.clone(), format!("`{pattern}` in `{name}` {whose}"));
    problem.expected("topics that begin neither with `sb.` nor with `_`").hint(hint);
}
