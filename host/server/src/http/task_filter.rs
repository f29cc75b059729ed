//! Which tasks: what lists and bulk operations can choose by, in one place.

use formwork_store::TaskFilter;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::problem::{Code, Problem};
use crate::clock;

/// Which tasks; everything given must match.
///
/// Meant to be flattened into a query or a body that says `deny_unknown_fields` itself.
#[derive(Debug, Default, Deserialize, IntoParams, ToSchema)]
#[into_params(parameter_in = Query)]
pub(crate) struct Selection {
    /// Why it is dead: `failed`, `exhausted` or `crashed`.
    #[param(example = "exhausted")]
    reason: Option<String>,
    /// The code of the latest error.
    #[param(example = "limit-cpu")]
    code: Option<String>,
    /// `high`, `default` or `batched`.
    pool: Option<String>,
    /// A form's id.
    form: Option<String>,
    /// A step's name.
    step: Option<String>,
    /// A submission's id.
    submission: Option<String>,
    /// Ended (completed, cancelled, dead) at this time or later, RFC 3339.
    from: Option<String>,
    /// Ended before this time, RFC 3339.
    until: Option<String>,
}

impl Selection {
    /// As the store takes it.
    ///
    /// # Errors
    /// `invalid-request` for a value that names nothing, or is no time.
    pub(super) fn filter(self) -> Result<TaskFilter, Problem> {
        Ok(TaskFilter {
            state: None,
            dead_reason: parsed(self.reason)?,
            error_code: self.code,
            pool: parsed(self.pool)?,
            form: self.form,
            step: self.step,
            submission: parsed(self.submission)?,
            finished_from: time("from", self.from)?,
            finished_until: time("until", self.until)?,
        })
    }
}

pub(super) fn parsed<T: std::str::FromStr>(text: Option<String>) -> Result<Option<T>, Problem>
where
    T::Err: std::fmt::Display,
{
    let invalid = |error: T::Err| Problem::new(Code::InvalidRequest, format!("query: {error}"));
    text.map(|text| text.parse().map_err(invalid)).transpose()
}

/// A point in time of a request.
fn time(name: &str, text: Option<String>) -> Result<Option<formwork_tasks::Millis>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let invalid = || {
        let shown: String = text.chars().take(64).collect();
        let detail = format!(
            "{name}: `{}` is no RFC 3339 time such as 2026-01-31T12:00:00Z",
            shown.escape_debug()
        );
        Problem::new(Code::InvalidRequest, detail)
    };
    clock::parse_rfc3339(&text).map(Some).ok_or_else(invalid)
}
