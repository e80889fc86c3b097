//! Topics and patterns: parsed once at the edge, cheap to clone and to match.
//!
//! A topic is 1 to 16 tokens of `[A-Za-z0-9_-]{1,64}` joined by dots. Topics whose first token begins with `_` are the
//! host's own and cannot be published to by users. A pattern may use `*` for one token and a last `>` for one or more.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Most tokens in a topic or pattern.
pub const TOKENS_MAX: usize = 16;
/// Most bytes in one token.
pub const TOKEN_BYTES_MAX: usize = 64;

/// A valid, concrete topic such as `orders.created`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

/// A valid pattern such as `orders.*` or `events.>`; a topic is a pattern that matches itself.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(Arc<str>);

/// Why a text is not a topic or a pattern; says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    #[error("a topic must not be empty: write tokens joined by dots, such as `orders.created`")]
    Empty,
    #[error("`{topic}` has {tokens} tokens, at most {TOKENS_MAX} are allowed")]
    TooManyTokens { topic: String, tokens: usize },
    #[error("`{topic}` has an empty token: remove the leading, trailing or double dot")]
    EmptyToken { topic: String },
    #[error("token `{token}` of `{topic}` is longer than {TOKEN_BYTES_MAX} bytes")]
    TokenTooLong { topic: String, token: String },
    #[error("token `{token}` of `{topic}` has a character other than A-Z a-z 0-9 _ -")]
    BadCharacter { topic: String, token: String },
    #[error("`{topic}` is a pattern, a concrete topic is needed here: `*` and `>` cannot be published to")]
    Wildcard { topic: String },
    #[error("`>` must be the last token of `{topic}`")]
    RestNotLast { topic: String },
    #[error("`{topic}` begins with `_`: such topics belong to the host")]
    Reserved { topic: String },
}

fn check(text: &str, wildcards: bool) -> Result<(), TopicError> {
    let topic = || text.chars().take(200).collect::<String>();
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    let tokens = text.split('.').count();
    if tokens > TOKENS_MAX {
        return Err(TopicError::TooManyTokens { topic: topic(), tokens });
    }
    for (index, token) in text.split('.').enumerate() {
        match token {
            "" => return Err(TopicError::EmptyToken { topic: topic() }),
            "*" | ">" if !wildcards => return Err(TopicError::Wildcard { topic: topic() }),
            ">" if index + 1 != tokens => return Err(TopicError::RestNotLast { topic: topic() }),
            "*" | ">" => {}
            _ if token.len() > TOKEN_BYTES_MAX => {
                return Err(TopicError::TokenTooLong { topic: topic(), token: token.chars().take(80).collect() });
            }
            _ if !token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') => {
                return Err(TopicError::BadCharacter { topic: topic(), token: token.into() });
            }
            _ => {}
        }
    }
    Ok(())
}

impl Topic {
    /// Parses a concrete topic, the host's own included.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        check(text, false)?;
        Ok(Self(text.into()))
    }

    /// Parses a topic that a user or a guest may publish to: the host's own (`_…`) are refused.
    pub fn parse_public(text: &str) -> Result<Self, TopicError> {
        if text.starts_with('_') {
            return Err(TopicError::Reserved { topic: text.chars().take(200).collect() });
        }
        Self::parse(text)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is one of the host's own topics.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('_')
    }

    /// The tokens, in order.
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }
}

impl TryFrom<String> for Pattern {
    type Error = TopicError;

    fn try_from(text: String) -> Result<Self, TopicError> {
        Self::parse(&text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.as_str().to_owned()
    }
}

impl Pattern {
    /// Parses a pattern.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        check(text, true)?;
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `topic` is one of those this pattern names. The host's own topics are never meant by a wildcard in the
    /// first place: who follows everything does not want the host's own bookkeeping.
    pub fn matches(&self, topic: &Topic) -> bool {
        if topic.is_reserved() && self.0.starts_with(['*', '>']) {
            return false;
        }
        let mut names = topic.0.split('.');
        for token in self.0.split('.') {
            match (token, names.next()) {
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (token, Some(name)) if token == name => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }

    /// Whether some topic matches both patterns.
    pub fn overlaps(&self, other: &Pattern) -> bool {
        let (mut ours, mut theirs) = (self.0.split('.'), other.0.split('.'));
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return true,
                (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
                (Some(a), Some(b)) if a == "*" || b == "*" || a == b => {}
                _ => return false,
            }
        }
    }
}

impl From<&Topic> for Pattern {
    fn from(topic: &Topic) -> Self {
        Self(topic.0.clone())
    }
}

macro_rules! text_impls {
    ($type:ident) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}
text_impls!(Topic);
text_impls!(Pattern);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check_match(pattern: &str, topic: &str, expected: bool) {
        let (pattern, topic) = (Pattern::parse(pattern).unwrap(), Topic::parse(topic).unwrap());
        assert_eq!(pattern.matches(&topic), expected, "{pattern} against {topic}");
    }

    #[test]
    fn patterns_match_by_token() {
        check_match("a.b", "a.b", true);
        check_match("a.b", "a", false);
        check_match("a", "a.b", false);
        check_match("a.*", "a.b", true);
        check_match("a.*", "a.b.c", false);
        check_match("*.b", "a.b", true);
        check_match("a.>", "a.b.c", true);
        check_match("a.>", "a", false);
        check_match(">", "a", true);
    }

    #[test]
    fn bad_topics_say_what_is_wrong() {
        let many = vec!["a"; 17].join(".");
        let long = "x".repeat(65);
        for (text, expected) in [
            ("", "must not be empty"),
            ("a..b", "empty token"),
            (".a", "empty token"),
            ("a b", "character other than"),
            ("a.*", "is a pattern"),
            (&many, "17 tokens"),
            (&long, "longer than 64"),
        ] {
            let error = Topic::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
        assert!(Pattern::parse("a.>.b").unwrap_err().to_string().contains("last token"));
        assert!(Topic::parse_public("_control").unwrap_err().to_string().contains("belong to the host"));
        assert!(Topic::parse("_control").is_ok());
    }

    fn pattern_text() -> impl Strategy<Value = String> {
        (proptest::collection::vec(prop_oneof!["[ab]", Just("*".to_owned())], 1..4), any::<bool>()).prop_map(
            |(mut tokens, rest)| {
                if rest {
                    tokens.push(">".to_owned());
                }
                tokens.join(".")
            },
        )
    }

    /// Every topic over {a, b} up to 5 tokens: small enough to enumerate, deep enough for patterns of up to 4.
    fn topics() -> Vec<Topic> {
        let mut all: Vec<String> = vec![];
        let mut last = vec![String::new()];
        for _ in 0..5 {
            last = last
                .iter()
                .flat_map(|t| ["a", "b"].map(|x| if t.is_empty() { x.to_owned() } else { format!("{t}.{x}") }))
                .collect();
            all.extend(last.iter().cloned());
        }
        all.iter().map(|t| Topic::parse(t).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn patterns_overlap_exactly_when_a_topic_matches_both(a in pattern_text(), b in pattern_text()) {
            let (a, b) = (Pattern::parse(&a).unwrap(), Pattern::parse(&b).unwrap());
            let both = topics().iter().any(|t| a.matches(t) && b.matches(t));
            prop_assert_eq!(a.overlaps(&b), both);
            prop_assert_eq!(b.overlaps(&a), both);
        }

        #[test]
        fn any_text_parses_or_is_refused_without_panic(text in ".{0,100}") {
            if let Ok(topic) = Topic::parse(&text) {
                prop_assert!(Pattern::parse(&text).unwrap().matches(&topic));
            }
        }
    }
}
