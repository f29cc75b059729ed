//! `export`: submissions and the results of the steps before, as JSON Lines or CSV.
//!
//! **Problem.** Answers must reach programs and spreadsheets without losing a digit, a line break or a column, and
//! without becoming formulas there. **Promise.** RFC 4180 quoting, columns in a stable order, numbers as they were
//! written, one record a submission. **Cost.** Each submission is parsed once. **Rejected.** Columns found in the data:
//! the second submission could then have other columns than the first.

mod cell;
mod columns;
mod csv_line;
mod json_line;
mod record;
mod schema_leaves;
mod settings;

use formwork_plugin::host::sinks::Sink;
use formwork_plugin::{Error, Exporter, Form, Submission};

use crate::csv_line::Csv;
use crate::json_line::JsonLines;
use crate::record::Record;
use crate::settings::Settings;

/// Bytes collected before the sink is called: a call costs about a microsecond, memory is limited.
const BUFFER_BYTES: usize = 64 << 10;

/// A prepared export.
enum Export {
    Csv(Csv),
    JsonLines(JsonLines),
}

impl Exporter for Export {
    fn prepare(form: Form, settings: String) -> Result<Self, Error> {
        Ok(match Settings::parse(&settings)? {
            Settings::Csv { columns, style } => {
                let columns = match columns {
                    Some(columns) => columns,
                    None => schema_leaves::columns(&form)?,
                };
                Self::Csv(Csv::new(columns, style))
            }
            Settings::JsonLines { columns } => Self::JsonLines(JsonLines::new(columns)),
        })
    }

    fn begin(&self, sink: &Sink) -> Result<(), Error> {
        if let Self::Csv(csv) = self {
            let header = csv.header();
            if !header.is_empty() {
                sink.write(header.as_bytes())?;
            }
        }
        Ok(())
    }

    fn export(&self, submissions: Vec<Submission>, sink: &Sink) -> Result<u32, Error> {
        let mut buffer = String::new();
        let mut records = 0;
        for submission in submissions {
            let record = Record::new(submission);
            match self {
                Self::Csv(csv) => csv.write(&record, &mut buffer)?,
                Self::JsonLines(lines) => lines.write(&record, &mut buffer)?,
            }
            records += 1;
            if buffer.len() >= BUFFER_BYTES {
                sink.write(buffer.as_bytes())?;
                buffer.clear();
            }
        }
        if !buffer.is_empty() {
            sink.write(buffer.as_bytes())?;
        }
        Ok(records)
    }

    fn end(&self, _sink: &Sink) -> Result<(), Error> {
        Ok(())
    }
}

formwork_plugin::export_exporter!(Export);
