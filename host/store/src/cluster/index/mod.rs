//! The dispatch index in Redis: which tasks wait, in which order. It may be lost at any moment.
//!
//! **Problem.** Many workers that look for the first waiting task in MongoDB all find the same one, and all but
//! one conflict. **Promise.** A claim pops what nobody else has; whatever Redis loses is found again in MongoDB.
//! **Cost.** A second server, and an index that can be wrong: MongoDB decides every claim, so a wrong entry costs
//! a look, and a missing one waits for the sweep. **Rejected.** Redis as the queue itself: its acknowledged writes
//! can be lost (asynchronous replication, `appendfsync everysec`); streams: no priorities, no due times.
//!
//! Keys of a pool share a hash tag, so that each script stays within one slot of a cluster. Scripts go by their
//! digest and are loaded again when Redis has forgotten them; none is sent inside a pipeline, where that would fail.

use super::options::Options;
use crate::{Error, Result, TaskId, limits, metrics, record::TaskRecord};
use formwork_tasks::{Millis, Pool, State};
use redis::{
    Client, FromRedisValue, RedisError, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use ulid::Ulid;

/// The version of keys and scripts. Nodes of two versions do not see each other's keys; each index is complete by
/// itself, and MongoDB decides between them.
const VERSION: u32 = 1;

/// How an index call failed; work goes on without it.
#[derive(Debug, thiserror::Error)]
pub(super) enum IndexError {
    /// A call failed a moment ago; the upkeep will say when to try again.
    #[error("the dispatch index is down")]
    Down,
    /// No answer in time.
    #[error("redis did not answer within {} ms", limits::REDIS_ANSWER_MS)]
    Late,
    /// Redis or the connection says no.
    #[error("redis: {0}")]
    Redis(#[from] RedisError),
}

/// What a claim finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The index is not whole: look into MongoDB.
    Unknown,
    /// These retries' time has come; make them available first.
    Due(Vec<String>),
    /// These tasks were waiting.
    Ready(Vec<String>),
}

/// What the index is told about a task.
#[derive(Clone, Debug)]
pub(super) struct Word {
    what: &'static str,
    key: String,
    score: f64,
}

impl Word {
    /// How a task is now; `None` when the index need not know.
    pub(super) fn about(task: &TaskRecord) -> Option<Self> {
        let life = &task.lifecycle;
        match life.state {
            State::Available => Some(Self::new("ready", task.id, ready_score(task))),
            State::Retryable => Some(Self::new("due", task.id, time_score(life.run_at))),
            State::Cancelled => Some(Self::new("gone", task.id, 0.0)),
            // A claim settles what it took; a task that ends was running.
            State::Running | State::Completed | State::Dead => None,
        }
    }

    /// How a task is now, in place of whatever the index thinks.
    pub(super) fn correction(task: &TaskRecord) -> Self {
        Self::about(task).unwrap_or_else(|| Self::new("gone", task.id, 0.0))
    }

    /// That a task waits, in case the index does not know it.
    pub(super) fn reminder(task: &TaskRecord) -> Option<Self> {
        let word = Self::about(task)?;
        let what = match word.what {
            "ready" => "missing_ready",
            "due" => "missing_due",
            _ => return None,
        };
        Some(Self { what, ..word })
    }

    /// That a task which was handed out needs no hold any more.
    pub(super) fn settled(key: String) -> Self {
        Self {
            what: "settled",
            key,
            score: 0.0,
        }
    }

    fn new(what: &'static str, id: TaskId, score: f64) -> Self {
        Self {
            what,
            key: super::documents::task_key(id),
            score,
        }
    }
}

/// The order of claims as one number: priority first, then time. Equal ones are ordered by their key, which is by
/// age. Exact: ten priorities and times until the year 2527 fit into the 53 bits of a double.
fn ready_score(task: &TaskRecord) -> f64 {
    const TIMES: f64 = (1_u64 << 44) as f64;
    let after = f64::from(9 - task.priority.level());
    after * TIMES + time_score(task.lifecycle.run_at).clamp(0.0, TIMES - 1.0)
}

fn time_score(at: Millis) -> f64 {
    at.0 as f64
}

struct Scripts {
    take: Script,
    tell: Script,
    overdue: Script,
    duty: Script,
    whole: Script,
}

/// The dispatch index.
pub(super) struct Index {
    /// This node, random per start.
    pub(super) node: String,
    namespace: String,
    pub(super) client: Client,
    connection: ConnectionManager,
    scripts: Scripts,
    up: AtomicBool,
    /// Pools of which this node could not tell the index something: it is not whole, whatever the epoch says.
    behind: [AtomicBool; Pool::ALL.len()],
}

impl Index {
    /// Prepares a connection; the first call makes it.
    pub(super) fn new(options: &Options) -> Result<Self> {
        let refused = |_| Error::Invalid {
            what: "redis uri",
            why: format!("{}: it must look like redis://:password@host:6379/0", options.redis),
        };
        let client = Client::open(options.redis.expose()).map_err(refused)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(Duration::from_millis(limits::REDIS_CONNECT_MS)))
            .set_response_timeout(Some(Duration::from_millis(limits::REDIS_ANSWER_MS)))
            .set_number_of_retries(1)
            .set_max_delay(Duration::from_millis(limits::UPKEEP_MS));
        let connection = ConnectionManager::new_lazy_with_config(client.clone(), config).map_err(refused)?;
        Ok(Self {
            node: Ulid::generate().to_string(),
            namespace: options.namespace.clone(),
            client,
            connection,
            scripts: Scripts {
                take: Script::new(include_str!("take.lua")),
                tell: Script::new(include_str!("tell.lua")),
                overdue: Script::new(include_str!("overdue.lua")),
                duty: Script::new(include_str!("duty.lua")),
                whole: Script::new(include_str!("whole.lua")),
            },
            up: AtomicBool::new(false),
            behind: Default::default(),
        })
    }

    /// The channel of the events.
    pub(super) fn channel(&self) -> String {
        format!("fw:{}:v{VERSION}:events", self.namespace)
    }

    fn key(&self, pool: Pool, name: &str) -> String {
        format!("{{fw:{}:{pool}}}:v{VERSION}:{name}", self.namespace)
    }

    // --- whether it can be used ---

    /// Whether calls are worth trying.
    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Whether this node knows something about the pool that the index does not.
    pub(super) fn is_behind(&self, pool: Pool) -> bool {
        self.behind[pool as usize].load(Ordering::Relaxed)
    }

    fn set_behind(&self, pool: Pool, behind: bool) {
        self.behind[pool as usize].store(behind, Ordering::Relaxed);
    }

    /// Asks whether Redis is there and will keep what it is told; the index can be used from then on.
    ///
    /// # Errors
    /// `Error::Unsupported` for a server that is too old, or an eviction policy that would silently drop tasks.
    pub(super) async fn probe(&self) -> Result<()> {
        let unreachable = |error: IndexError| Error::Unavailable {
            operation: "reach redis",
            source: error.into(),
        };
        let ping = redis::cmd("PING");
        self.call(ping.query_async::<()>(&mut self.connection.clone()))
            .await
            .map_err(unreachable)?;
        match self.server_info().await.map_err(unreachable)? {
            Some(info) => check_version(&info)?,
            None => tracing::warn!("redis does not tell its version; make sure that it is 7.0 or later"),
        }
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg("maxmemory-policy");
        match self
            .call(command.query_async::<Vec<String>>(&mut self.connection.clone()))
            .await
        {
            Ok(reply) => match reply.get(1).map(String::as_str) {
                None | Some("noeviction") => {}
                Some(policy) => {
                    return Err(Error::Unsupported {
                        what: "redis eviction policy",
                        found: policy.to_owned(),
                        need: "noeviction, any other drops waiting tasks from the index: set \
                               `maxmemory-policy noeviction` in redis.conf, or in the service's parameters"
                            .to_owned(),
                    });
                }
            },
            // Managed services forbid CONFIG.
            Err(IndexError::Redis(error)) if !error.is_io_error() && !error.is_timeout() => {
                tracing::warn!(%error, "redis does not tell its eviction policy; make sure that it is noeviction");
            }
            Err(error) => return Err(unreachable(error)),
        }
        if !self.up.swap(true, Ordering::Relaxed) {
            metrics::INDEX_UP.set(1);
            tracing::info!("the dispatch index can be used");
        }
        Ok(())
    }

    /// Bounds a call in time.
    async fn call<T>(&self, answer: impl Future<Output = redis::RedisResult<T>>) -> Result<T, IndexError> {
        match tokio::time::timeout(Duration::from_millis(limits::REDIS_ANSWER_MS), answer).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(IndexError::Late),
        }
    }

    /// Calls a script; after a failure the index is down until the next probe, so that not every call waits for a
    /// server that is not there. A server that is full of memory is there: it still hands out tasks.
    async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[String],
        arguments: &[String],
    ) -> Result<T, IndexError> {
        if !self.is_up() {
            return Err(IndexError::Down);
        }
        let mut invocation = script.prepare_invoke();
        for key in keys {
            invocation.key(key);
        }
        for argument in arguments {
            invocation.arg(argument);
        }
        let mut connection = self.connection.clone();
        let result = self.call(invocation.invoke_async(&mut connection)).await;
        if let Err(error) = &result
            && !is_full(error)
            && self.up.swap(false, Ordering::Relaxed)
        {
            metrics::INDEX_UP.set(0);
            tracing::warn!(%error, "the dispatch index is down, tasks are claimed from mongodb directly");
        }
        result
    }

    // --- what it is asked and told ---

    /// Pops up to `limit` waiting tasks, unless retries are due and `look_for_due`.
    pub(super) async fn take(
        &self,
        pool: Pool,
        limit: u32,
        now: Millis,
        look_for_due: bool,
    ) -> Result<Taken, IndexError> {
        let keys = ["epoch", "ready", "due", "held"].map(|name| self.key(pool, name));
        let due_limit = if look_for_due { limits::PROMOTE_TASKS } else { 0 };
        let arguments = [
            limit.to_string(),
            now.0.to_string(),
            due_limit.to_string(),
            limits::INDEX_HOLD_MS.to_string(),
        ];
        let mut reply: Vec<String> = self.run(&self.scripts.take, &keys, &arguments).await?;
        let tasks = reply.split_off(1.min(reply.len()));
        Ok(match reply.first().map(String::as_str) {
            Some("due") => Taken::Due(tasks),
            Some("ready") => Taken::Ready(tasks),
            _ => Taken::Unknown,
        })
    }

    /// Tells the index about tasks of one pool; answers how many were missing. A failure is remembered: the pool
    /// is then behind until it has been compared with MongoDB. When Redis is full of memory the other nodes would go on
    /// trusting it, and never find what it was not told: so the index is declared not whole for all.
    pub(super) async fn tell(&self, pool: Pool, words: &[Word]) -> Result<u64, IndexError> {
        let keys = ["ready", "due", "held"].map(|name| self.key(pool, name));
        let mut missing = 0;
        for batch in words.chunks(limits::INDEX_BATCH) {
            let triple = |word: &Word| [word.what.to_owned(), word.key.clone(), format!("{:.0}", word.score)];
            let arguments: Vec<String> = batch.iter().flat_map(triple).collect();
            match self.run::<u64>(&self.scripts.tell, &keys, &arguments).await {
                Ok(count) => missing += count,
                Err(error) => {
                    self.set_behind(pool, true);
                    if is_full(&error) {
                        self.declare_lost(pool).await?;
                    }
                    return Err(error);
                }
            }
        }
        Ok(missing)
    }

    /// Tasks of a pool that were handed out and not settled in time.
    pub(super) async fn overdue(&self, pool: Pool) -> Result<Vec<String>, IndexError> {
        let arguments = [limits::INDEX_BATCH.to_string(), limits::INDEX_HOLD_MS.to_string()];
        self.run(&self.scripts.overdue, &[self.key(pool, "held")], &arguments)
            .await
    }

    // --- whether it is whole ---

    /// Whether the index of a pool is whole: told to the present run of the Redis server, and this node has told
    /// it everything.
    pub(super) async fn is_whole(&self, pool: Pool, run: &str) -> Result<bool, IndexError> {
        if self.is_behind(pool) {
            return Ok(false);
        }
        let mut command = redis::cmd("GET");
        command.arg(self.key(pool, "epoch"));
        let epoch: Option<String> = self.call(command.query_async(&mut self.connection.clone())).await?;
        Ok(epoch.as_deref() == Some(run))
    }

    /// Which run of the Redis server answers. A server that was restarted may have lost the latest writes.
    pub(super) async fn server_run(&self) -> Result<String, IndexError> {
        let info = self.server_info().await?.unwrap_or_default();
        // Where INFO is forbidden only a lost epoch tells that something was lost.
        Ok(field(&info, "run_id").unwrap_or("unknown").to_owned())
    }

    /// What the server says about itself; `None` where that is forbidden.
    async fn server_info(&self) -> Result<Option<String>, IndexError> {
        let mut command = redis::cmd("INFO");
        command.arg("server");
        let answer = self.call(command.query_async(&mut self.connection.clone())).await;
        match answer {
            Err(IndexError::Redis(error)) if !error.is_io_error() && !error.is_timeout() => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// Takes a duty, or keeps it, for some time; `pool` is whose.
    pub(super) async fn duty(&self, pool: Pool, name: &str, ms: u64, take: bool) -> Result<bool, IndexError> {
        let arguments = [
            self.node.clone(),
            ms.to_string(),
            if take { "take" } else { "keep" }.to_owned(),
        ];
        let answer: u64 = self
            .run(&self.scripts.duty, &[self.key(pool, name)], &arguments)
            .await?;
        Ok(answer == 1)
    }

    /// Ends a rebuild; false if something was lost meanwhile.
    pub(super) async fn declare_whole(&self, pool: Pool, run: &str) -> Result<bool, IndexError> {
        let keys = [self.key(pool, "epoch"), self.key(pool, REBUILD)];
        let arguments = [self.node.clone(), run.to_owned()];
        let answer: u64 = self.run(&self.scripts.whole, &keys, &arguments).await?;
        Ok(answer == 1)
    }

    /// Says that the index of a pool is not whole, and that whoever rebuilds it begins anew. Needs no memory.
    async fn declare_lost(&self, pool: Pool) -> Result<(), IndexError> {
        let mut command = redis::cmd("DEL");
        command.arg(self.key(pool, "epoch")).arg(self.key(pool, REBUILD));
        self.call(command.query_async(&mut self.connection.clone())).await
    }

    /// Notes that what comes from now on is told; to be called before MongoDB is read for a rebuild.
    pub(super) fn begin_rebuild(&self, pool: Pool) {
        self.set_behind(pool, false);
    }

    /// Notes that a rebuild did not come to its end.
    pub(super) fn rebuild_failed(&self, pool: Pool) {
        self.set_behind(pool, true);
    }

    /// Sends a message to the other nodes.
    pub(super) async fn publish(&self, message: &str) -> Result<(), IndexError> {
        if !self.is_up() {
            return Err(IndexError::Down);
        }
        let mut command = redis::cmd("PUBLISH");
        command.arg(self.channel()).arg(message);
        self.call(command.query_async(&mut self.connection.clone())).await
    }
}

/// Whether Redis takes nothing more because its memory is full.
fn is_full(error: &IndexError) -> bool {
    matches!(error, IndexError::Redis(error) if error.code() == Some("OOM"))
}

/// A field of what `INFO` answers.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let mut values = info
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    values.next().map(str::trim)
}

/// Refuses servers that are too old. Those that speak Redis' protocol under another name say which Redis they are like.
fn check_version(info: &str) -> Result<()> {
    let found = field(info, "redis_version").unwrap_or("unknown");
    let mut numbers = found.split('.').map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let (major, minor) = limits::REDIS_VERSION_LEAST;
    if version >= (major, minor) {
        return Ok(());
    }
    Err(Error::Unsupported {
        what: "redis server",
        found: format!("version {found}"),
        need: format!("version {major}.{minor} or later"),
    })
}

/// The duty to rebuild.
pub(super) const REBUILD: &str = "rebuild";

/// The duty to sweep.
pub(super) const SWEEP: &str = "sweep";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SubmissionId;
    use formwork_tasks::{Priority, Step};

    #[test]
    fn old_servers_are_refused() {
        let info =
            |version: &str| format!("# Server\r\nredis_version:{version}\r\nredis_git_sha1:0\r\nrun_id:ab12\r\n");
        assert_eq!(field(&info("7.0.15"), "run_id"), Some("ab12"));
        for good in ["7.0.0", "7.0.15", "7.2.4", "10.1.0"] {
            check_version(&info(good)).expect("is accepted");
        }
        for bad in ["6.2.14", "2.8", "", "beta"] {
            let error = check_version(&info(bad)).expect_err("is refused").to_string();
            assert!(error.contains("7.0 or later"), "{error}");
        }
    }

    #[test]
    fn scores_order_by_priority_then_time() {
        let id = TaskId::new(SubmissionId(Ulid::from_parts(1, 1)), 0);
        let score = |level: u8, at: i64| {
            let priority = Priority::try_new(level).expect("is a priority");
            let task = TaskRecord::create(id, "form", 1, &Step::new("check"), priority, Millis(at));
            ready_score(&task)
        };
        let year_2500 = 16_725_225_600_000;
        let scores = [
            score(9, 0),
            score(9, 1),
            score(9, year_2500),
            score(8, 0),
            score(5, 1_700_000_000_000),
            score(5, 1_700_000_000_001),
            score(0, year_2500 - 1),
            score(0, year_2500),
        ];
        assert!(scores.is_sorted_by(|a, b| a < b), "{scores:?}");
    }
}
