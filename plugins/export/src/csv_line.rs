//! CSV as RFC 4180 says it: CRLF, quotes where needed, quotes doubled inside.

use formwork_plugin::Error;

use crate::cell;
use crate::columns::Column;
use crate::record::Record;

/// How the file looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    pub(crate) delimiter: char,
    pub(crate) header: bool,
    pub(crate) formula_guard: bool,
}

pub(crate) struct Csv {
    columns: Vec<Column>,
    style: Style,
}

impl Csv {
    pub(crate) fn new(columns: Vec<Column>, style: Style) -> Self {
        Self { columns, style }
    }

    /// The line that names the columns; empty when none is wanted.
    pub(crate) fn header(&self) -> String {
        let mut line = String::new();
        if self.style.header {
            let names = self.columns.iter().map(|column| column.name.clone());
            let names = names.map(|name| {
                if self.style.formula_guard {
                    cell::guarded(name)
                } else {
                    name
                }
            });
            self.push_line(&names.collect::<Vec<_>>(), &mut line);
        }
        line
    }

    /// Appends a record's line.
    pub(crate) fn write(&self, record: &Record, out: &mut String) -> Result<(), Error> {
        let cells = self
            .columns
            .iter()
            .map(|column| Ok(cell::text(column.value(record)?, self.style.formula_guard)))
            .collect::<Result<Vec<_>, Error>>()?;
        self.push_line(&cells, out);
        Ok(())
    }

    fn push_line(&self, cells: &[String], out: &mut String) {
        for (index, cell) in cells.iter().enumerate() {
            if index > 0 {
                out.push(self.style.delimiter);
            }
            // A line of one empty cell would be an empty line, which readers skip.
            if self.needs_quotes(cell) || (cells.len() == 1 && cell.is_empty()) {
                out.push('"');
                out.push_str(&cell.replace('"', "\"\""));
                out.push('"');
            } else {
                out.push_str(cell);
            }
        }
        out.push_str("\r\n");
    }

    fn needs_quotes(&self, cell: &str) -> bool {
        cell.contains([self.style.delimiter, '"', '\r', '\n']) || cell.starts_with(' ') || cell.ends_with(' ')
    }
}
