//! `formwork ready`: what `/readyz` says, for people and for the health checks of containers.

use super::Global;
use super::client::Client;
use super::exit::Failure;
use super::output::{Table, cell, print, print_json};

pub(crate) async fn run(global: &Global) -> Result<(), Failure> {
    let answer = Client::new(global)?.readiness().await?;
    if global.json {
        print_json(&answer)?;
    } else {
        let mut table = Table::new(&["check", "ready", "required", "reason"]);
        for check in answer["checks"].as_array().into_iter().flatten() {
            table.row(["name", "ready", "required", "reason"].map(|name| cell(check.get(name))));
        }
        print(&table.render())?;
    }
    if answer["ready"] == true {
        Ok(())
    } else {
        Err(Failure::Failed(anyhow::anyhow!("{} is not ready", global.server)))
    }
}
