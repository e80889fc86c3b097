//! The trace a message belongs to: W3C Trace Context, level 1 (<https://www.w3.org/TR/trace-context/>).

use crate::message::Headers;
use std::fmt;

/// The header that carries it; an output without one inherits its input's.
pub const HEADER: &str = "traceparent";

/// The header beside it that carries what tracing systems add; it goes where the other goes.
pub const STATE_HEADER: &str = "tracestate";
/// A longer `tracestate` is not carried on, as the standard allows. Bytes.
const STATE_BYTES_MAX: usize = 512;
/// Members that the standard allows.
const STATE_MEMBERS_MAX: usize = 32;

/// What an output inherits, beside [`Trace::of`] its input: the `tracestate`, whole or not at all.
pub fn state_of(headers: &Headers) -> Option<String> {
    // Several headers mean one list.
    let states = || headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(STATE_HEADER));
    let members =
        || states().flat_map(|(_, value)| value.split(',')).map(str::trim).filter(|member| !member.is_empty());
    let bytes: usize = members().map(|member| member.len() + 1).sum();
    let is_valid = |member: &str| member.contains('=') && member.bytes().all(|b| (0x20..0x7f).contains(&b));
    if bytes == 0 || bytes - 1 > STATE_BYTES_MAX || members().count() > STATE_MEMBERS_MAX || !members().all(is_valid) {
        return None;
    }
    Some(members().collect::<Vec<_>>().join(","))
}

/// The content of a `traceparent` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Trace {
    /// Names the whole trace; never 0.
    pub id: u128,
    /// The span that caused what bears the header; never 0.
    pub parent: u64,
    pub flags: u8,
}

impl Trace {
    /// The trace that these headers name. A header that is not valid is as good as none, as the standard asks.
    pub fn of(headers: &Headers) -> Option<Self> {
        Self::parse(headers.get(HEADER)?)
    }

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let mut fields = text.split('-');
        let version = hex(fields.next()?, 2)?;
        let (id, parent, flags) = (fields.next()?, fields.next()?, fields.next()?);
        // Later versions may add fields; 255 is no version.
        if version == 0xff || (version == 0 && fields.next().is_some()) {
            return None;
        }
        let (id, parent) = (hex(id, 32)?, u64::try_from(hex(parent, 16)?).ok()?);
        let flags = u8::try_from(hex(flags, 2)?).ok()?;
        (id != 0 && parent != 0).then_some(Self { id, parent, flags })
    }
}

/// As in the header.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.id, self.parent, self.flags)
    }
}

/// So many digits, lower case.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let valid = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if valid { u128::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_trace_is_written_as_it_was_read() {
        let headers = Headers::new(vec![("TraceParent".into(), TRACE.into())]);
        let trace = Trace::of(&headers).unwrap();
        assert_eq!((trace.parent, trace.flags, trace.to_string()), (0x00f0_67aa_0ba9_02b7, 1, TRACE.to_owned()));
    }

    #[track_caller]
    fn check_state(values: &[&str], expected: Option<&str>) {
        let pairs = values.iter().map(|value| ("TraceState".to_owned(), (*value).to_owned())).collect();
        assert_eq!(state_of(&Headers::new(pairs)).as_deref(), expected, "{values:?}");
    }

    #[test]
    fn a_trace_state_is_carried_on_whole_or_not_at_all() {
        check_state(&[], None);
        check_state(&["a=1, b=2", "c=3"], Some("a=1,b=2,c=3"));
        check_state(&["a=1,,"], Some("a=1"));
        check_state(&["no member"], None);
        check_state(&["a=1\n"], Some("a=1"));
        check_state(&["a=\u{1}"], None);
        let long = format!("a={}", "x".repeat(510));
        check_state(&[&long], Some(&long));
        check_state(&[&long, "b=1"], None);
        let many = vec!["a=1"; 33];
        check_state(&many[..32], Some(&many[..32].join(",")));
        check_state(&many, None);
    }

    #[test]
    fn what_the_standard_calls_invalid_is_no_trace() {
        let zero_id = format!("00-{:032}-00f067aa0ba902b7-01", 0);
        let upper = TRACE.to_uppercase();
        let longer = format!("{TRACE}-00");
        for text in ["", "00", &zero_id, &upper, &longer, &TRACE.replacen("00", "ff", 1), &TRACE[..54]] {
            assert_eq!(Trace::parse(text), None, "{text:?}");
        }
        // A later version may say more.
        assert!(Trace::parse(&longer.replacen("00", "01", 1)).is_some());
    }
}
