//! `log`: a plugin's lines among the host's, with the plugin's name and the submission's correlation id.

use formwork_bindings::v1::host::log::{Host, Level};

use crate::limits::{ELEMENT_BYTES, MAX_LOG_FIELDS, MAX_LOG_TEXT_BYTES};
use crate::state::State;

impl Host for State {
    fn log(&mut self, level: Level, message: String, fields: Vec<(String, String)>) -> wasmtime::Result<()> {
        let bytes = message.len()
            + fields
                .iter()
                .map(|(name, value)| name.len() + value.len() + 2 * ELEMENT_BYTES)
                .sum::<usize>();
        self.enter(bytes)?;
        if !self.meter.log(bytes) {
            return Ok(());
        }
        let message = cut(&message);
        let fields: serde_json::Map<String, serde_json::Value> = fields
            .iter()
            .take(MAX_LOG_FIELDS)
            .map(|(name, value)| (cut(name).to_owned(), cut(value).into()))
            .collect();
        let fields = serde_json::Value::Object(fields);
        let (plugin, correlation_id) = (&*self.plugin, self.correlation_id.as_str());
        match level {
            Level::Trace => tracing::trace!(target: "plugin", plugin, correlation_id, %fields, "{message}"),
            Level::Debug => tracing::debug!(target: "plugin", plugin, correlation_id, %fields, "{message}"),
            Level::Info => tracing::info!(target: "plugin", plugin, correlation_id, %fields, "{message}"),
            Level::Warn => tracing::warn!(target: "plugin", plugin, correlation_id, %fields, "{message}"),
            Level::Error => tracing::error!(target: "plugin", plugin, correlation_id, %fields, "{message}"),
        }
        Ok(())
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_LOG_TEXT_BYTES)]
}
