//! The AI process is killed in mid-generation: no draft is lost, each is made once, and the API answers all the while.
//!
//! The reduced run of `formwork-kill-ai` (`make kill-ai`), which also compares the API's latencies; see
//! [`formwork_campaign::kill_ai`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

use std::path::Path;
use std::time::Duration;

use formwork_campaign::kill_ai::{Plan, Servers, run};

const KILLS: u32 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_draft_is_lost_or_made_twice_when_the_ai_process_dies() {
    let folder = tempfile::tempdir().unwrap();
    let plan = Plan {
        kills: KILLS,
        kills_a_round: 0,
        writers: 2,
        longest_life: Duration::from_millis(200),
        probe_every: Duration::from_millis(100),
    };
    let formwork = Path::new(env!("CARGO_BIN_EXE_formwork"));
    let servers = Servers::for_tests("kill-ai-test");
    let report = run(formwork, &servers, &plan, folder.path(), |_| ()).await.unwrap();
    println!("{report}");
    assert!(report.kept(), "{report}");
    assert_eq!(report.kills, KILLS);
    assert!(
        report.checked.taken_back >= u64::from(KILLS),
        "a kill hit no run: {report}"
    );
    assert_eq!(
        report.models_of_the_api, 0,
        "a process without AI work loaded a model: {report}"
    );
}
