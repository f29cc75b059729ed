//! The conformance suite, run over every backend, and over each behind a wrapper that makes calls fail, come late and
//! arrive twice. A case sees nothing but `&dyn Store`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

#[allow(dead_code, reason = "the suite repeats calls, another test hears of errors")]
mod faulty;
mod suite;

use faulty::{Caller, FaultyStore};
use formwork_store::{Store, cluster, sqlite};
use std::sync::atomic::{AtomicU64, Ordering};

/// One test per case, each on a fresh store of the backend.
macro_rules! conformance {
    ($backend:ident, $open:expr; $($module:ident: $($case:ident),+ $(,)?;)+) => {
        mod $backend {
            use super::*;
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let (store, _keep) = $open;
                    suite::$module::$case(&store).await;
                    store.close().await;
                }
            )+)+
        }
    };
}

/// Every case of the suite, so that backends cannot forget one.
macro_rules! every_case {
    ($backend:ident, $open:expr) => {
        conformance! { $backend, $open;
            forms:
                versions_are_immutable_and_numbered,
                a_bad_pipeline_is_refused_with_its_place,
                forms_are_listed_by_name_in_pages;
            submissions:
                a_submission_is_recorded_with_its_first_tasks,
                an_unknown_form_version_is_refused,
                the_same_key_and_request_is_replayed,
                the_same_key_with_another_request_is_told,
                concurrent_requests_with_one_key_make_one_submission,
                a_used_submission_id_is_refused,
                a_bulk_is_recorded_as_a_whole_or_not_at_all,
                a_form_without_steps_is_done_at_once,
                one_megabyte_comes_back_byte_for_byte,
                what_just_fits_comes_back_and_what_is_larger_is_refused,
                submissions_are_paged_newest_first;
            pipeline:
                steps_run_in_order_and_see_earlier_outputs,
                a_rejection_stops_the_pipeline,
                a_rejection_may_be_passed_over,
                a_rejection_cancels_what_waits,
                what_waits_again_after_a_rejection_is_not_run_again,
                branches_join_exactly_once,
                a_dead_step_fails_the_submission_and_a_retry_revives_it;
            work:
                claims_come_by_priority_then_age,
                a_claim_takes_each_task_once,
                a_stale_lease_records_nothing,
                a_second_completion_is_stale,
                a_heartbeat_prolongs_and_tells_what_is_lost,
                whoever_watches_a_task_is_told_of_every_move_and_of_progress,
                progress_comes_with_a_heartbeat_and_belongs_to_its_run,
                a_failed_task_waits_for_its_time,
                a_released_task_has_spent_no_attempt,
                an_ended_lease_is_recovered_then_dead,
                long_error_messages_are_cut;
            operate:
                a_waiting_task_is_cancelled,
                a_running_task_is_asked_to_stop,
                a_cancelled_worker_that_vanishes_is_settled,
                finished_tasks_are_not_cancelled_nor_retried,
                unknown_tasks_are_errors,
                tasks_are_filtered_and_paged,
                bad_cursors_are_refused,
                pools_are_counted,
                history_has_every_move;
            dead_letters:
                dead_tasks_are_filtered_by_reason_code_and_time,
                a_redrive_takes_what_matches_with_fresh_counters,
                a_redrive_is_bounded_and_says_whether_there_is_more,
                only_dead_tasks_are_redriven;
            controls:
                a_control_is_kept_and_told,
                changes_to_one_pool_do_not_undo_each_other;
            retention:
                what_was_kept_long_enough_is_gone_whole,
                what_is_not_settled_is_never_touched,
                failed_submissions_are_kept_longer,
                an_expired_key_makes_a_new_submission,
                a_sweep_goes_on_in_slices,
                exports_have_their_own_time;
            plugins:
                pushed_plugins_are_kept_byte_for_byte,
                a_plugin_version_is_taken_once;
            exports:
                chunks_are_recorded_exactly_once,
                chunks_are_read_in_order_from_a_sequence;
            lifecycle:
                a_ready_store_says_so,
                a_closed_store_refuses,
                one_failing_write_takes_none_with_it,
                random_work_keeps_the_books_right;
        }
    };
}

fn sqlite_store(durability: sqlite::Durability) -> (sqlite::SqliteStore, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("store.db");
    let options = sqlite::Options {
        durability,
        ..sqlite::Options::new(path)
    };
    (sqlite::SqliteStore::open(&options).expect("store opens"), folder)
}

/// Two servers for all cases; a database and a namespace of its own for each.
async fn cluster_store() -> (cluster::ClusterStore, ()) {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let servers = formwork_test_servers::shared();
    let name = format!("fw-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let mut options = cluster::Options::new(
        cluster::Uri::new(servers.mongodb.clone()),
        cluster::Uri::new(servers.redis.clone()),
    );
    options.database = name.clone();
    options.namespace = name;
    // The cases say what time it is.
    options.time = cluster::TimeSource::Caller;
    (cluster::ClusterStore::open(options).await.expect("store opens"), ())
}

every_case!(mongodb_redis, cluster_store().await);
every_case!(sqlite_sync, sqlite_store(sqlite::Durability::Sync));
every_case!(sqlite_interval, sqlite_store(sqlite::Durability::Interval { ms: 5 }));

/// The same store behind faults. Each case has a seed of its own, which follows from nothing but its name.
fn faulty<S: Store, K>((store, keep): (S, K)) -> (FaultyStore<S>, K) {
    let thread = std::thread::current();
    let case = thread.name().unwrap_or_default();
    let seed = case
        .bytes()
        .fold(7, |seed: u64, byte| seed.wrapping_mul(31) + u64::from(byte));
    (FaultyStore::new(store, Caller::Repeats, seed), keep)
}

every_case!(mongodb_redis_with_faults, faulty(cluster_store().await));
every_case!(
    sqlite_with_faults,
    faulty(sqlite_store(sqlite::Durability::Interval { ms: 5 }))
);
