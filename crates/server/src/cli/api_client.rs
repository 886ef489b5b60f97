//! Talks to a server for the commands that need one.

use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::{Method, RequestBuilder, StatusCode, Url};
use serde_json::Value;

use super::admin_key;
use super::args::TargetArgs;
use super::output::printable;
use crate::config::Secret;

const TIMEOUT: Duration = Duration::from_secs(60);

/// One server, and the key for it.
pub(super) struct ApiClient {
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
    url: Url,
    key: Option<Secret>,
}

impl ApiClient {
    /// A client of the server that `target` names.
    ///
    /// # Errors
    /// The URL is not one.
    pub(super) fn new(target: &TargetArgs) -> anyhow::Result<ApiClient> {
        let (url, key) = resolve(target)?;
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("yoink/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("cannot prepare the HTTP client")?;
        Ok(ApiClient { http, runtime: runtime()?, url, key })
    }

    /// `GET path` with query parameters.
    ///
    /// # Errors
    /// No answer, or one that is not 2xx with JSON.
    pub(super) fn get(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
        let mut url = self.address(path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.send(Method::GET, path, self.http.get(url))
    }

    /// `POST path` with a JSON body.
    ///
    /// # Errors
    /// As [`ApiClient::get`].
    pub(super) fn post(&self, path: &str, body: &Value, key: Option<&str>) -> anyhow::Result<Value> {
        let mut request = self.http.post(self.address(path)?).json(body);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.send(Method::POST, path, request)
    }

    fn address(&self, path: &str) -> anyhow::Result<Url> {
        let text = format!("{}{path}", self.url.as_str().trim_end_matches('/'));
        text.parse().with_context(|| format!("{text:?} is not a URL"))
    }

    fn send(&self, method: Method, path: &str, mut request: RequestBuilder) -> anyhow::Result<Value> {
        if let Some(key) = &self.key {
            request = request.bearer_auth(key.expose());
        }
        let url = self.url.as_str().trim_end_matches('/');
        let exchange = async {
            let response = request.send().await?;
            Ok::<_, reqwest::Error>((response.status(), response.bytes().await?))
        };
        let (status, body) = self.runtime.block_on(exchange).map_err(|error| explain(url, error))?;
        let body: Option<Value> = serde_json::from_slice(&body).ok();
        if status.is_success() {
            return body
                .with_context(|| format!("{url} answered {method} {path} with something that is not JSON"));
        }
        bail!("{}", refusal(status, &body.unwrap_or(Value::Null), self.key.is_some()))
    }
}

/// The server's URL and the key for it: given, or found in the data folder of this machine's development server.
///
/// # Errors
/// The URL is not one.
pub(super) fn resolve(target: &TargetArgs) -> anyhow::Result<(Url, Option<Secret>)> {
    let url: Url = target.url.parse().with_context(|| format!("--url {:?} is not a URL", target.url))?;
    if !matches!(url.scheme(), "http" | "https") {
        bail!("--url {:?} must start with http:// or https://", target.url);
    }
    let key = target.admin_key.as_ref().map(Secret::new).or_else(|| admin_key::of_local_server(&url));
    Ok((url, key))
}

/// A runtime on the calling thread.
///
/// # Errors
/// The operating system refuses.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}

fn explain(url: &str, error: reqwest::Error) -> anyhow::Error {
    let what = if error.is_connect() {
        format!(
            "cannot reach {url}. Is yoink running? Start it with `yoink` in another terminal, or name it with --url"
        )
    } else if error.is_timeout() {
        format!("{url} did not answer within {} s", TIMEOUT.as_secs())
    } else {
        format!("no usable answer from {url}")
    };
    anyhow::Error::new(error.without_url()).context(what)
}

/// The problem document as a sentence.
fn refusal(status: StatusCode, problem: &Value, has_key: bool) -> String {
    let text = |name: &str| problem.get(name).and_then(Value::as_str).map(printable);
    let mut sentence = match (text("title"), text("detail")) {
        (Some(title), Some(detail)) => format!("the server says no: {title}: {detail}"),
        (Some(only), None) | (None, Some(only)) => format!("the server says no: {only}"),
        (None, None) => "the server says no".to_owned(),
    };
    for error in problem.get("errors").and_then(Value::as_array).into_iter().flatten() {
        let part = |name: &str| error.get(name).and_then(Value::as_str).map(printable).unwrap_or_default();
        sentence.push_str(&format!("; {} {}", part("pointer"), part("detail")));
    }
    sentence.push_str(&format!(" ({})", status.as_u16()));
    match (status, has_key) {
        (StatusCode::UNAUTHORIZED, false) => {
            sentence.push_str(
                "; give the admin key with --admin-key or YOINK_ADMIN_KEY, or YOINK_DATA to find it",
            );
        }
        (StatusCode::UNAUTHORIZED, true) => sentence.push_str("; the admin key is not this server's"),
        _ => {}
    }
    sentence
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_problem_becomes_one_sentence() {
        let problem = json!({"title": "The request is not valid", "detail": "see errors",
            "errors": [{"pointer": "/name", "detail": "must not be empty\u{1b}[2J"}]});
        let text = refusal(StatusCode::BAD_REQUEST, &problem, true);
        assert_eq!(
            text,
            "the server says no: The request is not valid: see errors; /name must not be empty\\u{1b}[2J (400)"
        );
        assert!(refusal(StatusCode::UNAUTHORIZED, &Value::Null, false).contains("--admin-key"));
    }
}
