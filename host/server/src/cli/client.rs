//! Talking to a running server.

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;

use super::Global;
use super::exit::Failure;

/// Longest wait for a connection; a server on the same machine or network answers in milliseconds.
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// A server's API.
pub(crate) struct Client {
    http: reqwest::Client,
    server: String,
    token: Option<String>,
}

impl Client {
    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .map_err(Failure::failed)?;
        let server = global.server.trim_end_matches('/').to_owned();
        if !server.starts_with("http://") {
            return Err(Failure::Usage(format!("--server `{server}` must start with http://")));
        }
        Ok(Self {
            http,
            server,
            token: global.token.clone(),
        })
    }

    /// A request to a path made of these parts, with the query's values that are there; each is escaped.
    pub(crate) fn request(&self, method: Method, path: &[&str], query: &[(&str, Option<String>)]) -> RequestBuilder {
        let mut url = format!("{}/v1", self.server);
        for part in path {
            url.push('/');
            url.push_str(&escaped(part));
        }
        let given = query.iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
        for (index, (name, value)) in given.enumerate() {
            url.push(if index == 0 { '?' } else { '&' });
            url.push_str(&format!("{name}={}", escaped(value)));
        }
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// What `/readyz` answers, ready or not.
    pub(crate) async fn readiness(&self) -> Result<Value, Failure> {
        let request = self.http.get(format!("{}/readyz", self.server));
        self.exchange(request).await.map(|(_, answer)| answer)
    }

    /// Sends a request and reads its JSON answer.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<(StatusCode, Value), Failure> {
        let (status, answer) = self.exchange(request).await?;
        match status.is_success() {
            true => Ok((status, answer)),
            false => Err(refusal(status, &answer)),
        }
    }

    /// Sends a request whose answer is read while it comes; what is no success fails as in [`Client::send`].
    pub(crate) async fn open(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = self.connect(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, answer) = self.read(response).await?;
        Err(refusal(status, &answer))
    }

    async fn exchange(&self, request: RequestBuilder) -> Result<(StatusCode, Value), Failure> {
        let response = self.connect(request).await?;
        self.read(response).await
    }

    async fn connect(&self, request: RequestBuilder) -> Result<Response, Failure> {
        request.send().await.map_err(|error| {
            let reason = innermost(&error);
            Failure::Unreachable(format!(
                "no server answers at {}: {reason}; is `formwork serve` running?",
                self.server
            ))
        })
    }

    async fn read(&self, response: Response) -> Result<(StatusCode, Value), Failure> {
        let status = response.status();
        let text = response
            .text()
            .await
            .map_err(|error| Failure::Unreachable(format!("the answer broke off: {error}")))?;
        let answer: Value = serde_json::from_str(&text).map_err(|_| {
            Failure::Unreachable(format!("{} answers {status} and no JSON: is it Formwork?", self.server))
        })?;
        Ok((status, answer))
    }

    pub(crate) async fn get(&self, path: &[&str], query: &[(&str, Option<String>)]) -> Result<Value, Failure> {
        self.send(self.request(Method::GET, path, query))
            .await
            .map(|(_, answer)| answer)
    }
}

fn refusal(status: StatusCode, answer: &Value) -> Failure {
    match status {
        StatusCode::NOT_FOUND => Failure::NotFound(described(answer)),
        _ if status.is_client_error() => Failure::Rejected(described(answer)),
        _ => Failure::Failed(anyhow::anyhow!("{}", described(answer))),
    }
}

/// The cause of a failure: what the system said.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// Text as one part of a URL.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// A problem document for people.
fn described(problem: &Value) -> String {
    let text = |name: &str| problem.get(name).and_then(Value::as_str).unwrap_or("");
    let mut shown = format!("{} ({})", text("detail"), text("code"));
    for place in problem.get("problems").and_then(Value::as_array).into_iter().flatten() {
        let text = |name: &str| place.get(name).and_then(Value::as_str).unwrap_or("");
        shown.push_str(&format!(
            "\n  at `{}`: {} ({})",
            text("pointer"),
            text("message"),
            text("code")
        ));
    }
    shown
}
