//! A message as the API shows it.

use crate::message::Message;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

/// A message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MessageView {
    pub offset: u64,
    pub topic: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub time: String,
    pub hops: u8,
    /// Names and values, in order; a name may be there twice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
}

impl From<&Message> for MessageView {
    fn from(message: &Message) -> Self {
        let text = std::str::from_utf8(&message.body).ok().map(str::to_owned);
        Self {
            offset: message.offset.0,
            topic: message.topic.to_string(),
            key: message.key.as_ref().map(ToString::to_string),
            id: message.id.as_deref().map(str::to_owned),
            time: message.time.to_string(),
            hops: message.hops,
            headers: message.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            body_base64: text.is_none().then(|| BASE64_STANDARD.encode(&message.body)),
            body: text,
        }
    }
}
