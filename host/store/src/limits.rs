//! Every limit of the store, in one place.

use std::time::Duration;

/// Items a page has when nothing is said.
pub const PAGE_ITEMS_DEFAULT: u32 = 50;

/// Items a page has at most: a page is one reader's turn.
pub const PAGE_ITEMS: u32 = 1_000;

/// Tasks one claim returns at most: each brings its submission's data into memory.
pub const CLAIM_TASKS: u32 = 256;

/// Due retries one claim makes available at most, so that a flood of them cannot hold the writer.
pub const PROMOTE_TASKS: u32 = 256;

/// Ended leases one reap settles at most; the caller comes again while the answer is full.
pub const REAP_TASKS: u32 = 256;

/// Dead tasks one redrive makes available at most, so that a full dead-letter queue cannot hold the writer.
pub const REDRIVE_TASKS: u32 = 256;

/// Submissions one slice of a retention sweep looks at (and deletes) at most: some milliseconds of the writer.
pub const EXPIRE_SUBMISSIONS: u32 = 256;

/// Export chunks one call deletes at most.
pub const EXPIRE_EXPORTS: u32 = 512;

/// Bytes of a form's definition, of the submissions that one call records, and of a result (output and export chunk
/// together): a MongoDB document may have 16 MiB, with what is kept beside them, and a transaction must fit into its
/// server's cache several times. The same for every backend, so that an installation can change from one to the other.
pub const DOCUMENT_BYTES: usize = 15 << 20;

/// Bytes of a progress message that are kept.
pub const PROGRESS_MESSAGE_BYTES: usize = 256;

/// Bytes of an error message that are kept.
pub const ERROR_MESSAGE_BYTES: usize = 4_096;

/// Bytes of an error code that are kept.
pub const ERROR_CODE_BYTES: usize = 128;

/// Events a slow subscriber may be behind before it misses some (and is told so).
pub const EVENT_BACKLOG: usize = 4_096;

/// SQLite before this version can lose committed data when a write-ahead log is reset.
pub const SQLITE_VERSION_LEAST: i32 = 3_051_003;

/// Writes that share one commit at most: bounds how long the first of them waits for the last.
pub const GROUP_WRITES: usize = 256;

/// The part of the latest commit's time, as its divisor, for which a group waits for as many writers as the one before
/// had. Clients that were just answered come back within this where an fsync takes long; without it they would form two
/// groups that take turns, each paying one. Where an fsync is fast, a second one costs less than the wait.
pub const GROUP_LINGER_PART: u32 = 8;

/// The longest such wait.
pub const GROUP_LINGER_LONGEST: Duration = Duration::from_millis(1);

/// Writes that may wait for the writer; later callers wait for a place.
pub const WRITE_BACKLOG: usize = 4_096;

/// Reads that may wait for a reader; later callers wait for a place.
pub const READ_BACKLOG: usize = 1_024;

/// Reader threads. Reads are short and mostly cached; more threads than this fight for the CPU.
pub const READERS: usize = 2;

/// Pages in the write-ahead log from which the writer copies them into the database file, after it has
/// answered. 1,000 pages of 4 KiB: a log that starts over soon is written in place, and on many disks an fsync of a file
/// that has not grown takes a tenth of one that has.
pub const CHECKPOINT_PAGES: u64 = 1_000;

/// Pages in the write-ahead log from which the writer also waits for readers, to start it over.
pub const CHECKPOINT_PAGES_HARD: u64 = 64 * CHECKPOINT_PAGES;

/// Bytes to which the write-ahead log file is cut when it starts over.
pub const WAL_FILE_BYTES: i64 = 64 << 20;

/// How long, in milliseconds, a statement waits when a foreign program (a backup, the `sqlite3` shell)
/// holds the database.
pub const BUSY_MS: u64 = 5_000;

/// Page cache of each connection, in KiB. More does not help, as what it misses is in the system's page cache: with 64 MiB
/// `formwork bench queue` completed 2 to 11 % fewer tasks a second.
pub const PAGE_CACHE_KIB: i64 = 8 << 10;

/// Prepared statements each connection keeps; more than the store has.
pub const STATEMENTS: usize = 128;

/// Form versions whose plan the writer keeps in memory.
pub const PLANS: usize = 1_024;

/// In class `interval`, milliseconds of acknowledged writes that a power cut may take at most, when
/// nothing is said.
pub const INTERVAL_MS: u64 = 1_000;

/// Tasks in one state up to which a list filtered by that state sorts them through that state's index; with
/// more of them, walking all tasks from the newest one finds a page sooner.
pub const STATE_SORT_TASKS: u64 = 10_000;

// === MongoDB and Redis ===

/// The oldest Redis that is accepted: before 7.0 a script's effects are replicated in part only, and nothing older is
/// maintained.
pub const REDIS_VERSION_LEAST: (u32, u32) = (7, 0);

/// Characters a database or namespace may have: what every MongoDB service allows.
pub const CLUSTER_NAME_BYTES: usize = 38;

/// The oldest MongoDB that is accepted, by its wire version: 4.4, the first with `hello` on all its releases.
pub const MONGODB_WIRE_VERSION_LEAST: i32 = 9;

/// Connections one node opens to MongoDB at most; a transaction holds one while a statement runs.
pub const MONGODB_CONNECTIONS: u32 = 64;

/// Further connections for signs of life (heartbeats, presence): enough for all commands of a heartbeat of two hundred runs.
pub const MONGODB_ALIVE_CONNECTIONS: u32 = 8;

/// Transactions and reads of one node at a time; later callers wait for a place.
pub const CLUSTER_OPERATIONS: u32 = 512;

/// How long, in milliseconds, making a connection to MongoDB may take.
pub const MONGODB_CONNECT_MS: u64 = 5_000;

/// How long, in milliseconds, one statement waits for a primary; an election takes some seconds and the
/// transaction is then run again.
pub const MONGODB_SELECT_MS: u64 = 5_000;

/// Tasks one transaction takes back at most: whoever changes one of them meanwhile undoes it for all of them.
pub const TRANSACTION_TASKS: usize = 16;

/// Transactions of one node under way at most: more than there are connections would only hold locks and snapshots longer.
pub const TRANSACTIONS_MOST: usize = MONGODB_CONNECTIONS as usize;

/// Transactions of one node under way at least, however slow MongoDB is: enough that one which hangs holds up few.
pub const TRANSACTIONS_LEAST: usize = 4;

/// How long, in milliseconds, a transaction takes when MongoDB is overloaded: a hundred times as long as usual, and far less
/// than a lease.
pub const TRANSACTION_SLOW_MS: u64 = 1_000;

/// Runs whose leases one command prolongs at most; commands go side by side, so that a task that is locked holds up few.
pub const HEARTBEAT_TASKS: usize = 32;

/// How long, in milliseconds, a transaction is run again before its caller is told to come back: longer than an
/// election (12 s at most by default), shorter than a lease (30 s).
pub const TRANSACTION_MS: u64 = 20_000;

/// How long, in milliseconds, taking tasks back is tried again: the reaper comes again anyway, and a task that a killed
/// node has locked must not keep it from the others.
pub const REAP_MS: u64 = 500;

/// How long, in milliseconds, a node says nothing before its transactions are ended. It speaks every second
/// ([`UPKEEP_MS`]); shorter than a lease, so that its tasks can be taken back when theirs end.
pub const NODE_SILENT_MS: i64 = 5_000;

/// Sessions of MongoDB that a node remembers having used: as many as it has transactions at a time, at most.
pub const NODE_SESSIONS: usize = CLUSTER_OPERATIONS as usize;

/// The first wait, in milliseconds, before a transaction is run again; doubles, with full jitter.
pub const RETRY_BASE_MS: u64 = 4;

/// The longest such wait, in milliseconds.
pub const RETRY_CAP_MS: u64 = 250;

/// How long, in milliseconds, a node may hold the right to migrate the schema before another one takes over.
pub const MIGRATION_LEASE_MS: i64 = 60_000;

/// How long, in milliseconds, a starting node waits for another one's migration.
pub const MIGRATION_WAIT_MS: u64 = 120_000;

/// How long, in milliseconds, a connection to Redis may take.
pub const REDIS_CONNECT_MS: u64 = 1_000;

/// How long, in milliseconds, an answer of Redis may take before work goes on without it. Scripts take well under
/// a millisecond.
pub const REDIS_ANSWER_MS: u64 = 1_000;

/// How long, in milliseconds, ids that were handed out stay held in the index before they are looked at again. It bounds
/// how long a task waits whose claim was lost on the way (Redis answered too late). A claim whose transaction takes
/// longer may meet another one for the same task; MongoDB decides between them.
pub const INDEX_HOLD_MS: u64 = 5_000;

/// Tasks one script call tells the index at most; `unpack` in Lua ends at some 8,000 values and Redis serves
/// nobody else meanwhile.
pub const INDEX_BATCH: usize = 500;

/// How often one claim asks the index again when it named tasks that have moved on, or retries that were due.
pub const CLAIM_LOOKS: u32 = 8;

/// How often, in milliseconds, a node looks after the index.
pub const UPKEEP_MS: u64 = 1_000;

/// Tasks one slice of the reconciling sweep compares with the index.
pub const SWEEP_TASKS: u32 = 1_000;

/// How long, in milliseconds, a node that sweeps keeps that duty to itself.
pub const SWEEP_LEASE_MS: u64 = 5_000;

/// How long, in milliseconds, a rebuild of the index may be silent before another node begins it anew.
pub const REBUILD_LEASE_MS: u64 = 15_000;

/// How often, in milliseconds, the MongoDB server's clock is read.
pub const CLOCK_SYNC_MS: u64 = 10_000;

/// How long, in milliseconds, a slot of the pool counters is unused before it is folded into the sum.
pub const COUNTER_SLOT_IDLE_MS: i64 = 600_000;

/// How often, in milliseconds, the event channel is proven alive.
pub const EVENTS_PING_MS: u64 = 5_000;

/// How long, in milliseconds, to wait before connecting to the event channel again.
pub const EVENTS_RECONNECT_MS: u64 = 200;

/// Bytes of a plugin's component in one document: below the 16 MiB a document may have.
pub const PLUGIN_PART_BYTES: usize = 8 << 20;
