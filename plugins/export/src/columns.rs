//! A column: its name and where its value comes from.

use formwork_plugin::Error;
use serde_json::Value;

use crate::record::Record;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) source: Source,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// The submission's identifier.
    Id,
    /// When the host accepted it.
    SubmittedAt,
    /// A place in the data.
    Data { pointer: String },
    /// A place in an earlier step's output.
    Result { step: String, pointer: String },
}

impl Column {
    /// The column's value in a record; `null` where there is none.
    pub(crate) fn value(&self, record: &Record) -> Result<Value, Error> {
        Ok(match &self.source {
            Source::Id => Value::String(record.id().to_owned()),
            Source::SubmittedAt => Value::String(record.submitted_at().to_owned()),
            Source::Data { pointer } => record.data()?.pointer(pointer).cloned().unwrap_or_default(),
            Source::Result { step, pointer } => record
                .result(step)?
                .and_then(|output| output.pointer(pointer))
                .cloned()
                .unwrap_or_default(),
        })
    }
}
