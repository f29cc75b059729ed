#!/usr/bin/env bash
# The negative control of the delivery promise: in a build whose fence lets stale workers through, the suites that prove the
# fence must fail. Compiles the two crates and what they need into a folder of its own (a few minutes).
set -euo pipefail
cd "$(dirname "$0")/.."

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${FORMWORK_CACHE:-$HOME/.cache/formwork}/target}/broken-fence"
# What fails here is no regression.
export PROPTEST_DISABLE_FAILURE_PERSISTENCE=1
export RUSTFLAGS="${RUSTFLAGS:-} --cfg formwork_broken_fence"

must_fail() { # package, suite, a test that must be among those that fail, only tests with this in their names
    cargo test --release --locked -p "$1" --test "$2" --no-run
    local report
    if report=$(cargo test --release --locked -p "$1" --test "$2" -- --test-threads 4 "${@:4}" 2>&1); then
        echo "broken-fence: suite $2 of $1 passes although the fence is broken" >&2
        exit 1
    fi
    if ! grep -q "^test $3 .*FAILED$" <<<"$report"; then
        tail -40 <<<"$report" >&2
        echo "broken-fence: suite $2 of $1 fails, but not where it should: $3" >&2
        exit 1
    fi
    echo "broken-fence: suite $2 of $1 fails, as it must:"
    grep '^test .*FAILED$' <<<"$report" | sed 's/^/  /'
}

must_fail formwork-tasks lifecycle a_stale_lease_never_records_anything
must_fail formwork-tasks model nothing_is_lost_or_recorded_twice_in_any_history_of_two_steps_in_order
# Only these: some others wait for the stale worker to be refused, for ever.
must_fail formwork-store conformance sqlite_sync::a_stale_lease_records_nothing a_stale_lease_records_nothing
