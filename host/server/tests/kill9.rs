//! The server is killed over and over while clients submit: what was acknowledged is there, ended, and exported once.
//!
//! The reduced run of `formwork-campaign`, which does the same for a thousand kills; see [`formwork_campaign`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use formwork_campaign::{Cluster, Plan, run};
use formwork_server::config;

/// Kills of a server on an embedded store.
const KILLS: u32 = 10;

/// Kills of nodes and of the servers that they share: each is somebody's start, and MongoDB's takes seconds.
const CLUSTER_KILLS: u32 = 6;

/// Only the plugins of the form: a start is a good part of a kill's time.
fn plugins(folder: &Path) -> PathBuf {
    let built = config::load(None).unwrap().config.plugins.folder;
    let plugins = folder.join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    for entry in std::fs::read_dir(&built).unwrap() {
        let file = entry.unwrap();
        let name = file.file_name().into_string().unwrap();
        if name.starts_with("validate-") || name.starts_with("export-") {
            std::fs::copy(file.path(), plugins.join(name)).unwrap();
        }
    }
    plugins
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_or_doubled_across_kills() {
    let folder = tempfile::tempdir().unwrap();
    let plugins = plugins(folder.path());
    let formwork = Path::new(env!("CARGO_BIN_EXE_formwork"));
    let cluster = Cluster::embedded(formwork, &plugins, folder.path()).unwrap();
    let plan = Plan {
        kills: KILLS,
        clients: 16,
        pause: Duration::from_millis(5),
        longest_life: Duration::from_millis(200),
    };
    let report = run(cluster, &plan, folder.path(), |_, _| ()).await.unwrap();
    println!("{report}");
    assert!(report.broken.is_empty(), "{report}");
    assert_eq!(report.kills["server"], KILLS);
    assert!(report.acknowledged > 100, "{report}");
    assert!(report.unanswered > 0, "no kill hit a request: {report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_or_doubled_across_kills_of_many_nodes() {
    let folder = tempfile::tempdir().unwrap();
    let plugins = plugins(folder.path());
    let formwork = Path::new(env!("CARGO_BIN_EXE_formwork"));
    let cluster = Cluster::many_nodes(formwork, &plugins, folder.path()).unwrap();
    let plan = Plan {
        kills: CLUSTER_KILLS,
        clients: 8,
        pause: Duration::from_millis(20),
        longest_life: Duration::from_millis(200),
    };
    let report = run(cluster, &plan, folder.path(), |_, _| ()).await.unwrap();
    println!("{report}");
    assert!(report.broken.is_empty(), "{report}");
    assert_eq!(report.kills.values().sum::<u32>(), CLUSTER_KILLS);
    assert!(report.acknowledged > 20, "{report}");
}
