//! Redis and a MongoDB-protocol server for tests: own ones on free ports, with their data in temporary folders,
//! that can be killed, frozen and started again on the same port and data.
//!
//! `FORMWORK_TEST_MONGODB` and `FORMWORK_TEST_REDIS` name other servers for [`shared`], so that suites run against a
//! real MongoDB unchanged. Tests that kill servers always use their own.
//!
//! Servers end when their value is dropped, and when the test process dies in whatever way: they are started through
//! `setpriv --pdeathsig`. The signal comes when the *thread* that started them ends, so one thread starts all.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot have its servers says why and fails"
)]

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    hash::{BuildHasher, RandomState},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long a server may take to listen; the Python one loads for a second or two on an idle machine.
const START: Duration = Duration::from_secs(60);

/// The servers that tests share which do not harm them.
pub struct Shared {
    /// A MongoDB connection string.
    pub mongodb: String,
    /// A Redis connection string.
    pub redis: String,
    _own: (Option<Server>, Option<Server>),
}

/// One pair of servers for all tests of this process; each test has a database and a namespace of its own in them.
pub fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        let named = |name: &str| std::env::var(name).ok().filter(|uri| !uri.is_empty());
        let (mongodb, redis) = (named("FORMWORK_TEST_MONGODB"), named("FORMWORK_TEST_REDIS"));
        // Nothing drops a static: in memory, so that nothing is left behind.
        let own_mongodb = mongodb.is_none().then(|| Server::start(Kind::MongodbInMemory));
        let own_redis = redis.is_none().then(|| Server::start(Kind::Redis(vec![])));
        Shared {
            mongodb: mongodb.or(own_mongodb.as_ref().map(Server::uri)).unwrap(),
            redis: redis.or(own_redis.as_ref().map(Server::uri)).unwrap(),
            _own: (own_mongodb, own_redis),
        }
    })
}

/// What to start.
#[derive(Clone, Debug)]
enum Kind {
    /// With these settings after the usual ones.
    Redis(Vec<String>),
    Mongodb {
        standalone: bool,
    },
    MongodbInMemory,
}

/// A server of its own.
pub struct Server {
    kind: Kind,
    port: u16,
    data: TempDir,
    process: Option<Child>,
}

impl Server {
    /// A Redis that keeps nothing on disk, with further settings such as `--maxmemory 2mb`.
    #[must_use]
    pub fn redis(settings: &[&str]) -> Self {
        Self::start(Kind::Redis(
            settings.iter().map(|&setting| setting.to_owned()).collect(),
        ))
    }

    /// A MongoDB-protocol server that presents a replica set of one member, with its data on disk.
    #[must_use]
    pub fn mongodb() -> Self {
        Self::start(Kind::Mongodb { standalone: false })
    }

    /// The same without a replica set.
    #[must_use]
    pub fn mongodb_standalone() -> Self {
        Self::start(Kind::Mongodb { standalone: true })
    }

    fn start(kind: Kind) -> Self {
        let mut server = Self {
            kind,
            port: free_port(),
            data: TempDir::with_prefix("formwork-test-server-").expect("temporary folder"),
            process: None,
        };
        server.start_again();
        server
    }

    /// Its connection string.
    #[must_use]
    pub fn uri(&self) -> String {
        match self.kind {
            Kind::Redis(_) => format!("redis://127.0.0.1:{}", self.port),
            Kind::Mongodb { .. } | Kind::MongodbInMemory => format!("mongodb://127.0.0.1:{}", self.port),
        }
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts it after [`Server::kill`], on the same port and data; returns when it listens.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "the server runs");
        self.process = Some(spawn(self.command()));
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let deadline = Instant::now() + START;
        while TcpStream::connect(address).is_err() {
            let process = self.process.as_mut().expect("was started");
            if let Some(status) = process.try_wait().expect("process is ours") {
                panic!("{:?} ended at once ({status}): {}", self.kind, self.log());
            }
            assert!(
                Instant::now() < deadline,
                "{:?} does not listen: {}",
                self.kind,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Freezes it (`SIGSTOP`): it keeps its connections and answers nothing.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on (`SIGCONT`).
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("the server runs");
        let id = i32::try_from(process.id()).expect("is a process id");
        kill(Pid::from_raw(id), signal).expect("process is ours");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.data.path().join("log")).unwrap_or_default()
    }

    fn command(&self) -> Command {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.data.path().join("log"));
        let log = log.expect("log file");
        let mut command = match &self.kind {
            Kind::Redis(settings) => {
                let mut command = redis_command(self.port, self.data.path());
                command.args(settings);
                command
            }
            Kind::Mongodb { standalone } => {
                let mut command = mongodb_command(self.port, &self.data.path().join("data"));
                command.args(standalone.then_some("--standalone"));
                command
            }
            Kind::MongodbInMemory => mongodb(self.port, Path::new(":memory:")),
        };
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log file"))
            .stderr(log);
        command
    }
}

/// The command of a Redis on this port that keeps nothing on disk; `folder` is where it would.
#[must_use]
pub fn redis_command(port: u16, folder: &Path) -> Command {
    let mut command = ending_with_its_starter();
    command.args(["redis-server", "--bind", "127.0.0.1", "--port", &port.to_string()]);
    command.args(["--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"]);
    command.arg("--dir").arg(folder);
    command
}

/// The command of a MongoDB-protocol server on this port with its data in `storage`.
///
/// # Panics
/// When it is not installed.
#[must_use]
pub fn mongodb_command(port: u16, storage: &Path) -> Command {
    let mut command = mongodb(port, storage);
    // It keeps commits in its own memory otherwise, whatever the write concern says.
    command.arg("--sync-on-commit");
    command
}

fn ending_with_its_starter() -> Command {
    let mut command = Command::new("setpriv");
    // The gentle signal: the server in memory removes its own folder.
    command.args(["--pdeathsig", "TERM", "--"]);
    command
}

fn mongodb(port: u16, storage: &Path) -> Command {
    let cache = std::env::var_os("FORMWORK_CACHE").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/formwork")));
    let folder = cache.expect("HOME is set").join("test-servers");
    assert!(
        folder.join("requirements.txt").exists(),
        "{} is missing: run scripts/setup.sh --servers, or name a MongoDB in FORMWORK_TEST_MONGODB",
        folder.display()
    );
    let mut command = ending_with_its_starter();
    command.env("PYTHONPATH", folder);
    let start = "import sys; from secantus.cli import main; sys.exit(main())";
    command.args(["python3", "-c", start, "--port", &port.to_string()]);
    // In memory it holds all data of a whole suite, which must not be evicted.
    let cache = if storage == Path::new(":memory:") { "2G" } else { "256M" };
    command.args(["--cache-size", cache, "--log-level", "WARNING", "--storage-path"]);
    command.arg(storage);
    command
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody listens on. No outgoing connection takes it while its server is down: it lies below the ports that
/// systems give to those (from 32768 on Linux).
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_port() -> u16 {
    const FIRST: u16 = 1 << 14;
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    // Every process starts somewhere else, so that two of them hardly ever look at the same port.
    let next = NEXT.get_or_init(|| AtomicU16::new(RandomState::new().hash_one(()) as u16));
    (0..FIRST)
        .map(|_| FIRST + next.fetch_add(1, Ordering::Relaxed) % FIRST)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

/// Starts a process from the one thread that lives as long as this process.
fn spawn(command: Command) -> Child {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static STARTER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (orders, received) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in received {
                let _ = reply.send(command.spawn());
            }
        });
        orders
    });
    let (reply, answer) = mpsc::channel();
    starter.send((command, reply)).expect("the starter lives");
    let started = answer.recv().expect("the starter answers");
    started.expect("setpriv, redis-server and python3 are there: run scripts/setup.sh --servers")
}
