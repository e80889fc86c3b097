//! Talks to a running host over HTTP, blocking: a command does one thing at a time.

use super::failure::{Exit, Failure};
use super::output::note;
use crate::config;
use clap::Args;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::http::Response;
use ureq::typestate::WithBody;
use ureq::{Agent, Body, RequestBuilder, SendBody};

/// Where `sluicebox run` listens unless told otherwise.
pub(super) const URL_DEFAULT: &str = "http://127.0.0.1:8080";
/// A host that does not accept by then is not reachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A quiet tail is not silent: the host shows every 15 s that it is alive.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Most bytes of an answer (64 MiB): a page of dead letters may hold large bodies.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Holds the host's token where no file is named. No flag does: command lines can be seen by others.
const TOKEN_VARIABLE: &str = "SLUICEBOX_TOKEN";
const TOKEN_FILE_VARIABLE: &str = "SLUICEBOX_TOKEN_FILE";
const URL_VARIABLE: &str = "SLUICEBOX_URL";
const CONFIG_VARIABLE: &str = "SLUICEBOX_CONFIG";
/// What may stand in a path as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'-').remove(b'*');

/// Which host to talk to.
#[derive(Clone, Debug, Args)]
pub(super) struct HostArgs {
    /// The running host; unless given, where the settings file listens, or http://127.0.0.1:8080
    #[arg(long, value_name = "URL", env = URL_VARIABLE)]
    url: Option<String>,
    /// A file with the host's token, when it wants one; without, the token itself may be in SLUICEBOX_TOKEN, or it is that of
    /// the settings file
    #[arg(long, value_name = "FILE", env = TOKEN_FILE_VARIABLE)]
    token_file: Option<PathBuf>,
    /// The settings file of the host: where it listens, its token, and where the data is when no host runs; sluicebox.toml
    /// unless given. Typed here it wins over the variables of the other two
    #[arg(long, short, value_name = "FILE", env = CONFIG_VARIABLE)]
    config: Option<PathBuf>,
}

impl HostArgs {
    /// Whether a host was named: then it and no other is meant.
    pub(super) fn is_named(&self) -> bool {
        self.named_url().is_some()
    }

    /// The settings file that is meant, whether it is there or not.
    pub(super) fn config(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| config::FILE_NAME.into())
    }

    /// Whether the settings file was typed, so that it wins over variables.
    fn is_config_typed(&self) -> bool {
        self.config.as_ref().is_some_and(|config| variable(CONFIG_VARIABLE).map(PathBuf::from).as_ref() != Some(config))
    }

    fn named_url(&self) -> Option<String> {
        let is_variable = || self.url == variable(URL_VARIABLE);
        self.url.clone().filter(|_| !(self.is_config_typed() && is_variable()))
    }

    /// What the settings say, as far as they matter here.
    fn settings(&self) -> Result<FromSettings, Failure> {
        let file = self.config();
        match (FromSettings::read(&file), self.is_config_typed()) {
            (Some(settings), _) => Ok(settings),
            // Nobody typed it: it may be missing or broken. What is broken once said where the host listens.
            (None, false) => {
                if self.named_url().is_none() && file.exists() {
                    note(format!(
                        "`{}` cannot be read (`sluicebox check` says why), so the host is looked for at {URL_DEFAULT}: \
                         name it with --url",
                        file.display()
                    ));
                }
                Ok(FromSettings::default())
            }
            (None, true) => {
                let error = format!(
                    "failed to read the settings `{}`, which say which host to ask: `sluicebox check -c {0}` says what \
                     is wrong",
                    file.display()
                );
                Err(Failure::new(Exit::BadSettings, anyhow::Error::msg(error)))
            }
        }
    }

    /// Another host of the same settings.
    pub(super) fn at(&self, url: &str) -> Self {
        Self { url: Some(url.to_owned()), ..self.clone() }
    }

    #[cfg(test)]
    pub(super) fn to(url: Option<&str>) -> Self {
        Self { url: url.map(Into::into), token_file: None, config: None }
    }

    #[cfg(test)]
    pub(super) fn of(config: impl Into<PathBuf>) -> Self {
        Self { url: None, token_file: None, config: Some(config.into()) }
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Where a host listens that runs on a settings file, and the token that it wants. What else is wrong with the file is not
/// a client's business.
#[derive(Default)]
struct FromSettings {
    url: Option<String>,
    token_file: Option<PathBuf>,
}

impl FromSettings {
    /// `None`: there is no such file, or it is no TOML.
    fn read(file: &Path) -> Option<Self> {
        let settings: toml::Table = std::fs::read_to_string(file).ok()?.parse().ok()?;
        let http = settings.get("http");
        let text = |name: &str| http.and_then(|http| http.get(name)?.as_str());
        let directory = file.parent().unwrap_or(Path::new(""));
        Some(Self {
            url: text("listen").and_then(url_of),
            token_file: text("token_file").map(|token| directory.join(token)),
        })
    }
}

fn url_of(listen: &str) -> Option<String> {
    let listen: SocketAddr = listen.parse().ok()?;
    let host = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    // With port 0 nobody can know.
    (listen.port() != 0).then(|| format!("http://{}", SocketAddr::new(host, listen.port())))
}

/// A host, not yet known to run.
pub(super) struct Client {
    agent: Agent,
    url: String,
    authorization: Option<String>,
}

impl Client {
    pub(super) fn new(args: &HostArgs) -> Result<Self, Failure> {
        let (named, settings) = (args.named_url(), args.settings()?);
        // A host that was named otherwise must not be shown the token of another one.
        let own_token = settings.token_file.filter(|_| named.is_none() || args.is_config_typed());
        let url = named.or(settings.url).unwrap_or_else(|| URL_DEFAULT.to_owned());
        let url = url.trim_end_matches('/');
        if url.starts_with("https://") {
            return Err(Failure::usage(format!(
                "`{url}` needs TLS, which sluicebox does not speak: use http://, or a tunnel to the host"
            )));
        }
        if url.strip_prefix("http://").is_none_or(str::is_empty) {
            return Err(Failure::usage(format!(
                "`{url}` is not the URL of a host: write such as http://127.0.0.1:8080"
            )));
        }
        // Those of a settings file that was typed win over the variables.
        let is_own = own_token.is_some() && args.is_config_typed();
        let is_variable = args.token_file == variable(TOKEN_FILE_VARIABLE).map(PathBuf::from);
        let token_file = args.token_file.clone().filter(|_| !(is_own && is_variable));
        let token = variable(TOKEN_VARIABLE).filter(|_| token_file.is_none() && !is_own);
        let authorization = match (token, token_file.or(own_token)) {
            (Some(token), _) => Some(authorization(&token, TOKEN_VARIABLE)),
            (None, None) => None,
            (None, Some(file)) => {
                let token = std::fs::read_to_string(&file).map_err(|error| {
                    Failure::from(
                        anyhow::Error::new(error).context(format!("failed to read the token `{}`", file.display())),
                    )
                })?;
                Some(authorization(&token, &format!("`{}`", file.display())))
            }
        };
        let authorization = authorization.transpose()?;
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // A proxy for the web does not lead to a host on this machine or in its network.
            .proxy(None)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_per_read(Some(READ_TIMEOUT))
            .build()
            .into();
        Ok(Self { agent, url: url.into(), authorization })
    }

    /// The URL of the host, for messages.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Asks for JSON.
    pub(super) fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let mut response = self.get(path, &[])?;
        let answer = self.read(&mut response)?;
        serde_json::from_str(&answer).map_err(|error| self.unexpected(error))
    }

    /// Asks; the answer's body is not read yet.
    pub(super) fn get(&self, path: &str, headers: &[(&str, String)]) -> Result<Response<Body>, Failure> {
        let mut request = self.authorized(self.agent.get(format!("{}{path}", self.url)));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = request.call().map_err(|error| self.unreachable(error))?;
        self.checked(response)
    }

    /// Sends a body; status and JSON of the answer, whatever the status.
    pub(super) fn post(
        &self,
        path: &str,
        headers: &[(String, String)],
        body: SendBody<'_>,
    ) -> Result<(u16, Value), Failure> {
        let request = self.authorized(self.agent.post(format!("{}{path}", self.url)));
        self.send(request, headers, body)
    }

    /// Sends a body that takes the place of what is there; status and JSON of the answer, whatever the status.
    pub(super) fn put(&self, path: &str, body: SendBody<'_>) -> Result<(u16, Value), Failure> {
        let request = self.authorized(self.agent.put(format!("{}{path}", self.url)));
        self.send(request, &[], body)
    }

    fn send(
        &self,
        mut request: RequestBuilder<WithBody>,
        headers: &[(String, String)],
        body: SendBody<'_>,
    ) -> Result<(u16, Value), Failure> {
        for (name, value) in headers {
            let value = ureq::http::HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
                Failure::usage(format!("the value of `{name}` has a line break or a control character"))
            })?;
            request = request.header(name, value);
        }
        let mut response = request.send(body).map_err(|error| self.unreachable(error))?;
        let status = response.status().as_u16();
        let answer = self.read(&mut response)?;
        Ok((status, serde_json::from_str(&answer).unwrap_or(Value::String(answer))))
    }

    /// Asks for something to be done; the answer, unless the host refused.
    pub(super) fn command<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, Failure> {
        let json = [("content-type".to_owned(), "application/json".to_owned())];
        let sent = self.post(path, &json, SendBody::from_owned_reader(std::io::Cursor::new(body.to_string())));
        let (status, answer) = sent.map_err(needs_host)?;
        if !(200..300).contains(&status) {
            return Err(self.refused(status, &answer));
        }
        serde_json::from_value(answer).map_err(|error| self.unexpected(error))
    }

    fn unexpected(&self, error: serde_json::Error) -> Failure {
        anyhow::Error::new(error).context(format!("{} answered what is not expected", self.url)).into()
    }

    fn authorized<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.authorization {
            Some(authorization) => request.header("authorization", authorization),
            None => request,
        }
    }

    fn checked(&self, mut response: Response<Body>) -> Result<Response<Body>, Failure> {
        match response.status().as_u16() {
            200 => Ok(response),
            status => {
                let answer = self.read(&mut response)?;
                Err(self.refused(status, &serde_json::from_str(&answer).unwrap_or(Value::String(answer))))
            }
        }
    }

    fn read(&self, response: &mut Response<Body>) -> Result<String, Failure> {
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX);
        body.read_to_string().map_err(|error| {
            Failure::from(anyhow::Error::new(error).context(format!("the answer of {} broke off", self.url)))
        })
    }

    /// The host answered that it will not.
    pub(super) fn refused(&self, status: u16, answer: &Value) -> Failure {
        let reason = answer["error"].as_str().or(answer.as_str()).unwrap_or_default();
        let hint = match status {
            401 => ": name the token with --token-file, or put it into SLUICEBOX_TOKEN",
            _ => "",
        };
        Failure::from(anyhow::anyhow!("{} refused it ({status}): {}{hint}", self.url, super::output::printable(reason)))
    }

    fn unreachable(&self, error: ureq::Error) -> Failure {
        if matches!(error, ureq::Error::BadUri(_) | ureq::Error::Http(_)) {
            return Failure::usage(format!("`{}` is not the URL of a host: {error}", self.url));
        }
        let context = if broke(&error) {
            format!("the connection to the host at {} broke before it answered", self.url)
        } else {
            format!(
                "could not reach a host at {}: start one with `sluicebox run`, or name a running one with --url",
                self.url
            )
        };
        Failure::new(Exit::Unreachable, anyhow::Error::new(error).context(context))
    }
}

/// Whether somebody was there and went away: what was asked for may have been done.
pub(super) fn broke(error: &ureq::Error) -> bool {
    use std::io::ErrorKind;
    let ureq::Error::Io(error) = error else { return false };
    let gone =
        [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted, ErrorKind::BrokenPipe];
    gone.contains(&error.kind())
}

/// Why a command failed that nothing but a running host can execute.
pub(super) fn needs_host(failure: Failure) -> Failure {
    match failure.exit {
        Exit::Unreachable => {
            Failure { error: failure.error.context("only a running host can execute this"), ..failure }
        }
        _ => failure,
    }
}

/// The header that shows a token.
fn authorization(token: &str, from: &str) -> Result<String, Failure> {
    let token = token.trim();
    match token.bytes().all(|byte| byte.is_ascii_graphic()) && !token.is_empty() {
        true => Ok(format!("Bearer {token}")),
        false => Err(Failure::usage(format!("what {from} holds cannot be a token: it is empty or has odd characters"))),
    }
}

/// A part of a path as it may stand in a URL.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_trimmed_and_must_fit_into_a_header() {
        assert_eq!(authorization(" 0123456789abcdef\n", "t").unwrap(), "Bearer 0123456789abcdef");
        for bad in ["", " \n", "two words", "é", "a\u{1}b"] {
            let failure = authorization(bad, "`token`").unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.error.to_string().contains("what `token` holds cannot be a token"), "{bad:?}");
        }
    }
}
