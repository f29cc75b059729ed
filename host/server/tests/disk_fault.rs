//! A disk that fails when it is asked to make writes durable: the server acknowledges nothing more, ends, and says why;
//! what it had acknowledged is there when it is started again.
//!
//! After a failed fsync the kernel may have dropped the pages: asking again would be answered well and mean nothing. The
//! failure is made by `strace`, which lets a process be told that a system call failed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

mod serving;

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use serving::Serving;

/// How many fsyncs of each thread go well: enough to start and to acknowledge something.
const GOOD: u32 = 25;

/// Submissions that are tried at most; each needs an fsync.
const SUBMISSIONS: usize = 200;

/// Whether processes may be traced here; containers and hardened kernels may forbid it.
fn can_trace() -> bool {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", "trace=fsync", "-o", "/dev/null", "true"]);
    let status = strace.stdout(Stdio::null()).stderr(Stdio::null()).status();
    match status {
        Ok(status) => status.success(),
        Err(error) => panic!("strace is missing ({error}): run scripts/setup.sh --servers"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_fsync_that_failed_nothing_more_is_acknowledged_and_nothing_acknowledged_is_lost() {
    if !can_trace() {
        println!("skipped: this machine does not let processes be traced (ptrace)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.txt").display().to_string();
    let inject = format!("inject=fsync,fdatasync:error=EIO:when={}+", GOOD + 1);
    // -D: the server is this process's child, not the tracer's.
    let wrapper = [
        "strace",
        "-D",
        "-f",
        "-qq",
        "-o",
        &trace,
        "-e",
        "trace=fsync,fdatasync",
        "-e",
        &inject,
    ];
    let environment = [("FORMWORK_MODELS", "[]")];
    let server = Serving::start_under(&wrapper, folder.path(), &environment);
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(30))
        .build()
        .unwrap();
    // Nothing but submissions shall need fsyncs: whoever meets the fault is a client.
    for pool in ["high", "default", "batched"] {
        let pause = client.post(format!("{}/v1/pools/{pool}/pause", server.url));
        assert!(pause.send().await.unwrap().status().is_success());
    }
    let definition = json!({ "schema": {}, "pipeline": [{ "name": "check", "plugin": "validate" }] });
    let put = client.put(format!("{}/v1/forms/note", server.url)).json(&definition);
    assert!(put.send().await.unwrap().status().is_success());

    let submissions = format!("{}/v1/forms/note/submissions", server.url);
    let submit = async |number: usize| {
        let post = client.post(&submissions).json(&json!({ "number": number }));
        let answer = post.send().await.ok()?;
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.ok()?;
        Some((status, body))
    };
    let mut acknowledged = Vec::new();
    let mut refused = None;
    for number in 0..SUBMISSIONS {
        match submit(number).await {
            Some((200..=299, body)) => {
                assert_eq!(refused, None, "acknowledged after a refusal");
                acknowledged.push((number, body["id"].as_str().unwrap().to_owned()));
            }
            Some(answer) => refused = refused.or(Some(answer)),
            // It has ended.
            None => break,
        }
    }
    assert!(!acknowledged.is_empty(), "the fault came too early");
    let (status, body) = refused.expect("the request that met the fault was answered");
    assert_eq!((status, &body["code"]), (503, &json!("unavailable")), "{body}");

    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(1), "{log:#?}");
    let log = log.join("\n");
    assert!(log.contains("store stopped acknowledging after an i/o error"), "{log}");
    assert!(log.contains("the store has stopped: ending"), "{log}");

    let server = Serving::start(folder.path(), &environment);
    for (number, id) in &acknowledged {
        let answer = client
            .get(format!("{}/v1/submissions/{id}", server.url))
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_success(), "{id} was acknowledged and is lost");
        let submission: Value = answer.json().await.unwrap();
        assert_eq!(submission["data"]["number"], *number);
    }
}
