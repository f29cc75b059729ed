//! Path, query and header values, checked where they enter.

use std::num::NonZeroU32;

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::correlation::CorrelationId;
use super::problem::{Code, Problem};

/// Longest form id, in characters: it stands in URLs and file names.
pub(crate) const MAX_FORM_ID: usize = 64;

/// Longest `Idempotency-Key`, in characters.
pub(crate) const MAX_IDEMPOTENCY_KEY: usize = 255;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// A path's values; a path that does not decode is a problem document.
pub(crate) struct InPath<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for InPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let invalid = |error: axum::extract::rejection::PathRejection| {
            Problem::new(Code::InvalidRequest, format!("path: {}", error.body_text()))
        };
        Path::from_request_parts(parts, state)
            .await
            .map(|Path(value)| Self(value))
            .map_err(invalid)
    }
}

/// A query's values; unknown parameters are problem documents where the type denies them.
pub(crate) struct InQuery<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for InQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let invalid = |error: axum::extract::rejection::QueryRejection| {
            let text = error.body_text();
            let reason = text
                .strip_prefix("Failed to deserialize query string: ")
                .unwrap_or(&text);
            Problem::new(Code::InvalidRequest, format!("query: {reason}"))
        };
        Query::from_request_parts(parts, state)
            .await
            .map(|Query(value)| Self(value))
            .map_err(invalid)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for CorrelationId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let missing = || Problem::internal("the request has no correlation id: the layer is missing");
        parts.extensions.get::<Self>().cloned().ok_or_else(missing)
    }
}

/// A form's name: 1 to [`MAX_FORM_ID`] lower-case letters, digits, `-` and `_`, the first a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FormId(pub(crate) String);

impl FormId {
    /// Checks a name.
    ///
    /// # Errors
    /// `invalid-form-id`.
    pub(crate) fn try_new(id: String) -> Result<Self, Problem> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let starts = id.starts_with(plain);
        if starts && id.len() <= MAX_FORM_ID && id.chars().all(|c| plain(c) || c == '-' || c == '_') {
            return Ok(Self(id));
        }
        let shown: String = id.chars().take(MAX_FORM_ID).collect();
        Err(Problem::new(
            Code::InvalidFormId,
            format!(
                "`{}` is no form id: use 1 to {MAX_FORM_ID} lower-case letters, digits, `-` or `_`, the first a letter or digit",
                shown.escape_debug()
            ),
        ))
    }
}

/// A page of a list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// Items at most, 1 to 1,000; 50 when absent.
    #[param(minimum = 1, maximum = 1000)]
    pub(crate) limit: Option<u32>,
    /// The `next` of the page before.
    pub(crate) cursor: Option<String>,
}

/// Checks a page's bounds.
pub(crate) fn page(limit: Option<u32>, cursor: Option<String>) -> Result<formwork_store::Page, Problem> {
    use formwork_store::limits::{PAGE_ITEMS, PAGE_ITEMS_DEFAULT};
    let limit = limit.unwrap_or(PAGE_ITEMS_DEFAULT);
    if !(1..=PAGE_ITEMS).contains(&limit) {
        return Err(Problem::new(
            Code::InvalidRequest,
            format!("query: limit must be 1 to {PAGE_ITEMS}, got {limit}"),
        ));
    }
    Ok(formwork_store::Page { limit, after: cursor })
}

/// The `version` of a query.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct VersionQuery {
    /// A version of the form; the latest when absent.
    #[param(minimum = 1)]
    pub(crate) version: Option<u32>,
}

/// The query of a request of many lines.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LinesQuery {
    /// A version of the form; the latest when absent.
    #[param(minimum = 1)]
    pub(crate) version: Option<u32>,
    /// The number of the first line, 1 when absent: the parts of a long file have the file's line numbers, in answers and
    /// for idempotency.
    #[param(value_type = Option<u32>, minimum = 1)]
    pub(crate) first_line: Option<NonZeroU32>,
}

/// The client's key that makes a submission safe to repeat.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let fine = |key: &&str| (1..=MAX_IDEMPOTENCY_KEY).contains(&key.len());
    match value.to_str().ok().filter(fine) {
        Some(key) => Ok(Some(key.to_owned())),
        None => Err(Problem::new(
            Code::InvalidRequest,
            format!("header idempotency-key: must be 1 to {MAX_IDEMPOTENCY_KEY} visible ASCII characters"),
        )),
    }
}

/// The seconds of `Prefer: wait=SECONDS`, at most `most`. Other preferences are ignored, as RFC 7240 says.
pub(crate) fn wait_seconds(headers: &HeaderMap, most: u64) -> Result<Option<u64>, Problem> {
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    for preference in values.flat_map(|value| value.split(',')) {
        let (name, value) = preference
            .split(';')
            .next()
            .unwrap_or("")
            .split_once('=')
            .unwrap_or((preference, ""));
        if !name.trim().eq_ignore_ascii_case("wait") {
            continue;
        }
        let value = value.trim().trim_matches('"');
        let invalid = || {
            Problem::new(
                Code::InvalidRequest,
                format!(
                    "header prefer: wait must be a number of seconds, got `{}`",
                    value.escape_debug()
                ),
            )
        };
        return value
            .parse::<u64>()
            .map(|seconds| Some(seconds.min(most)))
            .map_err(|_| invalid());
    }
    Ok(None)
}
