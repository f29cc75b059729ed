//! The threads of one pool.
//!
//! **Problem.** A guest computes on the thread that polls it: on the runtime of the HTTP server it would hold up every
//! request. **Promise.** Guests run on a fixed set of OS threads, each with its own current-thread runtime; whichever
//! thread is idle takes the next job; work that is not wanted any more is dropped where it runs. **Cost.** A hop to the
//! thread and one back, some microseconds. **Rejected.** `spawn_blocking`: hundreds of threads, no bound, no order, no
//! niceness. A queue per thread: the next job may stand behind a long one while another thread idles.
//!
//! Two lines wait for the threads: claimed tasks (bounded by permits) and calls from outside the queue (bounded by the
//! inbox). They are served in turn, so neither starves the other.

use crate::{
    budget::Budget, cgroup::Group, metrics, niceness, options::PoolLimits, options::PoolOptions,
    scheduler::Enforcement, thread_meter::ThreadMeter,
};
use formwork_tasks::Pool;
use futures::FutureExt;
use std::{
    any::Any,
    collections::VecDeque,
    io,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};
use tokio::{
    runtime::Builder,
    sync::{Notify, Semaphore, oneshot},
    task::LocalSet,
};
use tokio_util::sync::CancellationToken;

/// The threads of one pool. Cheap to clone; the threads end when the lane is closed or its last handle is dropped.
#[derive(Clone)]
pub struct Lane {
    handle: Arc<Handle>,
}

/// Why a lane has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LaneError {
    /// Too many calls wait already; come again later.
    #[error("pool {0} is full, try again later")]
    Full(Pool),
    /// The pool is shutting down.
    #[error("pool {0} is closed")]
    Closed(Pool),
    /// This process does not work for the pool.
    #[error("this process does not work for pool {0}, ask one that does")]
    NotHere(Pool),
    /// The work panicked.
    #[error("work panicked in pool {pool}: {message}")]
    Panicked {
        /// The pool.
        pool: Pool,
        /// What the panic said.
        message: String,
    },
}

/// What the threads of a lane use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LaneUsage {
    /// OS threads.
    pub threads: usize,
    /// Jobs in line, not started.
    pub queued: usize,
    /// Share of the latest measured second in which the threads were busy, 0 to 1.
    pub busy_ratio: f64,
    /// CPU time used by the threads since they started, in seconds, native inference on their behalf included.
    pub cpu_seconds: f64,
    /// Of that, native inference.
    pub native_cpu_seconds: f64,
}

type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;
type Job = Box<dyn FnOnce() -> LocalFuture + Send>;

/// Which line a job stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Tasks,
    Calls,
}

struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

struct Shared {
    pool: Pool,
    inbox: usize,
    runs_per_thread: u32,
    lines: Mutex<Lines>,
    pushed: Notify,
    /// Set under the lock of the lines.
    closed: CancellationToken,
    meters: Arc<[Arc<ThreadMeter>]>,
    budget: Budget,
    group: Option<Group>,
    sample: Mutex<Sample>,
}

#[derive(Default)]
struct Lines {
    tasks: VecDeque<Job>,
    calls: VecDeque<Job>,
    calls_are_next: bool,
    absent: bool,
}

struct Sample {
    at: Instant,
    busy_seconds: f64,
    cpu_seconds: f64,
    native_seconds: f64,
    parked_seconds: f64,
    throttled: u64,
    busy_ratio: f64,
}

impl Lane {
    /// Starts the threads of a pool.
    ///
    /// # Errors
    /// When the system refuses a thread or its runtime.
    pub fn start(pool: Pool, options: &PoolOptions) -> io::Result<Self> {
        Self::start_in(pool, options, None)
    }

    /// A lane without threads, for a pool this process does not work for.
    pub(crate) fn absent(pool: Pool) -> Self {
        let shared = Shared::new(pool, &PoolOptions::of(pool), 0, None);
        shared.lines().absent = true;
        Self {
            handle: Arc::new(Handle {
                shared: Arc::new(shared),
            }),
        }
    }

    /// [`Self::start`] with the threads in a group of the kernel's.
    pub(crate) fn start_in(pool: Pool, options: &PoolOptions, group: Option<Group>) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(pool, options, options.threads.max(1), group));
        // Made first, so that an error below closes the threads that did start.
        let handle = Arc::new(Handle {
            shared: Arc::clone(&shared),
        });
        for (index, meter) in shared.meters.iter().enumerate() {
            let (park, unpark) = (Arc::clone(meter), Arc::clone(meter));
            let runtime = Builder::new_current_thread()
                .enable_time()
                .on_thread_park(move || park.parked())
                .on_thread_unpark(move || unpark.unparked())
                .build()?;
            let (shared, meter) = (Arc::clone(&shared), Arc::clone(meter));
            thread::Builder::new()
                .name(format!("fw-{pool}-{index}"))
                .spawn(move || {
                    meter.begin();
                    niceness::apply(pool);
                    shared.join_group();
                    LocalSet::new().block_on(&runtime, serve(shared));
                    meter.end();
                })?;
        }
        Ok(Self { handle })
    }

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> Pool {
        self.handle.shared.pool
    }

    /// What the pool may use, and has used.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.handle.shared.budget
    }

    /// The kernel stops its threads in what it was told to: in how many periods it did so. Nothing: there is no group.
    pub(crate) fn throttled(&self) -> Option<u64> {
        self.handle.shared.group.as_ref().and_then(Group::throttled)
    }

    /// Which group of the kernel's its threads are in, if any.
    pub(crate) fn group_enforcement(&self) -> Option<Enforcement> {
        self.handle.shared.group.as_ref().map(Group::enforcement)
    }

    /// Tells the kernel about new limits, where it has a group.
    pub(crate) fn set_group_limits(&self, limits: &PoolLimits) -> io::Result<()> {
        match &self.handle.shared.group {
            Some(group) => group.set(kernel_quota(limits), limits.weight),
            None => Ok(()),
        }
    }

    /// Whether work stands in line for a thread although there is credit.
    pub(crate) fn is_short_of_threads(&self) -> bool {
        let shared = &self.handle.shared;
        let waits = {
            let lines = shared.lines();
            !lines.is_empty()
        };
        waits && shared.budget.overdrawn().is_none()
    }

    /// Runs work on one of the threads and gives its answer back; for callers outside the queue, such as a synchronous
    /// validation. The future is made on that thread and need not be `Send`. Dropping the returned future drops the
    /// work.
    ///
    /// # Errors
    /// [`LaneError::Full`] at once when the inbox is full, [`LaneError::Closed`] when the lane was closed,
    /// [`LaneError::NotHere`] when this process does not work for the pool,
    /// [`LaneError::Panicked`] when the work panicked.
    pub async fn spawn<T, F, Fut>(&self, work: F) -> Result<T, LaneError>
    where
        T: Send + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        self.enqueue(Line::Calls, work).await
    }

    /// As `spawn`, for claimed tasks: their permits are the bound, they are never refused for want of room.
    pub(crate) async fn spawn_task<T, F, Fut>(&self, work: F) -> Result<T, LaneError>
    where
        T: Send + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        self.enqueue(Line::Tasks, work).await
    }

    async fn enqueue<T, F, Fut>(&self, line: Line, work: F) -> Result<T, LaneError>
    where
        T: Send + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        let pool = self.pool();
        let (mut answer, answered) = oneshot::channel();
        let job = Box::new(move || -> LocalFuture {
            Box::pin(async move {
                // Called inside, so that a panic of the closure itself is caught as well.
                let work = AssertUnwindSafe(async move { work().await }).catch_unwind();
                let result = tokio::select! {
                    biased;
                    () = answer.closed() => return,
                    result = work => result,
                };
                let result = result.map_err(|panic| LaneError::Panicked {
                    pool,
                    message: panic_message(panic.as_ref()),
                });
                // Whoever asked may have gone meanwhile.
                let _ = answer.send(result);
            })
        });
        self.handle.shared.push(line, job)?;
        answered.await.unwrap_or_else(|_| Err(LaneError::Closed(pool)))
    }

    /// What the threads use; CPU time is read now, the busy ratio is that of the latest sample.
    #[must_use]
    pub fn usage(&self) -> LaneUsage {
        let shared = &self.handle.shared;
        let (tasks, calls) = {
            let lines = shared.lines();
            (lines.tasks.len(), lines.calls.len())
        };
        let used = shared.budget.usage();
        LaneUsage {
            threads: shared.meters.len(),
            queued: tasks + calls,
            busy_ratio: lock(&shared.sample).busy_ratio,
            cpu_seconds: used.cpu.as_secs_f64(),
            native_cpu_seconds: used.native.as_secs_f64(),
        }
    }

    /// Measures the threads and updates the metrics.
    pub(crate) fn sample(&self) {
        let shared = &self.handle.shared;
        let pool = shared.pool.as_str();
        let busy_seconds: f64 = shared.meters.iter().map(|meter| meter.busy_seconds()).sum();
        let used = shared.budget.usage();
        let (cpu_seconds, parked_seconds) = (used.cpu.as_secs_f64(), used.parked_time.as_secs_f64());
        let now = Instant::now();
        let mut sample = lock(&shared.sample);
        let passed = now.duration_since(sample.at).as_secs_f64();
        if passed > 0.0 && !shared.meters.is_empty() {
            #[expect(clippy::cast_precision_loss, reason = "a number of threads is small")]
            let threads = shared.meters.len() as f64;
            let ratio = (busy_seconds - sample.busy_seconds) / (passed * threads);
            sample.busy_ratio = ratio.clamp(0.0, 1.0);
        }
        metrics::BUSY_RATIO.with_label_values(&[pool]).set(sample.busy_ratio);
        metrics::CPU_SECONDS
            .with_label_values(&[pool])
            .inc_by((cpu_seconds - sample.cpu_seconds).max(0.0));
        let native_seconds = used.native.as_secs_f64();
        metrics::NATIVE_CPU_SECONDS
            .with_label_values(&[pool])
            .inc_by((native_seconds - sample.native_seconds).max(0.0));
        metrics::PARKED_SECONDS
            .with_label_values(&[pool])
            .inc_by((parked_seconds - sample.parked_seconds).max(0.0));
        metrics::PARKED
            .with_label_values(&[pool])
            .set(i64::try_from(used.parked).unwrap_or(i64::MAX));
        // No series, or none of its own, where nothing is limited: a rate of infinity cannot be drawn.
        if let Some(rate) = used.rate {
            metrics::CPU_RATE.with_label_values(&[pool]).set(rate);
        } else {
            let _ = metrics::CPU_RATE.remove_label_values(&[pool]);
        }
        if let Some(throttled) = self.throttled() {
            metrics::THROTTLED
                .with_label_values(&[pool])
                .inc_by(throttled.saturating_sub(sample.throttled));
            sample.throttled = throttled;
        }
        sample.at = now;
        sample.busy_seconds = busy_seconds;
        sample.cpu_seconds = cpu_seconds;
        sample.native_seconds = native_seconds;
        sample.parked_seconds = parked_seconds;
    }

    /// Refuses new work, drops what has not started, lets the rest finish, then ends the threads. May be called twice.
    pub fn close(&self) {
        self.handle.shared.close();
    }
}

/// With `burst` the quota would hold up what the budget allows; the weight still ranks the pool.
fn kernel_quota(limits: &PoolLimits) -> Option<f64> {
    limits.cpus.filter(|_| !limits.burst)
}

impl Shared {
    fn new(pool: Pool, options: &PoolOptions, threads: usize, group: Option<Group>) -> Self {
        let meters: Arc<[_]> = (0..threads).map(|_| Arc::new(ThreadMeter::new())).collect();
        let read = Arc::clone(&meters);
        let budget = Budget::new(
            pool,
            options.cpus,
            Box::new(Instant::now),
            Box::new(move || read.iter().map(|meter| meter.cpu()).sum()),
        );
        Self {
            pool,
            inbox: options.inbox,
            runs_per_thread: options.runs_per_thread.max(1),
            lines: Mutex::default(),
            pushed: Notify::new(),
            closed: CancellationToken::new(),
            meters,
            budget,
            group,
            sample: Mutex::new(Sample {
                at: Instant::now(),
                busy_seconds: 0.0,
                cpu_seconds: 0.0,
                native_seconds: 0.0,
                parked_seconds: 0.0,
                throttled: 0,
                busy_ratio: 0.0,
            }),
        }
    }

    /// Puts the calling thread into the pool's group.
    fn join_group(&self) {
        if let Some(group) = &self.group
            && let Err(error) = group.add_thread(nix::unistd::gettid().as_raw())
        {
            tracing::warn!(pool = %self.pool, %error, "a thread stays outside its cgroup, only the budget limits it");
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        lock(&self.lines)
    }

    fn push(&self, line: Line, job: Job) -> Result<(), LaneError> {
        let mut lines = self.lines();
        if lines.absent {
            return Err(LaneError::NotHere(self.pool));
        }
        if self.closed.is_cancelled() {
            return Err(LaneError::Closed(self.pool));
        }
        match line {
            Line::Tasks => lines.tasks.push_back(job),
            Line::Calls if lines.calls.len() >= self.inbox => {
                metrics::INBOX_FULL.with_label_values(&[self.pool.as_str()]).inc();
                return Err(LaneError::Full(self.pool));
            }
            Line::Calls => lines.calls.push_back(job),
        }
        drop(lines);
        // All of them: the one that is woken first may be the one whose guest computes.
        self.pushed.notify_waiters();
        Ok(())
    }

    fn close(&self) {
        let (tasks, calls) = {
            let mut lines = self.lines();
            self.closed.cancel();
            (std::mem::take(&mut lines.tasks), std::mem::take(&mut lines.calls))
        };
        drop((tasks, calls));
        self.pushed.notify_waiters();
    }

    /// The next job, once there is CPU for it; `None` once the lane is closed.
    async fn next(&self) -> Option<Job> {
        loop {
            let mut pushed = pin!(self.pushed.notified());
            // Listen first, then look, then wait: a push in between is not missed.
            pushed.as_mut().enable();
            let waits = {
                let mut lines = self.lines();
                let waits = !lines.is_empty();
                if waits && self.budget.overdrawn().is_none() {
                    return lines.pop();
                }
                if self.closed.is_cancelled() {
                    return None;
                }
                waits
            };
            if waits {
                // Not told of what is pushed meanwhile: that would cost the place in line.
                tokio::select! {
                    () = self.budget.credit() => {}
                    () = self.closed.cancelled() => {}
                }
            } else {
                pushed.await;
            }
        }
    }
}

impl Lines {
    fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.calls.is_empty()
    }

    fn pop(&mut self) -> Option<Job> {
        self.calls_are_next = !self.calls_are_next;
        if self.calls_are_next {
            self.calls.pop_front().or_else(|| self.tasks.pop_front())
        } else {
            self.tasks.pop_front().or_else(|| self.calls.pop_front())
        }
    }
}

/// One thread: takes jobs as long as it has room for another run.
async fn serve(shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(shared.runs_per_thread as usize));
    while let Ok(place) = Arc::clone(&room).acquire_owned().await {
        let Some(job) = shared.next().await else {
            drop(place);
            break;
        };
        tokio::task::spawn_local(async move {
            job().await;
            drop(place);
        });
    }
    // All places free: every run has ended.
    let _ = room.acquire_many(shared.runs_per_thread).await;
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "no message".to_owned()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
