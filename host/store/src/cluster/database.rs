//! The connection to MongoDB, and how a transaction is tried until it is decided.

use super::{
    clock::Clock,
    controls::ControlDocument,
    counters::Slots,
    documents::{
        DataDocument, EventDocument, ExportDocument, FormDocument, HeadDocument, IdempotencyDocument, RunDocument,
        SubmissionDocument, TaskDocument,
    },
    heartbeat::Locked,
    options::{Durability, Options},
    pace::Pace,
    plans::Plans,
    plugins::{PartDocument, PluginDocument},
    presence::Presence,
    unit::{Consequences, Unit},
};
use crate::{Error, Result, limits, metrics};
use async_trait::async_trait;
use formwork_tasks::Millis;
use mongodb::{
    Client, ClientSession, Collection, Database as MongoDatabase,
    bson::{Document, doc},
    error::{
        Error as MongoError, ErrorKind, TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT, WriteFailure,
    },
    options::{Acknowledgment, ClientOptions, ReadConcern, ReadPreference, SelectionCriteria, WriteConcern},
};
use std::time::{Duration, Instant};
use ulid::Ulid;

/// The collections, with majority reads and the write concern of the store's class.
pub(super) struct Database {
    pub(super) client: Client,
    pub(super) raw: MongoDatabase,
    /// The same database over connections of their own, for signs of life: they stand in no line behind the work.
    pub(super) alive: MongoDatabase,
    pub(super) forms: Collection<FormDocument>,
    pub(super) heads: Collection<HeadDocument>,
    pub(super) submissions: Collection<SubmissionDocument>,
    pub(super) data: Collection<DataDocument>,
    pub(super) idempotency: Collection<IdempotencyDocument>,
    pub(super) tasks: Collection<TaskDocument>,
    pub(super) runs: Collection<RunDocument>,
    pub(super) events: Collection<EventDocument>,
    pub(super) exports: Collection<ExportDocument>,
    pub(super) sequences: Collection<Document>,
    pub(super) counts: Collection<Document>,
    pub(super) controls: Collection<ControlDocument>,
    pub(super) plugins: Collection<PluginDocument>,
    pub(super) plugin_parts: Collection<PartDocument>,
    pub(super) meta: Collection<Document>,
    pub(super) nodes: Collection<Document>,
    pub(super) plans: Plans,
    pub(super) slots: Slots,
    pub(super) presence: Presence,
    pub(super) locked: Locked,
    pace: Pace,
    pub(super) clock: Clock,
    pub(super) write_concern: WriteConcern,
}

/// One method of the store as a transaction that may be run several times until one run is committed; every
/// run starts from what it reads.
#[async_trait]
pub(super) trait Operation: Sync {
    /// What the method answers.
    type Output: Send;

    /// For how long it is run again.
    fn patience(&self) -> Duration {
        Duration::from_millis(limits::TRANSACTION_MS)
    }

    /// Reads, decides, and leaves in the unit what is to be written.
    async fn run(&self, unit: &mut Unit<'_>) -> Result<Self::Output, Abort>;
}

/// Why a run of a transaction ended without a commit.
pub(super) enum Abort {
    /// Somebody else changed what was read: run again.
    Conflict,
    /// The operation says no.
    Refused(Error),
    /// MongoDB says no, or nothing.
    Mongo(MongoError),
}

impl From<Error> for Abort {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<MongoError> for Abort {
    fn from(error: MongoError) -> Self {
        // A key that was free in this transaction's snapshot and is taken now: the next run sees it.
        if is_duplicate(&error) {
            Self::Conflict
        } else {
            Self::Mongo(error)
        }
    }
}

impl Database {
    /// Connects, and refuses servers that cannot keep the promises.
    pub(super) async fn connect(options: &Options) -> Result<Self> {
        let mut client_options = ClientOptions::parse(options.mongodb.expose()).await.map_err(|error| {
            // The driver's message may quote the string, with the password in it.
            let why = match *error.kind {
                ErrorKind::DnsResolve { .. } => "its host name cannot be resolved",
                _ => "it must look like mongodb://user:password@host:27017/?replicaSet=name",
            };
            Error::Invalid {
                what: "mongodb uri",
                why: format!("{}: {why}", options.mongodb),
            }
        })?;
        client_options.app_name.get_or_insert_with(|| "formwork".to_owned());
        client_options.connect_timeout = Some(Duration::from_millis(limits::MONGODB_CONNECT_MS));
        client_options.server_selection_timeout = Some(Duration::from_millis(limits::MONGODB_SELECT_MS));
        client_options.max_pool_size = Some(limits::MONGODB_CONNECTIONS);
        client_options.retry_reads = Some(true);
        client_options.retry_writes = Some(true);
        let write_concern = match options.durability {
            Durability::Sync => WriteConcern::builder()
                .w(Acknowledgment::Majority)
                .journal(true)
                .build(),
            Durability::Interval => WriteConcern::builder()
                .w(Acknowledgment::Nodes(1))
                .journal(false)
                .build(),
        };
        client_options.write_concern = Some(write_concern.clone());
        client_options.read_concern = Some(ReadConcern::majority());
        client_options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
        let mut alive_options = client_options.clone();
        alive_options.max_pool_size = Some(limits::MONGODB_ALIVE_CONNECTIONS);
        let alive = Client::with_options(alive_options).map_err(failed("connect to mongodb"))?;
        let client = Client::with_options(client_options).map_err(failed("connect to mongodb"))?;
        let raw = client.database(&options.database);
        let alive = alive.database(&options.database);
        // This run of the program, in what it leaves for the other nodes.
        let node = Ulid::generate().to_string();
        let database = Self {
            forms: raw.collection("forms"),
            heads: raw.collection("form_heads"),
            submissions: raw.collection("submissions"),
            data: raw.collection("submission_data"),
            idempotency: raw.collection("idempotency"),
            tasks: raw.collection("tasks"),
            runs: raw.collection("task_runs"),
            events: raw.collection("task_events"),
            exports: raw.collection("exports"),
            sequences: raw.collection("export_sequences"),
            counts: raw.collection("pool_counts"),
            controls: raw.collection("pool_controls"),
            plugins: raw.collection("plugins"),
            plugin_parts: raw.collection("plugin_parts"),
            meta: raw.collection("meta"),
            nodes: alive.collection("nodes"),
            plans: Plans::default(),
            slots: Slots::of(node.clone()),
            presence: Presence::of(node),
            locked: Locked::default(),
            pace: Pace::default(),
            clock: Clock::new(options.time),
            write_concern,
            alive,
            client,
            raw,
        };
        let hello = database.hello().await?;
        check_topology(&hello)?;
        Ok(database)
    }

    /// Asks the primary who it is and what time it has.
    pub(super) async fn hello(&self) -> Result<Document> {
        let asked = Instant::now();
        let admin = self.client.database("admin");
        let hello = admin
            .run_command(doc! { "hello": 1 })
            .await
            .map_err(failed("reach mongodb"))?;
        if let Ok(time) = hello.get_datetime("localTime") {
            self.clock.synchronise(Millis(time.timestamp_millis()), asked);
        }
        Ok(hello)
    }

    /// Runs an operation until one run of it is committed, it refuses, or the time for it is over.
    pub(super) async fn transact<O: Operation>(
        &self,
        name: &'static str,
        now: Millis,
        operation: &O,
    ) -> Result<(O::Output, Consequences)> {
        let deadline = Instant::now() + operation.patience();
        let mut wait = Backoff::default();
        loop {
            let error = match self.attempt(name, now, operation, deadline).await {
                Ok(done) => return Ok(done),
                Err(Abort::Refused(error)) => return Err(error),
                Err(Abort::Conflict) => None,
                Err(Abort::Mongo(error)) if error.contains_label(TRANSIENT_TRANSACTION_ERROR) => Some(error),
                Err(Abort::Mongo(error)) => return Err(failed(name)(error)),
            };
            metrics::TRANSACTION_RETRIES.with_label_values(&[name]).inc();
            if Instant::now() >= deadline {
                // Only its kind: the driver's own text has the server's whole answer in it.
                let why = error.map_or_else(
                    || "too many conflicts with other nodes".into(),
                    |error| error.kind.to_string().into(),
                );
                return Err(Error::Unavailable {
                    operation: name,
                    source: why,
                });
            }
            wait.pause().await;
        }
    }

    async fn attempt<O: Operation>(
        &self,
        name: &'static str,
        now: Millis,
        operation: &O,
        deadline: Instant,
    ) -> Result<(O::Output, Consequences), Abort> {
        let _turn = self.pace.turn().await;
        // A lease counts from here, not from before the wait.
        let now = self.clock.now(now);
        let mut session = self.client.start_session().await?;
        self.presence.announce(self, &session, now).await?;
        session
            .start_transaction()
            .read_concern(ReadConcern::snapshot())
            .write_concern(self.write_concern.clone())
            .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
            .await?;
        let timer = metrics::COMMIT_SECONDS.start_timer();
        let mut unit = Unit::new(self, session, now);
        let outcome = match operation.run(&mut unit).await {
            Ok(output) => unit.write().await.map(|()| output),
            Err(abort) => Err(abort),
        };
        let (mut session, _until_decided, consequences) = unit.into_parts();
        match outcome {
            Ok(output) => {
                self.commit(name, &mut session, deadline).await?;
                timer.observe_duration();
                Ok((output, consequences))
            }
            Err(abort) => {
                timer.stop_and_discard();
                // An abort that does not arrive is made up for by the server's own limit.
                let _ = session.abort_transaction().await;
                Err(abort)
            }
        }
    }

    /// Asks for the commit until it is known whether it happened.
    async fn commit(&self, name: &'static str, session: &mut ClientSession, deadline: Instant) -> Result<(), Abort> {
        let mut wait = Backoff::default();
        loop {
            match session.commit_transaction().await {
                Ok(()) => return Ok(()),
                Err(error) if error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT) => {
                    if Instant::now() >= deadline {
                        let unknown = Error::Unavailable {
                            operation: name,
                            source: error.into(),
                        };
                        return Err(Abort::Refused(unknown));
                    }
                    wait.pause().await;
                }
                Err(error) => return Err(Abort::Mongo(error)),
            }
        }
    }
}

/// Waits longer and longer, never twice the same, so that rivals do not meet again.
#[derive(Default)]
struct Backoff {
    tries: u32,
}

impl Backoff {
    async fn pause(&mut self) {
        let ceiling = (limits::RETRY_BASE_MS << self.tries.min(16)).min(limits::RETRY_CAP_MS);
        self.tries += 1;
        let micros = rand::random_range(0..=ceiling * 1_000);
        tokio::time::sleep(Duration::from_micros(micros)).await;
    }
}

const DUPLICATE_KEY: i32 = 11_000;

/// Whether an insert or update met a document with the same key.
pub(super) fn is_duplicate(error: &MongoError) -> bool {
    match &*error.kind {
        ErrorKind::Write(WriteFailure::WriteError(error)) => error.code == DUPLICATE_KEY,
        ErrorKind::Command(error) => error.code == DUPLICATE_KEY,
        _ => duplicate_index(error).is_some(),
    }
}

/// Which of many inserted documents met one with the same key.
pub(super) fn duplicate_index(error: &MongoError) -> Option<usize> {
    let ErrorKind::InsertMany(many) = &*error.kind else {
        return None;
    };
    let mut errors = many.write_errors.iter().flatten();
    errors
        .find(|error| error.code == DUPLICATE_KEY)
        .map(|error| error.index)
}

/// Turns an error of the driver into the store's, at the named operation.
pub(super) fn failed(operation: &'static str) -> impl Fn(MongoError) -> Error {
    /// What a server says that is not, or not for long, the primary, that shuts down, or that ended the session.
    const PASSING: &[i32] = &[
        6, 7, 89, 91, 189, 262, 9_001, 10_107, 11_600, 11_601, 11_602, 13_435, 13_436,
    ];
    move |error| {
        let passing = match &*error.kind {
            ErrorKind::Io(_) | ErrorKind::ServerSelection { .. } | ErrorKind::ConnectionPoolCleared { .. } => true,
            ErrorKind::Command(command) => PASSING.contains(&command.code),
            _ => error.contains_label(TRANSIENT_TRANSACTION_ERROR),
        };
        // The kind says it; the driver's own text repeats labels and sources as `None`.
        let source = error.kind.to_string().into();
        if passing {
            Error::Unavailable { operation, source }
        } else {
            Error::Backend { operation, source }
        }
    }
}

/// Refuses servers without transactions.
fn check_topology(hello: &Document) -> Result<()> {
    let is_replica_set = hello.contains_key("setName");
    let is_router = hello.get_str("msg").is_ok_and(|kind| kind == "isdbgrid");
    if !is_replica_set && !is_router {
        return Err(Error::Unsupported {
            what: "mongodb deployment",
            found: "a standalone server".to_owned(),
            need: "a replica set, because transactions need one: start mongod with --replSet NAME and run \
                   rs.initiate() once (one member is enough to begin with)"
                .to_owned(),
        });
    }
    let found = hello.get_i32("maxWireVersion").unwrap_or(0);
    if found < limits::MONGODB_WIRE_VERSION_LEAST {
        return Err(Error::Unsupported {
            what: "mongodb server",
            found: format!("wire version {found}"),
            need: format!(
                "wire version {} (MongoDB 4.4) or later",
                limits::MONGODB_WIRE_VERSION_LEAST
            ),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_servers_with_transactions_are_accepted() {
        let replica_set = doc! { "setName": "rs0", "maxWireVersion": 21 };
        let router = doc! { "msg": "isdbgrid", "maxWireVersion": 21 };
        assert!(check_topology(&replica_set).is_ok() && check_topology(&router).is_ok());
        let standalone = check_topology(&doc! { "maxWireVersion": 21 }).expect_err("is refused");
        assert!(standalone.to_string().contains("rs.initiate()"), "{standalone}");
        let old = check_topology(&doc! { "setName": "rs0", "maxWireVersion": 8 }).expect_err("is refused");
        assert!(old.to_string().contains("MongoDB 4.4"), "{old}");
    }
}
