//! What was measured: a table, JSON, or a page with a plot.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use serde_json::{Value, json};

use super::driver::Driver;
use super::plot;
use super::worker::Route;
use crate::cli::bench::figures::cpus;
use crate::cli::output::Table;

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    pub(super) model: String,
    pub(super) threads: usize,
    pub(super) route: Option<Route>,
    pub(super) what: String,
    /// Tokens or texts that the figure depends on.
    pub(super) size: Option<usize>,
    pub(super) value: f64,
    pub(super) unit: &'static str,
}

#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) rows: Vec<Row>,
    models: Vec<Value>,
}

impl Rows {
    pub(super) fn add(
        &mut self,
        driver: &Driver,
        route: Option<Route>,
        what: &str,
        size: Option<usize>,
        value: f64,
        unit: &'static str,
    ) {
        self.rows.push(Row {
            model: driver.model.clone(),
            threads: driver.threads,
            route,
            what: what.to_owned(),
            size,
            value,
            unit,
        });
    }

    pub(super) fn add_model(&mut self, driver: &Driver) {
        self.models.push(driver.loaded.clone());
    }

    pub(super) fn to_json(&self) -> Value {
        json!({ "cpus": cpus(), "models": self.models, "rows": self.rows })
    }

    pub(super) fn to_text(&self) -> String {
        let mut table = Table::new(&["model", "threads", "route", "what", "size", "value", "unit"]);
        for row in &self.rows {
            table.row(row.cells());
        }
        format!("{} CPUs\n{}", cpus(), table.render())
    }

    /// Writes `model-bench.md`, `.json` and `.svg` into a folder.
    pub(super) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let write = |name: &str, text: String| {
            let file = folder.join(name);
            std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
        };
        write("model-bench.svg", plot::draw(&self.rows)?)?;
        write("model-bench.json", format!("{:#}\n", self.to_json()))?;
        write("model-bench.md", self.to_markdown())
    }

    fn to_markdown(&self) -> String {
        let mut page = format!(
            "# Models on this machine\n\n`formwork model bench`, Formwork {}, {} CPUs; medians over the rounds. `service`: the \
             inference service alone; `plugin`: through a plugin in its sandbox.\n\n![plot](model-bench.svg)\n\n\
             | model | version | task | llama.cpp for | file, MB | loaded in ms | sha256 |\n|---|---|---|---|---|---|---|\n",
            env!("CARGO_PKG_VERSION"),
            cpus()
        );
        for model in &self.models {
            let text = |name: &str| model[name].as_str().unwrap_or_default().to_owned();
            let number = |name: &str, unit: f64| format!("{:.0}", model[name].as_f64().unwrap_or(0.0) / unit);
            let cells = [
                text("name"),
                text("version"),
                text("task"),
                text("cpu_variant"),
                number("file_bytes", 1e6),
                number("load_ms", 1.0),
                text("sha256"),
            ];
            line(&mut page, &cells);
        }
        page.push_str("\n| model | threads | route | what | size | value | unit |\n|---|---|---|---|---|---|---|\n");
        for row in &self.rows {
            line(&mut page, &row.cells());
        }
        page
    }
}

impl Row {
    fn cells(&self) -> [String; 7] {
        let route = match self.route {
            Some(Route::Service) => "service",
            Some(Route::Plugin) => "plugin",
            None => "",
        };
        [
            self.model.clone(),
            self.threads.to_string(),
            route.to_owned(),
            self.what.clone(),
            self.size.map_or(String::new(), |size| size.to_string()),
            shown(self.value),
            self.unit.to_owned(),
        ]
    }
}

fn line(page: &mut String, cells: &[String]) {
    // Writing to a text cannot fail.
    let _ = writeln!(page, "| {} |", cells.join(" | "));
}

/// Three digits at least.
fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
