//! The hot statements must find their rows through an index, in order, however many rows there are.

#![allow(clippy::expect_used, reason = "a test that cannot go on says why and fails")]

use super::{connection::open_writer, schema::migrate, work};
use rusqlite::{Connection, types::Null};
use std::time::Duration;

fn database() -> (Connection, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("store.db");
    let mut connection = open_writer(&path, super::Durability::Sync).expect("opens");
    migrate(&mut connection).expect("migrates");
    (connection, folder)
}

fn plan(connection: &Connection, statement: &str) -> String {
    let parameters = statement.matches('?').count();
    let mut statement = connection
        .prepare(&format!("EXPLAIN QUERY PLAN {statement}"))
        .expect("prepares");
    let lines: Vec<String> = statement
        .query_map(rusqlite::params_from_iter(vec![Null; parameters]), |row| row.get(3))
        .expect("explains")
        .collect::<Result<_, _>>()
        .expect("explains");
    lines.join("; ")
}

#[test]
fn a_claim_walks_its_index_in_order() {
    let (connection, _folder) = database();
    let plan = plan(&connection, work::CLAIM);
    assert!(plan.contains("COVERING INDEX tasks_available (pool=?)"), "{plan}");
    assert!(
        !plan.contains("TEMP B-TREE"),
        "a sort would read every waiting task: {plan}"
    );
}

#[test]
fn due_retries_and_ended_leases_are_found_by_time() {
    let (connection, _folder) = database();
    let due = plan(&connection, work::DUE);
    assert!(due.contains("INDEX tasks_retryable (pool=? AND run_at<?)"), "{due}");
    assert!(!due.contains("TEMP B-TREE"), "{due}");
    let ended = plan(&connection, work::ENDED);
    assert!(ended.contains("INDEX tasks_running (lease_until<?)"), "{ended}");
    assert!(!ended.contains("TEMP B-TREE"), "{ended}");
}

/// Counted in SQLite's own virtual machine steps, so that the load of the machine does not matter.
#[test]
fn a_claim_costs_the_same_with_100_and_100_000_waiting_tasks() {
    let (connection, _folder) = database();
    let steps_with = |waiting: u32| {
        connection
            .execute(
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                 INSERT OR IGNORE INTO tasks
                 SELECT printf('%026d', i), 0, 'check', 'contact', 1, 'default', i % 10, 'available',
                        0, 0, 0, 0, i, NULL, 0, NULL, NULL, NULL, i, NULL, NULL, NULL, NULL, 1
                 FROM n",
                [waiting],
            )
            .expect("inserts");
        let mut statement = connection.prepare(work::CLAIM).expect("prepares");
        statement.reset_status(rusqlite::StatementStatus::VmStep);
        let found = statement
            .query_map(rusqlite::params!["default", 32], |row| row.get::<_, String>(0))
            .expect("claims")
            .count();
        assert_eq!(found, 32);
        statement.get_status(rusqlite::StatementStatus::VmStep)
    };
    connection.busy_timeout(Duration::ZERO).expect("is set");
    let (few, many) = (steps_with(100), steps_with(100_000));
    assert!(few > 0);
    assert_eq!(few, many, "virtual machine steps of one claim");
}
