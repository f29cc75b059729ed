//! What only the embedded backend promises: killed processes, failing disks, one process per file.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

use formwork_store::{
    Beat, Error, HeartbeatReply, NewForm, NewProgress, NewSubmission, Store, SubmissionId, Submit, TaskId,
    sqlite::{Durability, Options, SqliteStore},
    tasks::{Millis, Pool, RunLease, State, Step},
};
use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};
use ulid::Ulid;

const NOW: Millis = Millis(1_700_000_000_000);
/// Tells a child process of this test binary which file to use.
const CHILD_FILE: &str = "FORMWORK_STORE_TEST_FILE";

fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(&Options::new(path)).expect("store opens")
}

async fn publish(store: &dyn Store) {
    let form = NewForm {
        id: "contact".into(),
        definition: "{}".into(),
        digest: "sha256:0".into(),
        steps: vec![Step::new("check"), Step::new("archive")],
    };
    store.put_form(form, NOW).await.expect("published");
}

fn submission(id: SubmissionId, bytes: usize) -> NewSubmission {
    NewSubmission {
        id,
        form: "contact".into(),
        form_version: 1,
        data: format!(r#"{{"message":"{}"}}"#, "x".repeat(bytes)),
        correlation_id: "test".into(),
        idempotency: None,
        priority: None,
    }
}

fn new_id(client: u64, number: u64) -> SubmissionId {
    let random = u128::from(client) << 64 | u128::from(std::process::id());
    SubmissionId(Ulid::from_parts(NOW.0 as u64 + number, random))
}

/// This test binary again, running only the named (ignored) test.
fn child(test: &str, file: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("test binary"));
    command
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
        .env(CHILD_FILE, file)
        .stdout(Stdio::piped());
    command
}

fn child_file() -> PathBuf {
    std::env::var_os(CHILD_FILE).expect("started by another test").into()
}

/// Kills the child even when the test fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Child: enqueues from 16 clients for ever and prints each acknowledged id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "child process of acknowledged_submissions_survive_kill_9"]
async fn child_enqueues() {
    let store = Arc::new(open(&child_file()));
    publish(&*store).await;
    let clients = (0..16).map(|client| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for number in 0.. {
                let id = new_id(client, number);
                let outcome = store.submit(submission(id, 300), NOW).await.expect("recorded");
                assert_eq!(outcome, Submit::Created);
                let mut out = std::io::stdout().lock();
                writeln!(out, "acknowledged {id}")
                    .and_then(|()| out.flush())
                    .expect("is read");
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("client runs");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_submissions_survive_kill_9() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("store.db");
    let mut acknowledged: Vec<SubmissionId> = Vec::new();
    for round in 1..=5 {
        let mut process = Killed(child("child_enqueues", &file).spawn().expect("child starts"));
        let out = BufReader::new(process.0.stdout.take().expect("stdout is piped"));
        let mut lines = out.lines().map_while(Result::ok);
        let mut of_this_round = 0;
        // Killed in full flight, at another point each round; what is still in the pipe counts too.
        for line in lines.by_ref() {
            let Some((_, id)) = line.split_once("acknowledged ") else {
                continue;
            };
            acknowledged.push(id.parse().expect("is an id"));
            of_this_round += 1;
            if of_this_round == 37 * round {
                process.0.kill().expect("child is killed");
            }
        }
        process.0.wait().expect("child has ended");
        assert!(of_this_round >= 37 * round, "the child stopped early");

        let store = open(&file);
        for id in &acknowledged {
            let view = store.submission(*id).await.expect("read");
            let view = view.unwrap_or_else(|| panic!("{id} was acknowledged and is lost"));
            assert_eq!(view.tasks.len(), 1, "{id} has its first task");
        }
        let stats = store.pool_stats(NOW).await.expect("read")[1];
        assert!(stats.available >= acknowledged.len() as u64);
        store.close().await;
        let raw = rusqlite::Connection::open(&file).expect("opens");
        let integrity: String = raw
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .expect("checks");
        assert_eq!(integrity, "ok");
        let counted: u64 = raw
            .query_row("SELECT count(*) FROM tasks WHERE state = 'available'", [], |row| {
                row.get(0)
            })
            .expect("counts");
        assert_eq!(counted, stats.available, "counters are as durable as tasks");
    }
}

/// Child: opens the file and holds it until it is killed.
#[tokio::test]
#[ignore = "child process of two_processes_cannot_share_a_file"]
async fn child_holds() {
    let store = open(&child_file());
    store.ready().await.expect("is ready");
    println!("holding");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn two_processes_cannot_share_a_file() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("store.db");
    let mut process = Killed(child("child_holds", &file).spawn().expect("child starts"));
    let out = BufReader::new(process.0.stdout.take().expect("stdout is piped"));
    let held = out.lines().map_while(Result::ok).any(|line| line.contains("holding"));
    assert!(held, "the child holds the file");

    match SqliteStore::open(&Options::new(&file)) {
        Err(Error::Locked { path, holder }) => {
            assert_eq!(path, file);
            assert_eq!(holder, format!("pid {}", process.0.id()));
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("two processes share one file"),
    }
    process.0.kill().expect("child is killed");
    process.0.wait().expect("child has ended");
    open(&file)
        .ready()
        .await
        .expect("a killed process leaves no lock behind");
}

#[test]
fn the_same_process_cannot_open_a_file_twice() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("store.db");
    let first = open(&file);
    assert!(matches!(
        SqliteStore::open(&Options::new(&file)),
        Err(Error::Locked { .. })
    ));
    drop(first);
    drop(open(&file));
}

/// Child: its files may not grow beyond a limit, so that writes start to fail with an I/O error.
#[tokio::test]
#[ignore = "child process of an_io_error_stops_the_store"]
async fn child_fails_to_write() {
    let store = open(&child_file());
    publish(&store).await;
    let mut failure = None;
    for number in 0..1_000 {
        let id = new_id(0, number);
        match store.submit(submission(id, 8_000), NOW).await {
            Ok(_) => println!("acknowledged {id}"),
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    assert!(matches!(failure, Some(Error::Fatal(_))), "{failure:?}");
    // A small write would fit again; it must not be acknowledged.
    assert!(matches!(store.ready().await, Err(Error::Fatal(_))));
    let small = store.submit(submission(new_id(0, 5_000), 1), NOW).await;
    assert!(matches!(small, Err(Error::Fatal(_))), "{small:?}");
    store
        .submissions(None, Default::default())
        .await
        .expect("reading goes on");
    println!("stopped acknowledging");
}

#[tokio::test]
async fn an_io_error_stops_the_store() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("store.db");
    // 2 MiB for any file; the signal that comes with the limit is ignored, so that writes fail with EFBIG.
    let inner = child("child_fails_to_write", &file);
    let mut shell = Command::new("bash");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 2048; exec \"$0\" \"$@\""]);
    shell
        .arg(inner.get_program())
        .args(inner.get_args())
        .env(CHILD_FILE, &file);
    let output = shell.output().expect("child runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("stopped acknowledging"), "{text}");

    let store = open(&file);
    let mut acknowledged = 0;
    for line in text.lines() {
        let Some((_, id)) = line.split_once("acknowledged ") else {
            continue;
        };
        let id = id.parse().expect("is an id");
        assert!(store.submission(id).await.expect("read").is_some(), "{id} is lost");
        acknowledged += 1;
    }
    assert!(acknowledged > 10, "{acknowledged}");
    store.ready().await.expect("a new process on a sound disk goes on");
}

#[tokio::test]
async fn a_file_of_version_1_is_migrated_and_goes_on() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (old, new) = (folder.path().join("old.db"), folder.path().join("new.db"));
    let raw = rusqlite::Connection::open(&old).expect("opens");
    raw.execute_batch(include_str!("files/v1.sql")).expect("is a database");
    drop(raw);

    let store = open(&old);
    let id: SubmissionId = "01HF7YAT00000000000000000A".parse().expect("is an id");
    let task = TaskId::new(id, 0);
    let beat = Beat {
        progress: Some(NewProgress {
            fraction: Some(0.5),
            message: "half".into(),
        }),
        ..Beat::new(task, RunLease(1))
    };
    let reply = store.heartbeat(&[beat], 30_000, NOW).await.expect("answered");
    assert_eq!(reply, HeartbeatReply::default(), "the run of the older program goes on");
    let view = store.task(task).await.expect("read").expect("exists");
    assert_eq!(view.progress.expect("is shown").message, "half");
    let reaped = store.reap(NOW.plus(30_000), 5).await.expect("reaped");
    assert_eq!(reaped.len(), 1);
    let claimed = store.claim(Pool::High, "w-2", 1, 1_000, NOW.plus(30_000)).await;
    assert_eq!(claimed.expect("claimed")[0].run_lease, RunLease(2));
    let history = store.task_history(task).await.expect("read");
    let lines: Vec<_> = history.iter().map(|line| (line.sequence, line.why.as_str())).collect();
    assert_eq!(
        lines,
        [(1, "created"), (2, "claimed"), (3, "lease_ended"), (4, "claimed")]
    );
    let [created, claimed, ..] = history.as_slice() else {
        panic!("fewer than two lines")
    };
    assert_eq!((created.at, created.to, created.from), (NOW, State::Available, None));
    assert_eq!((claimed.at, claimed.who.as_str()), (NOW.plus(1), "worker:w-1"));
    store.close().await;

    drop(open(&new));
    let schema = |file: &Path| -> Vec<(String, String)> {
        let raw = rusqlite::Connection::open(file).expect("opens");
        let mut statement = raw
            .prepare("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")
            .expect("prepares");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        rows.expect("reads").collect::<Result<_, _>>().expect("reads")
    };
    assert_eq!(schema(&old), schema(&new), "migrated and new files have one schema");
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_untouched() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("store.db");
    drop(open(&file));
    let raw = rusqlite::Connection::open(&file).expect("opens");
    raw.execute_batch("PRAGMA user_version = 999").expect("is set");
    drop(raw);
    match SqliteStore::open(&Options::new(&file)) {
        Err(Error::Unsupported { what, found, .. }) => {
            assert_eq!((what, found.as_str()), ("database schema", "version 999"));
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("a newer schema was accepted"),
    }
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("store.db");
    std::fs::write(&file, "# Shopping list\n".repeat(1_000)).expect("is written");
    assert!(matches!(SqliteStore::open(&Options::new(&file)), Err(Error::Fatal(_))));
    assert!(
        std::fs::read(&file).expect("is read").starts_with(b"# Shopping list"),
        "untouched"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_caller_went_away_is_whole() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("store.db");
    let store = Arc::new(open(&file));
    publish(&*store).await;
    for number in 0..50 {
        let store = Arc::clone(&store);
        let id = new_id(1, number);
        let task = tokio::spawn(async move { store.submit(submission(id, 100), NOW).await });
        tokio::task::yield_now().await;
        task.abort();
    }
    store.close().await;
    let store = open(&file);
    for number in 0..50 {
        if let Some(view) = store.submission(new_id(1, number)).await.expect("read") {
            assert_eq!(view.tasks.len(), 1, "a recorded submission has its task");
        }
    }
}

#[tokio::test]
async fn class_interval_keeps_everything_when_closed() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let options = Options {
        durability: Durability::Interval { ms: 20 },
        ..Options::new(folder.path().join("store.db"))
    };
    let store = SqliteStore::open(&options).expect("store opens");
    publish(&store).await;
    for number in 0..100 {
        store
            .submit(submission(new_id(2, number), 100), NOW)
            .await
            .expect("recorded");
    }
    store.close().await;
    let store = SqliteStore::open(&options).expect("store opens");
    let claimed = store.claim(Pool::Default, "w", 256, 1_000, NOW).await.expect("claimed");
    assert_eq!(claimed.len(), 100);
}

#[tokio::test]
async fn the_write_ahead_log_is_copied_back_before_it_grows() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("store.db");
    let store = open(&file);
    publish(&store).await;
    for number in 0..120 {
        store
            .submit(submission(new_id(3, number), 500_000), NOW)
            .await
            .expect("recorded");
    }
    let size = |suffix: &str| {
        let mut path = file.clone().into_os_string();
        path.push(suffix);
        std::fs::metadata(path).map_or(0, |metadata| metadata.len())
    };
    assert!(size("") > 30_000_000, "the database has {}", size(""));
    assert!(size("-wal") < 40_000_000, "the log has {}", size("-wal"));
}

#[tokio::test]
async fn a_write_that_fails_takes_none_of_its_group_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Arc::new(open(&folder.path().join("group.db")));
    publish(&*store).await;
    let mut writes = tokio::task::JoinSet::new();
    for number in 0..200 {
        let store = Arc::clone(&store);
        writes.spawn(async move {
            let mut new = submission(new_id(1, number), 10);
            let fails = number % 7 == 3;
            if fails {
                new.form_version = 9;
            }
            // A form that is published beside them: its plan must not be remembered from a run that was undone.
            if number % 50 == 0 {
                let form = NewForm {
                    id: format!("beside-{number}"),
                    definition: "{}".into(),
                    digest: "sha256:1".into(),
                    steps: vec![Step::new("check")],
                };
                store.put_form(form, NOW).await.expect("published");
                new.form = format!("beside-{number}");
            }
            // One that fails has written something before.
            let before = submission(new_id(2, number), 10);
            let id = if fails { before.id } else { new.id };
            let writes = if fails { vec![before, new] } else { vec![new] };
            (id, fails, store.submit_many(writes, NOW).await)
        });
    }
    let mut kept = 0;
    while let Some(write) = writes.join_next().await {
        let (id, fails, outcome) = write.expect("no panic");
        let there = store.submission(id).await.expect("read").is_some();
        match outcome {
            Ok(outcomes) if outcomes == [Submit::Created] && !fails => kept += 1,
            Err(Error::UnknownForm { .. }) if fails => {}
            other => panic!("unexpected: {other:?}"),
        }
        assert_eq!(there, !fails, "what is answered is what is recorded");
    }
    let waiting: u64 = store
        .pool_stats(NOW)
        .await
        .expect("stats")
        .iter()
        .map(|pool| pool.available)
        .sum();
    assert_eq!(
        waiting, kept,
        "each submission that was kept has its first task, counted once"
    );
}
