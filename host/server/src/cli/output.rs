//! What commands print: tables for people, JSON for programs.
//!
//! Standard output carries results only; everything else (progress, warnings, errors) goes to standard error, so that a
//! pipe gets clean data.

use std::io::{self, Write};

use serde_json::Value;

/// Widest a table's column gets, in characters; longer cells are cut, the JSON output has them in full.
const MAX_COLUMN: usize = 72;

/// Writes lines to standard output. A reader that went away (`| head`) is no failure.
///
/// # Errors
/// What the system says, except for a closed pipe.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let written = out
        .write_all(text.as_bytes())
        .and_then(|()| match text.ends_with('\n') {
            true => Ok(()),
            false => out.write_all(b"\n"),
        });
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Writes a JSON document, indented.
///
/// # Errors
/// As [`print`].
pub fn print_json(value: &Value) -> io::Result<()> {
    print(&format!("{value:#}"))
}

/// Rows under a head, aligned by column.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column names.
    #[must_use]
    pub fn new(head: &[&str]) -> Self {
        Self {
            rows: vec![head.iter().map(|name| (*name).to_uppercase()).collect()],
        }
    }

    /// Adds a row; cells are shown on one line and without control characters.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.iter().map(|cell| shown(cell)).collect());
    }

    /// The table as text.
    #[must_use]
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                let padding = width.saturating_sub(cell.chars().count()) + 2;
                line.extend(std::iter::repeat_n(' ', padding));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A text made safe for a terminal and short enough for a column.
#[must_use]
pub fn shown(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut shown: String = text.chars().map(clean).take(MAX_COLUMN).collect();
    if text.chars().nth(MAX_COLUMN).is_some() {
        shown.pop();
        shown.push('…');
    }
    shown
}

/// A JSON value as a table cell: strings bare, null as `-`.
#[must_use]
pub fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
