//! `formwork form …`: publishing and reading forms of a running server.

use std::path::PathBuf;

use reqwest::Method;
use serde_json::Value;

use super::client::Client;
use super::exit::Failure;
use super::output::{Table, cell, print, print_json};
use super::{Global, read_input};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Publish a form definition.
    Apply {
        /// The definition; `-` reads standard input.
        file: PathBuf,
        /// The form's id; absent: the file's name without extension, or its folder's when that is `form`.
        #[arg(long)]
        id: Option<String>,
    },
    /// Show a form's definition.
    Show {
        /// The form's id.
        id: String,
        /// A version; absent: the latest.
        #[arg(long)]
        version: Option<u32>,
    },
    /// List the forms.
    List,
}

pub(crate) async fn run(command: Command, global: &Global) -> Result<(), Failure> {
    let client = Client::new(global)?;
    match command {
        Command::Apply { file, id } => apply(&client, &file, id, global).await,
        Command::Show { id, version } => {
            let version = version.map(|version| version.to_string());
            let path = match &version {
                Some(version) => vec!["forms", &id, "versions", version],
                None => vec!["forms", &id],
            };
            print_json(&client.get(&path, &[]).await?)?;
            Ok(())
        }
        Command::List => list(&client, global).await,
    }
}

async fn apply(client: &Client, file: &std::path::Path, id: Option<String>, global: &Global) -> Result<(), Failure> {
    let id = id
        .or_else(|| id_of(file))
        .ok_or_else(|| Failure::Usage("name the form with --id".into()))?;
    let request = client.request(Method::PUT, &["forms", &id], &[]);
    let request = request
        .header("content-type", "application/json")
        .body(read_input(file)?);
    let (_, answer) = client.send(request).await?;
    if global.json {
        print_json(&answer)?;
    } else {
        let what = if answer["created"] == true {
            "published"
        } else {
            "unchanged"
        };
        print(&format!(
            "{} version {} {what}",
            cell(answer.get("id")),
            cell(answer.get("version"))
        ))?;
    }
    Ok(())
}

/// `forms/contact.json` and `contact/form.json` are both the form `contact`.
fn id_of(file: &std::path::Path) -> Option<String> {
    let stem = file.file_stem()?.to_str()?;
    let name = match stem {
        "form" => file.parent()?.file_name()?.to_str()?,
        "-" => return None,
        other => other,
    };
    Some(name.to_owned())
}

async fn list(client: &Client, global: &Global) -> Result<(), Failure> {
    let answer = client.get(&["forms"], &[("limit", Some("1000".into()))]).await?;
    if global.json {
        print_json(&answer)?;
        return Ok(());
    }
    let mut table = Table::new(&["form", "version", "published", "digest"]);
    for form in answer["items"].as_array().into_iter().flatten() {
        table.row(["id", "version", "created_at", "digest"].map(|name| cell(form.get(name))));
    }
    print(&table.render())?;
    if !matches!(answer.get("next"), None | Some(Value::Null)) {
        eprintln!("there are more forms than these; page through them over HTTP");
    }
    Ok(())
}
