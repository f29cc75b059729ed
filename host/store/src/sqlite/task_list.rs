//! Lists of tasks: which of three ways leads to a page soonest.
//!
//! An index for every filter would be written with every move of every task. Instead a list walks either the
//! partial index of a rare state, or the submissions of a form, or all tasks from the newest one.

use super::{
    rows::{all, lifecycle_columns, one, task_id},
    views::{task_columns, task_summary},
};
use crate::{Page, Paged, Result, TaskFilter, TaskId, TaskSummary, limits, paging};
use formwork_tasks::State;
use rusqlite::{Connection, ToSql, params, params_from_iter};

/// Conditions and the values they are about.
#[derive(Default)]
struct Conditions {
    texts: Vec<String>,
    values: Vec<Box<dyn ToSql>>,
}

impl Conditions {
    /// The placeholder of a value.
    fn value(&mut self, value: impl ToSql + 'static) -> String {
        self.values.push(Box::new(value));
        format!("?{}", self.values.len())
    }

    fn equal(&mut self, column: &str, value: impl ToSql + 'static) {
        let value = self.value(value);
        self.texts.push(format!("{column} = {value}"));
    }

    /// What the filter asks for; the form stands in `form_column`.
    fn add(&mut self, filter: &TaskFilter, form_column: &str) {
        if let Some(submission) = filter.submission {
            self.equal("tasks.submission", submission.to_string());
        }
        if let Some(pool) = filter.pool {
            self.equal("pool", pool.as_str());
        }
        if let Some(step) = &filter.step {
            self.equal("step_name", step.clone());
        }
        if let Some(form) = &filter.form {
            self.equal(form_column, form.clone());
        }
        if let Some(state) = filter.state {
            // A literal, so that it matches the partial index.
            self.texts.push(format!("state = '{}'", state.as_str()));
        }
        if let Some(reason) = filter.dead_reason {
            self.equal("dead_reason", reason.as_str());
        }
        if let Some(code) = &filter.error_code {
            self.equal("error_code", code.clone());
        }
        if let Some(from) = filter.finished_from {
            let from = self.value(from.0);
            self.texts.push(format!("finished_at >= {from}"));
        }
        if let Some(until) = filter.finished_until {
            let until = self.value(until.0);
            self.texts.push(format!("finished_at < {until}"));
        }
    }

    fn joined(&self) -> String {
        match self.texts.join(" AND ") {
            none if none.is_empty() => "true".to_owned(),
            some => some,
        }
    }
}

/// Tasks that match a filter, newest submission first.
pub(super) fn tasks(connection: &Connection, filter: &TaskFilter, page: &Page) -> Result<Paged<TaskSummary>> {
    let path = access_path(connection, filter)?;
    let mut conditions = Conditions::default();
    if let Some(after) = paging::after::<TaskId>(page)? {
        let submission = conditions.value(after.submission.to_string());
        let step = conditions.value(after.step);
        conditions
            .texts
            .push(format!("(tasks.submission, tasks.step) < ({submission}, {step})"));
        if matches!(path, AccessPath::Form) {
            conditions.texts.push(format!("submissions.id <= {submission}"));
        }
    }
    conditions.add(
        filter,
        match path {
            AccessPath::Form => "submissions.form",
            _ => "tasks.form",
        },
    );
    let limit = conditions.value(paging::fetch(page));
    let mut condition = conditions.joined();
    let (from, order) = match path {
        AccessPath::State(state) => {
            // A partial index asks for its condition in so many words.
            let of_index = format!("state = '{}'", state.as_str());
            if filter.state.is_none() {
                condition = format!("{condition} AND {of_index}");
            }
            (format!("tasks INDEXED BY tasks_{}", state.as_str()), "tasks.submission")
        }
        AccessPath::Form => (
            "submissions INDEXED BY submissions_by_form
             CROSS JOIN tasks ON tasks.submission = submissions.id"
                .to_owned(),
            "submissions.id",
        ),
        AccessPath::Newest => ("tasks NOT INDEXED".to_owned(), "tasks.submission"),
    };
    let statement = format!(
        "SELECT {} FROM {from} WHERE {condition}
         ORDER BY {order} DESC, tasks.step DESC LIMIT {limit}",
        task_columns!()
    );
    let items = all(
        connection,
        &statement,
        params_from_iter(conditions.values),
        task_summary,
    )?;
    Ok(paging::paged(page, items, |task| task.id.to_string()))
}

/// Dead tasks that match a filter of such, oldest submission first; at most `limit`.
pub(super) fn dead(connection: &Connection, filter: &TaskFilter, limit: u32) -> Result<Vec<TaskId>> {
    let mut conditions = Conditions::default();
    conditions.add(filter, "tasks.form");
    let limit = conditions.value(limit);
    let statement = format!(
        "SELECT submission, step FROM tasks INDEXED BY tasks_dead WHERE {}
         ORDER BY submission, step LIMIT {limit}",
        conditions.joined()
    );
    all(connection, &statement, params_from_iter(conditions.values), |row| {
        task_id(row, 0)
    })
}

#[derive(Clone, Copy)]
enum AccessPath {
    Newest,
    State(State),
    Form,
}

fn access_path(connection: &Connection, filter: &TaskFilter) -> Result<AccessPath> {
    if filter.submission.is_some() {
        return Ok(AccessPath::Newest);
    }
    // A reason can be that of a dead task only.
    let state = filter.state.or(filter.dead_reason.map(|_| State::Dead));
    if let Some(state) = state
        && state != State::Completed
    {
        let count = one(
            connection,
            "SELECT coalesce(sum(count), 0) FROM pool_counts WHERE state = ?1",
            params![state.as_str()],
            |row| row.get::<_, u64>(0),
        )?;
        if count.unwrap_or(0) <= limits::STATE_SORT_TASKS {
            return Ok(AccessPath::State(state));
        }
    }
    Ok(if filter.form.is_some() {
        AccessPath::Form
    } else {
        AccessPath::Newest
    })
}
