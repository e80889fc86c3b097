//! `ingress` and `egress` in `[log]`: which subjects plain clients share with the log.

use crate::config::declared::host::{LOG_EGRESS, LOG_INGRESS};
use crate::config::findings::Findings;
use crate::config::section::Section;
use crate::config::settings::Edges;
use crate::config::values::{self, PatternAt, plain};
use crate::topic::Pattern;

/// The subjects of the logs themselves.
const LOGS: &str = "sb.>";

pub(super) fn read(findings: &mut Findings<'_>, section: &mut Section<'_>) -> Edges {
    let ingress = section.read(findings, &LOG_INGRESS, values::patterns).unwrap_or_default();
    let egress = section.read(findings, &LOG_EGRESS, values::patterns).unwrap_or_default();
    for (name, patterns) in [("ingress", &ingress), ("egress", &egress)] {
        patterns.iter().for_each(|at| check(findings, name, at));
    }
    for (index, at) in ingress.iter().enumerate() {
        if let Some(other) = ingress[..index].iter().find(|other| other.pattern.overlaps(&at.pattern)) {
            let message = format!("`{}` and `{}` in `ingress` have topics in common", other.pattern, at.pattern);
            let problem = findings.error(at.span.clone(), message);
            problem
                .expected("patterns without a common topic")
                .hint("a stream has each subject once: keep the wider one");
        }
    }
    for at in &egress {
        if let Some(other) = ingress.iter().find(|other| other.pattern.overlaps(&at.pattern)) {
            let message =
                format!("`{}` in `egress` has topics in common with `{}` in `ingress`", at.pattern, other.pattern);
            let problem = findings.error(at.span.clone(), message);
            problem
                .expected("patterns without a common topic")
                .hint("what goes out would come in again, for ever: let each side have topics of its own");
        }
    }
    Edges { ingress: plain(ingress), egress: plain(egress) }
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
