//! `formwork task …` and `formwork pool …`: looking at the work of a running server, and at single tasks of it.

use reqwest::Method;
use serde_json::Value;

use super::Global;
use super::client::Client;
use super::exit::Failure;
use super::output::{Table, cell, print, print_json};
use super::task_watch;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List tasks, those of the newest submission first.
    List {
        /// available, running, retryable, completed, cancelled or dead.
        #[arg(long)]
        state: Option<String>,
        #[command(flatten)]
        which: Box<Selection>,
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
    /// Show what happens to a task, as it happens, until it has ended; fails unless it was completed.
    Watch {
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
    /// Claim no more tasks of a pool, on every node; what runs goes on.
    Pause {
        /// high, default or batched.
        pool: String,
    },
    /// Claim tasks of a paused pool again.
    Resume {
        /// high, default or batched.
        pool: String,
    },
    /// Change what a pool may use, on every node; `default` puts a value back to the configuration's.
    Set {
        /// high, default or batched.
        pool: String,
        /// CPU limit on each node, such as 0.5.
        #[arg(long)]
        cpus: Option<String>,
        /// Whether it may use more while nothing else wants the CPU: true or false.
        #[arg(long)]
        burst: Option<String>,
        /// Tasks each node may have claimed at once.
        #[arg(long)]
        permits: Option<String>,
    },
}

/// `formwork dead …`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum DeadCommand {
    /// List dead tasks, those of the newest submission first.
    List {
        #[command(flatten)]
        which: Selection,
        /// How many at most.
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// The `next` of the list before.
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Run dead tasks again, oldest first, with their counters at zero. Needs a filter, or --all.
    Redrive {
        #[command(flatten)]
        which: Selection,
        /// Really all of them.
        #[arg(long)]
        all: bool,
        /// Tasks at most; all that match when absent.
        #[arg(long)]
        limit: Option<u32>,
    },
}

/// Which tasks.
#[derive(Debug, clap::Args)]
pub(crate) struct Selection {
    /// Why it is dead: failed, exhausted or crashed.
    #[arg(long)]
    reason: Option<String>,
    /// The code of the latest error.
    #[arg(long)]
    code: Option<String>,
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
    /// Ended at this time or later, RFC 3339.
    #[arg(long)]
    from: Option<String>,
    /// Ended before this time, RFC 3339.
    #[arg(long)]
    until: Option<String>,
}

impl Selection {
    fn members(self) -> [(&'static str, Option<String>); 8] {
        [
            ("reason", self.reason),
            ("code", self.code),
            ("pool", self.pool),
            ("form", self.form),
            ("step", self.step),
            ("submission", self.submission),
            ("from", self.from),
            ("until", self.until),
        ]
    }
}

pub(crate) async fn dead(command: DeadCommand, global: &Global) -> Result<(), Failure> {
    let client = Client::new(global)?;
    match command {
        DeadCommand::List { which, limit, cursor } => {
            let mut query = which.members().to_vec();
            query.extend([("limit", Some(limit.to_string())), ("cursor", cursor)]);
            list(&client.get(&["dead-letters"], &query).await?, global)
        }
        DeadCommand::Redrive { which, all, limit } => redrive(&client, which, all, limit, global).await,
    }
}

async fn redrive(
    client: &Client,
    which: Selection,
    all: bool,
    limit: Option<u32>,
    global: &Global,
) -> Result<(), Failure> {
    let mut request = serde_json::Map::new();
    for (name, value) in which.members() {
        if let Some(value) = value {
            request.insert(name.into(), value.into());
        }
    }
    request.insert("all".into(), all.into());
    let (mut count, mut more) = (0_u64, true);
    while more && limit.is_none_or(|limit| count < limit.into()) {
        if let Some(limit) = limit {
            request.insert("limit".into(), (u64::from(limit) - count).min(REDRIVE_TURN).into());
        }
        let post = client.request(Method::POST, &["dead-letters", "redrive"], &[]);
        let (_, answer) = client.send(post.json(&request)).await?;
        count += answer["count"].as_u64().unwrap_or(0);
        more = answer["more"] == true;
    }
    if global.json {
        print_json(&serde_json::json!({ "count": count, "more": more }))?;
    } else {
        print(&format!(
            "{count} tasks run again{}",
            if more { ", more match" } else { "" }
        ))?;
    }
    Ok(())
}

/// Tasks one request of a redrive asks for: what the server takes in one transaction.
const REDRIVE_TURN: u64 = formwork_store::limits::REDRIVE_TASKS as u64;

pub(crate) async fn run(command: Command, global: &Global) -> Result<(), Failure> {
    let client = Client::new(global)?;
    match command {
        Command::List {
            state,
            which,
            limit,
            cursor,
        } => {
            let mut query = which.members().to_vec();
            query.extend([("state", state), ("limit", Some(limit.to_string())), ("cursor", cursor)]);
            list(&client.get(&["tasks"], &query).await?, global)
        }
        Command::Show { id } => show(&client.get(&["tasks", &id], &[]).await?, global),
        Command::Watch { id } => task_watch::run(&client, &id, global).await,
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
    let client = Client::new(global)?;
    let (request, pool) = match command {
        PoolCommand::List => return list_pools(&client.get(&["pools"], &[]).await?, global),
        PoolCommand::Pause { pool } => (client.request(Method::POST, &["pools", &pool, "pause"], &[]), pool),
        PoolCommand::Resume { pool } => (client.request(Method::POST, &["pools", &pool, "resume"], &[]), pool),
        PoolCommand::Set {
            pool,
            cpus,
            burst,
            permits,
        } => {
            let given = [("cpus", cpus), ("burst", burst), ("permits", permits)];
            let mut change = serde_json::Map::new();
            for (name, text) in given {
                if let Some(text) = text {
                    change.insert(name.into(), control(name, &text)?);
                }
            }
            let request = client.request(Method::PATCH, &["pools", &pool], &[]);
            (request.json(&change), pool)
        }
    };
    let (_, answer) = client.send(request).await?;
    if global.json {
        print_json(&answer)?;
        return Ok(());
    }
    let set = |name: &str| match &answer[name] {
        Value::Null => format!("{name} as configured"),
        value => format!("{name} {value}"),
    };
    let state = if answer["paused"] == true {
        "paused"
    } else {
        "claims tasks"
    };
    print(&format!(
        "{pool}: {state}, {}, {}, {} (every node, within a second)",
        set("cpus"),
        set("burst"),
        set("permits")
    ))?;
    Ok(())
}

/// A value as JSON; the server says whether it can be one.
fn control(name: &str, text: &str) -> Result<Value, Failure> {
    if text == "default" {
        return Ok(Value::Null);
    }
    text.parse()
        .map_err(|_| Failure::Usage(format!("--{name} takes a value or `default`, got `{text}`")))
}

fn list_pools(answer: &Value, global: &Global) -> Result<(), Failure> {
    if global.json {
        print_json(answer)?;
        return Ok(());
    }
    let mut table = Table::new(&[
        "pool",
        "here",
        "paused",
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
            count("paused"),
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
