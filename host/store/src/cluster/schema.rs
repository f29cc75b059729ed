//! Collections and indexes, and how an older database becomes a newer one.
//!
//! The schema's version is a document. A node that finds an older one takes a lease and migrates; the others
//! wait. A node that finds a newer one refuses: it would not know what it overwrites. Nodes of the version
//! before go on while a migration runs, so a migration may add, but must leave what they read and write.

use super::database::{Database, failed, is_duplicate};
use crate::{Error, Result, limits};
use mongodb::{
    bson::{Bson, Document, doc},
    error::{Error as MongoError, ErrorKind},
};
use std::time::{Duration, Instant};
use ulid::Ulid;

/// The version this program works with.
const NEWEST: i64 = 1;

/// Every collection; those of one transaction must exist before it.
const COLLECTIONS: [&str; 16] = [
    "forms",
    "form_heads",
    "submissions",
    "submission_data",
    "idempotency",
    "tasks",
    "task_runs",
    "task_events",
    "exports",
    "export_sequences",
    "pool_counts",
    "pool_controls",
    "plugins",
    "plugin_parts",
    "meta",
    "nodes",
];

struct Index {
    collection: &'static str,
    name: &'static str,
    keys: Document,
    /// Only tasks in this state are in the index: it costs nothing while a task is in another one.
    state: Option<&'static str>,
}

fn indexes() -> [Index; 10] {
    let index = |collection, name, keys| Index {
        collection,
        name,
        keys,
        state: None,
    };
    let of_state = |name, keys, state| Index {
        state: Some(state),
        ..index("tasks", name, keys)
    };
    [
        of_state(
            "available",
            doc! { "pool": 1, "priority": -1, "run_at": 1, "_id": 1 },
            "available",
        ),
        of_state("running", doc! { "lease_until": 1 }, "running"),
        of_state("retryable", doc! { "pool": 1, "run_at": 1 }, "retryable"),
        index("tasks", "by_state", doc! { "state": 1, "_id": -1 }),
        index("tasks", "by_form", doc! { "form": 1, "_id": -1 }),
        index("submissions", "by_form", doc! { "form": 1, "_id": -1 }),
        index(
            "exports",
            "by_step",
            doc! { "form": 1, "form_version": 1, "step_name": 1, "sequence": 1 },
        ),
        index("idempotency", "by_submission", doc! { "submission": 1 }),
        index("plugins", "by_digest", doc! { "digest": 1 }),
        index("pool_counts", "by_use", doc! { "at": 1 }),
    ]
}

/// Brings the database to this program's version, and proves that its indexes are there.
pub(super) async fn prepare(database: &Database) -> Result<()> {
    let give_up = Instant::now() + Duration::from_millis(limits::MIGRATION_WAIT_MS);
    let node = Ulid::generate().to_string();
    while version(database).await? < NEWEST {
        if take_lease(database, &node).await? {
            let done = migrate(database).await;
            release_lease(database, &node).await?;
            done?;
        } else if Instant::now() < give_up {
            tokio::time::sleep(Duration::from_millis(limits::RETRY_CAP_MS)).await;
        } else {
            let why = "another node has been migrating the schema for too long; its lease ends by itself";
            return Err(Error::Unavailable {
                operation: "migrate schema",
                source: why.into(),
            });
        }
    }
    for index in indexes() {
        make_index(database, &index).await?;
    }
    check_indexes(database).await
}

async fn version(database: &Database) -> Result<i64> {
    let found = database
        .meta
        .find_one(doc! { "_id": "schema" })
        .await
        .map_err(failed("read schema version"))?;
    let version = found.map_or(Ok(0), |document| document.get_i64("version"));
    let version = version.map_err(|error| Error::backend("read schema version", error))?;
    if version > NEWEST {
        return Err(Error::Unsupported {
            what: "database schema",
            found: format!("version {version}"),
            need: format!("version {NEWEST} or older, this program is older than the database"),
        });
    }
    Ok(version)
}

/// One version further, until the newest. Each step may be run again after it was cut off.
async fn migrate(database: &Database) -> Result<()> {
    while let found @ ..NEWEST = version(database).await? {
        match found {
            0 => make_collections(database).await?,
            other => return Err(Error::backend("migrate schema", format!("no way from version {other}"))),
        }
        let update = doc! { "$set": { "version": found + 1 } };
        let store = database.meta.update_one(doc! { "_id": "schema" }, update).upsert(true);
        store.await.map_err(failed("write schema version"))?;
        tracing::info!(version = found + 1, "database schema migrated");
    }
    Ok(())
}

async fn make_collections(database: &Database) -> Result<()> {
    const NAMESPACE_EXISTS: i32 = 48;
    for name in COLLECTIONS {
        match database.raw.create_collection(name).await {
            Err(error) if command_code(&error) == Some(NAMESPACE_EXISTS) => {}
            other => other.map_err(failed("make collections"))?,
        }
    }
    Ok(())
}

/// The right to migrate, by the server's clock, ending by itself when its holder dies.
async fn take_lease(database: &Database, node: &str) -> Result<bool> {
    let ended = doc! { "_id": "migration", "$expr": { "$lt": ["$until", "$$NOW"] } };
    let until = doc! { "$add": ["$$NOW", limits::MIGRATION_LEASE_MS] };
    let take = vec![doc! { "$set": { "holder": node, "until": until } }];
    match database.meta.update_one(ended, take).upsert(true).await {
        Ok(_) => Ok(true),
        // It is there and has not ended.
        Err(error) if is_duplicate(&error) => Ok(false),
        Err(error) => Err(failed("take the right to migrate")(error)),
    }
}

async fn release_lease(database: &Database, node: &str) -> Result<()> {
    let own = doc! { "_id": "migration", "holder": node };
    database
        .meta
        .delete_one(own)
        .await
        .map_err(failed("end migration"))
        .map(drop)
}

async fn make_index(database: &Database, index: &Index) -> Result<()> {
    /// An index of that name, or over those keys, with other options.
    const CONFLICTS: [i32; 2] = [85, 86];
    let mut specification = doc! { "name": index.name, "key": index.keys.clone() };
    if let Some(state) = index.state {
        specification.insert("partialFilterExpression", doc! { "state": state });
    }
    let command = doc! {
        "createIndexes": index.collection,
        "indexes": [specification],
        "writeConcern": { "w": "majority" },
    };
    match database.raw.run_command(command).await {
        Ok(_) => Ok(()),
        Err(error) if command_code(&error).is_some_and(|code| CONFLICTS.contains(&code)) => {
            Err(wrong_index(index, "one with other keys or options".to_owned()))
        }
        Err(error) => Err(failed("make indexes")(error)),
    }
}

/// A claim without its index would read every task; better not to start.
async fn check_indexes(database: &Database) -> Result<()> {
    for index in indexes() {
        let command = doc! { "listIndexes": index.collection };
        let reply = database
            .raw
            .run_command(command)
            .await
            .map_err(failed("check indexes"))?;
        let cursor = reply
            .get_document("cursor")
            .and_then(|cursor| cursor.get_array("firstBatch"));
        let list = cursor.map_err(|error| Error::backend("check indexes", error))?;
        let named = |document: &&Document| document.get_str("name").is_ok_and(|name| name == index.name);
        let found = list.iter().filter_map(Bson::as_document).find(named);
        let Some(found) = found else {
            return Err(wrong_index(&index, "none".to_owned()));
        };
        let filter = found.get_document("partialFilterExpression");
        let state = filter.ok().and_then(|filter| filter.get_str("state").ok());
        let keys_match = found.get_document("key").is_ok_and(|keys| same_keys(keys, &index.keys));
        if !keys_match || state != index.state {
            return Err(wrong_index(&index, found.to_string()));
        }
    }
    Ok(())
}

/// Directions may come back as any number.
fn same_keys(found: &Document, wanted: &Document) -> bool {
    let sign = |value: &Bson| match value {
        Bson::Int32(number) => f64::from(*number).signum(),
        Bson::Int64(number) => (*number as f64).signum(),
        Bson::Double(number) => number.signum(),
        _ => 0.0,
    };
    found.len() == wanted.len()
        && found
            .iter()
            .zip(wanted)
            .all(|((name, direction), (wanted_name, wanted_direction))| {
                name == wanted_name && sign(direction) == sign(wanted_direction)
            })
}

fn wrong_index(index: &Index, found: String) -> Error {
    Error::Unsupported {
        what: "mongodb index",
        found,
        need: format!(
            "index {} on {} with keys {}; drop the one that is there and start again",
            index.name, index.collection, index.keys
        ),
    }
}

fn command_code(error: &MongoError) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(command) => Some(command.code),
        _ => None,
    }
}
