//! `formwork task …` and `formwork pool …`: looking at the work of a running server, and at single tasks of it.

use reqwest::Method;
use serde_json::Value;

use super::Global;
use super::client::Client;
use super::exit::Failure;
use super::output::{Table, cell, print, print_json};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List tasks, those of the newest submission first.
    List {
        /// available, running, retryable, completed, cancelled or dead.
        #[arg(long)]
        state: Option<String>,
        /// high, default or batched.
        #[arg(long)]
        pool: Option<String>,
        /// A form's id.
        #[arg(long)]
        form: Option<String>,
        /// A step's name.
        #[arg(long)]
        step: Option<String>,
        /// A submission's id.
        #[arg(long)]
        submission: Option<String>,
        /// How many at most.
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// The `next` of the list before.
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Show a task with its history.
    Show {
        /// The task's id.
        id: String,
    },
    /// Cancel a task.
    Cancel {
        /// The task's id.
        id: String,
    },
    /// Run a dead, cancelled or retryable task again, now.
    Retry {
        /// The task's id.
        id: String,
    },
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum PoolCommand {
    /// List the pools and their load.
    List,
}

pub(crate) async fn run(command: Command, global: &Global) -> Result<(), Failure> {
    let client = Client::new(global)?;
    match command {
        Command::List {
            state,
            pool,
            form,
            step,
            submission,
            limit,
            cursor,
        } => {
            let query = [
                ("state", state),
                ("pool", pool),
                ("form", form),
                ("step", step),
                ("submission", submission),
                ("limit", Some(limit.to_string())),
                ("cursor", cursor),
            ];
            list(&client.get(&["tasks"], &query).await?, global)
        }
        Command::Show { id } => show(&client.get(&["tasks", &id], &[]).await?, global),
        Command::Cancel { id } => operate(&client, &id, "cancel", global).await,
        Command::Retry { id } => operate(&client, &id, "retry", global).await,
    }
}

async fn operate(client: &Client, id: &str, operation: &str, global: &Global) -> Result<(), Failure> {
    let (_, answer) = client
        .send(client.request(Method::POST, &["tasks", id, operation], &[]))
        .await?;
    if global.json {
        print_json(&answer)?;
    } else if answer["cancel_requested"] == true {
        print(&format!("{id} is running and was told to stop"))?;
    } else {
        print(&format!("{id} is {}", cell(answer.get("state"))))?;
    }
    Ok(())
}

fn list(answer: &Value, global: &Global) -> Result<(), Failure> {
    if global.json {
        print_json(answer)?;
        return Ok(());
    }
    let mut table = Table::new(&["task", "form", "step", "pool", "state", "attempts", "error"]);
    for task in answer["items"].as_array().into_iter().flatten() {
        let form = format!(
            "{} v{}",
            cell(task["form"].get("id")),
            cell(task["form"].get("version"))
        );
        let [id, step, pool, state, attempts] =
            ["id", "step", "pool", "state", "attempts"].map(|name| cell(task.get(name)));
        table.row([
            id,
            form,
            step,
            pool,
            state,
            attempts,
            cell(task["error"].get("message")),
        ]);
    }
    print(&table.render())?;
    if let Some(next) = answer["next"].as_str() {
        eprintln!("more: --cursor {next}");
    }
    Ok(())
}

fn show(task: &Value, global: &Global) -> Result<(), Failure> {
    if global.json {
        print_json(task)?;
        return Ok(());
    }
    let mut text = String::new();
    for name in [
        "id",
        "submission",
        "step",
        "pool",
        "state",
        "attempts",
        "worker",
        "cpu_ms",
        "started_at",
        "finished_at",
    ] {
        text.push_str(&format!("{name:<12} {}\n", cell(task.get(name))));
    }
    text.push_str(&format!(
        "{:<12} {} {}\n",
        "plugin",
        cell(task["plugin"].get("name")),
        cell(task["plugin"].get("version"))
    ));
    if let Some(message) = task["error"]["message"].as_str() {
        text.push_str(&format!(
            "{:<12} {} ({message})\n",
            "error",
            cell(task["error"].get("code"))
        ));
    }
    text.push_str(&format!("{:<12} {}\n\n", "output", cell(task.get("output"))));
    let mut table = Table::new(&["#", "at", "who", "from", "to", "why"]);
    for event in task["history"].as_array().into_iter().flatten() {
        table.row(["sequence", "at", "who", "from", "to", "why"].map(|name| cell(event.get(name))));
    }
    print(&(text + &table.render()))?;
    Ok(())
}

pub(crate) async fn pools(command: PoolCommand, global: &Global) -> Result<(), Failure> {
    let PoolCommand::List = command;
    let answer = Client::new(global)?.get(&["pools"], &[]).await?;
    if global.json {
        print_json(&answer)?;
        return Ok(());
    }
    let mut table = Table::new(&[
        "pool",
        "here",
        "threads",
        "CPUs",
        "enforced by",
        "busy",
        "available",
        "running",
        "retryable",
        "completed",
        "dead",
    ]);
    for pool in answer["items"].as_array().into_iter().flatten() {
        let busy = format!("{:.0}%", pool["busy_ratio"].as_f64().unwrap_or(0.0) * 100.0);
        let cpus = match (pool["cpus"].as_f64(), pool["burst"].as_bool()) {
            (None, _) => "no limit".to_owned(),
            (Some(cpus), Some(true)) => format!("{cpus}, may burst"),
            (Some(cpus), _) => cpus.to_string(),
        };
        let count = |name: &str| cell(pool.get(name));
        table.row([
            count("name"),
            count("presence"),
            count("threads"),
            cpus,
            count("enforcement"),
            busy,
            count("available"),
            count("running"),
            count("retryable"),
            count("completed"),
            count("dead"),
        ]);
    }
    print(&table.render())?;
    Ok(())
}
