//! Errors as clients see them: RFC 9457 problem documents with stable codes.
//!
//! **Problem.** A client must tell "fix your document" from "try again" without reading English. **Promise.** Whatever goes
//! wrong, an unknown route and a panic included, the body is `application/problem+json` with one of the [`Code`]s, the
//! place of each fault and the correlation id. **Cost.** The document is rendered by the outermost layer, which knows the
//! correlation id; a handler only says what happened. **Rejected.** A page per framework error: axum's rejections are
//! plain text and change with its versions.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

/// The media type of problem documents.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Places that one document lists at most; `problems_total` tells how many there are.
const MAX_PLACES: usize = 100;

/// Seconds after which a client shall try again when a queue was full: it is served several times within that.
const RETRY_AFTER_SECONDS: u64 = 1;

macro_rules! codes {
    ($($(#[doc = $meaning:literal])+ $name:ident $code:literal $status:ident $title:literal $retry:literal;)+) => {
        /// Every code there is. A code is never renamed, nor used for something else.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Code { $($(#[doc = $meaning])+ $name,)+ }

        impl Code {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The stable name.
            #[must_use]
            pub fn as_str(self) -> &'static str { match self { $(Self::$name => $code),+ } }

            /// The HTTP status it comes with.
            #[must_use]
            pub fn status(self) -> StatusCode { match self { $(Self::$name => StatusCode::$status),+ } }

            /// A short summary, the same for every occurrence.
            #[must_use]
            pub fn title(self) -> &'static str { match self { $(Self::$name => $title),+ } }

            /// Whether the same request may succeed later.
            #[must_use]
            pub fn retry(self) -> bool { match self { $(Self::$name => $retry),+ } }

            /// What it means and what to do.
            #[must_use]
            pub fn meaning(self) -> &'static str { match self { $(Self::$name => concat!($($meaning, "\n"),+).trim_ascii()),+ } }
        }
    };
}

codes! {
    /// The body is not JSON. `detail` has line and column.
    MalformedJson "malformed-json" BAD_REQUEST "The body is not valid JSON" false;
    /// The body nests deeper than `http.json_depth` allows. `detail` has the byte where it does.
    JsonTooDeep "json-too-deep" BAD_REQUEST "The body nests too deeply" false;
    /// An object of the body has a key twice; which one counts would be a guess.
    DuplicateKey "duplicate-key" BAD_REQUEST "The body has a key twice" false;
    /// A query parameter or a header has a value that cannot be right.
    InvalidRequest "invalid-request" BAD_REQUEST "The request is not valid" false;
    /// A form's id is 1 to 64 lower-case letters, digits, `-` and `_`, and starts with a letter or digit.
    InvalidFormId "invalid-form-id" BAD_REQUEST "The form's id is not valid" false;
    /// The API asks for a bearer token, and the request has none or another.
    Unauthorized "unauthorized" UNAUTHORIZED "The request is not authorized" false;
    /// Nothing is served at this path.
    NotFound "not-found" NOT_FOUND "Nothing is here" false;
    /// No form of this id was published.
    UnknownForm "unknown-form" NOT_FOUND "The form does not exist" false;
    /// The form has no such version.
    UnknownFormVersion "unknown-form-version" NOT_FOUND "The form's version does not exist" false;
    /// The form version has no such step, or the step exports nothing.
    UnknownStep "unknown-step" NOT_FOUND "The step does not exist" false;
    /// No submission has this id.
    UnknownSubmission "unknown-submission" NOT_FOUND "The submission does not exist" false;
    /// No task has this id.
    UnknownTask "unknown-task" NOT_FOUND "The task does not exist" false;
    /// There are three pools: `high`, `default` and `batched`.
    UnknownPool "unknown-pool" NOT_FOUND "The pool does not exist" false;
    /// No plugin of this name is installed.
    UnknownPlugin "unknown-plugin" NOT_FOUND "The plugin does not exist" false;
    /// No model of this name is declared.
    UnknownModel "unknown-model" NOT_FOUND "The model does not exist" false;
    /// The path exists and does not take this method; the `Allow` header lists those it takes.
    MethodNotAllowed "method-not-allowed" METHOD_NOT_ALLOWED "The method is not allowed here" false;
    /// The request, its body included, took longer than `http.request_timeout_ms`.
    RequestTimeout "request-timeout" REQUEST_TIMEOUT "The request took too long" true;
    /// Another component was installed or pushed under this name and version.
    VersionTaken "version-taken" CONFLICT "The plugin's version is taken" false;
    /// The task is in a state that does not allow this; `detail` names the state.
    WrongState "wrong-state" CONFLICT "The task's state does not allow this" false;
    /// Calls are using the model; it can be unloaded when they are done.
    ModelInUse "model-in-use" CONFLICT "The model is in use" true;
    /// The body is larger than `limit` bytes.
    BodyTooLarge "body-too-large" PAYLOAD_TOO_LARGE "The body is too large" false;
    /// The body must be sent as `application/json`.
    UnsupportedMediaType "unsupported-media-type" UNSUPPORTED_MEDIA_TYPE "The body's media type is not supported" false;
    /// The form definition has faults; `problems` lists all that were found, each with its place.
    InvalidDefinition "invalid-definition" UNPROCESSABLE_ENTITY "The form definition is not valid" false;
    /// The component is not a plugin, asks for what is not granted, or fails its self-tests; `detail` says why.
    PluginRefused "plugin-refused" UNPROCESSABLE_ENTITY "The plugin was refused" false;
    /// The idempotency key was used before with another request; `submission` is the one it made.
    IdempotencyKeyReused "idempotency-key-reused" UNPROCESSABLE_ENTITY "The idempotency key was used for another request" false;
    /// A fault of the server; the log has more under the correlation id.
    Internal "internal" INTERNAL_SERVER_ERROR "The server failed" true;
    /// A plugin could not do its work; `detail` says which one and why.
    PluginFailed "plugin-failed" INTERNAL_SERVER_ERROR "A plugin failed" false;
    /// The model cannot be loaded; `detail` says why.
    ModelNotLoaded "model-not-loaded" INTERNAL_SERVER_ERROR "The model cannot be loaded" true;
    /// The model finds no memory: what is loaded is in use or pinned, or the model is larger than `inference.memory_bytes`.
    NoModelMemory "no-model-memory" SERVICE_UNAVAILABLE "There is no memory for the model" true;
    /// Too many requests wait for a sandbox; try again after `Retry-After` seconds.
    Busy "busy" SERVICE_UNAVAILABLE "The server is busy" true;
    /// `http.max_event_streams` event streams are open; try again after `Retry-After` seconds, or poll.
    TooManyStreams "too-many-streams" SERVICE_UNAVAILABLE "Too many event streams are open" true;
    /// The server is stopping, or cannot record anything now.
    Unavailable "unavailable" SERVICE_UNAVAILABLE "The server is not available" true;
    /// The server's disk is full; nothing was recorded.
    StorageFull "storage-full" INSUFFICIENT_STORAGE "The server's storage is full" true;
}

/// One place that is wrong.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Place {
    /// JSON Pointer into the body.
    #[schema(example = "/pipeline/1/settings/labels/0")]
    pub pointer: String,
    /// A stable code.
    #[schema(example = "unknown-plugin")]
    pub code: String,
    /// What is wrong and how to fix it.
    pub message: String,
}

/// A problem document, for the OpenAPI description.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemDocument {
    /// A page that explains the code.
    #[serde(rename = "type")]
    #[schema(example = "/problems/unknown-form")]
    pub kind: String,
    /// A short summary, the same for every occurrence of the code.
    #[schema(example = "The form does not exist")]
    pub title: String,
    /// The HTTP status.
    #[schema(example = 404)]
    pub status: u16,
    /// What happened this time.
    #[schema(example = "unknown form: contcat (known: contact)")]
    pub detail: String,
    /// The stable code.
    #[schema(example = "unknown-form")]
    pub code: String,
    /// Every place that is wrong, when places are known.
    pub problems: Option<Vec<Place>>,
    /// The request's correlation id, as in the header `x-request-id` and in the log.
    pub correlation_id: String,
}

/// What happened; rendered by [`Problem::render`].
#[derive(Clone, Debug)]
pub struct Problem {
    code: Code,
    detail: String,
    places: Vec<Place>,
    members: Map<String, Value>,
}

impl Problem {
    /// A problem without places.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            places: Vec::new(),
            members: Map::new(),
        }
    }

    /// The same with places in the body that are wrong.
    #[must_use]
    pub fn places(mut self, places: Vec<Place>) -> Self {
        self.places = places;
        self
    }

    /// The same with one more member.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// Its code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// What is wrong, with the place.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// A fault of ours: the cause is logged, the client gets the correlation id to ask with.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(error = %cause, "request failed");
        Self::new(
            Code::Internal,
            "the server failed; its log has the cause under the correlation id",
        )
    }

    /// The response with the document in it.
    pub(crate) fn render(self, correlation_id: &str) -> Response {
        let mut document = json!({
            "type": format!("/problems/{}", self.code.as_str()),
            "title": self.code.title(),
            "status": self.code.status().as_u16(),
            "detail": self.detail,
            "code": self.code.as_str(),
        });
        if let Some(members) = document.as_object_mut() {
            if !self.places.is_empty() {
                members.insert("problems_total".into(), self.places.len().into());
                members.insert(
                    "problems".into(),
                    json!(self.places.iter().take(MAX_PLACES).collect::<Vec<_>>()),
                );
            }
            members.extend(self.members);
            members.insert("correlation_id".into(), correlation_id.into());
        }
        let mut response = (self.code.status(), Json(document)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if matches!(self.code, Code::Busy | Code::Unavailable | Code::TooManyStreams) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        if self.code == Code::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} ({})", self.detail, self.code.as_str())
    }
}

/// The problem travels to the outermost layer as an extension; see [`crate::http::correlation`].
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<formwork_inference::Error> for Problem {
    fn from(error: formwork_inference::Error) -> Self {
        use formwork_inference::Error;
        let code = match &error {
            Error::UnknownModel { .. } => Code::UnknownModel,
            Error::InUse { .. } => Code::ModelInUse,
            Error::Memory { .. } => Code::NoModelMemory,
            Error::Busy { .. } => Code::Busy,
            Error::ShuttingDown => Code::Unavailable,
            Error::DeadlineExceeded | Error::Cancelled => Code::RequestTimeout,
            _ => Code::ModelNotLoaded,
        };
        Self::new(code, error.to_string())
    }
}

impl From<formwork_store::Error> for Problem {
    fn from(error: formwork_store::Error) -> Self {
        use formwork_store::Error;
        match &error {
            Error::UnknownForm { version: None, .. } => Self::new(Code::UnknownForm, error.to_string()),
            Error::UnknownForm { .. } => Self::new(Code::UnknownFormVersion, error.to_string()),
            Error::UnknownTask(_) => Self::new(Code::UnknownTask, error.to_string()),
            Error::Invalid { .. } => Self::new(Code::InvalidRequest, error.to_string()),
            Error::Pipeline(plan) => Self::new(Code::InvalidDefinition, error.to_string()).places(vec![Place {
                pointer: plan.pointer().to_owned(),
                code: "pipeline".into(),
                message: plan.to_string(),
            }]),
            Error::TooLarge { most, .. } => Self::new(Code::BodyTooLarge, error.to_string()).with("limit", *most),
            Error::Full { .. } => {
                tracing::error!(%error, "the store's disk is full");
                Self::new(Code::StorageFull, "the disk is full, nothing was recorded")
            }
            Error::Unavailable { .. } => {
                tracing::warn!(%error, "the database cannot be reached");
                Self::new(
                    Code::Unavailable,
                    "the database cannot be reached now, send the request again with the same Idempotency-Key",
                )
            }
            Error::Closed => Self::new(Code::Unavailable, "the server is stopping"),
            Error::Fatal(_) => {
                tracing::error!(%error, "the store has stopped");
                Self::new(
                    Code::Unavailable,
                    "the store cannot record anything, nothing was acknowledged",
                )
            }
            _ => Self::internal(&error),
        }
    }
}
