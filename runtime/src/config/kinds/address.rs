//! An address to listen on.

use crate::config::findings::Findings;
use crate::config::item::Item;
use crate::config::setting::{Kind, Parse};
use crate::config::values;
use std::net::{IpAddr, SocketAddr};

/// Where HTTP is served unless the settings say otherwise.
pub(in crate::config) const PORT_DEFAULT: u16 = 8080;

/// An address to listen on.
pub(in crate::config) struct Address;

impl Kind for Address {
    type Value = SocketAddr;

    fn expected(&self) -> String {
        "an address and a port, such as \"127.0.0.1:8080\"".into()
    }

    fn show(&self, address: &SocketAddr) -> String {
        format!("\"{address}\"")
    }
}

impl Parse for Address {
    fn parse(&self, findings: &mut Findings<'_>, item: &Item<'_>) -> Option<SocketAddr> {
        let text = values::text(findings, item, &self.expected())?;
        match parse_listen(text) {
            Ok(address) => Some(address),
            Err(hint) => {
                values::refused(findings, item, &format!("`{text}` is not an address to listen on"))
                    .expected(self.expected())
                    .hint(hint);
                None
            }
        }
    }
}

/// The address, or a hint.
pub(in crate::config) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    numeric.parse().map_err(|_| {
        if let Some(port) = text.strip_prefix(':') {
            format!("write `127.0.0.1:{port}`, or `0.0.0.0:{port}` for every interface")
        } else if text.parse::<u16>().is_ok() {
            format!("write `127.0.0.1:{text}`")
        } else if let Ok(ip) = text.parse::<IpAddr>() {
            format!("add a port: `{}`", SocketAddr::new(ip, PORT_DEFAULT))
        } else if text.is_empty() {
            "unset it, or write such as `127.0.0.1:8080`".into()
        } else if text.contains("://") {
            "leave the scheme out".into()
        } else {
            "host names are not looked up: write the numeric address".into()
        }
    })
}
