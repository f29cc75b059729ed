//! A plugin's own tests decide whether it is installed. Other refusals are in `tests/hostile`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

mod support;

use formwork_engine::InstallError;
use formwork_guests::OK;
use serde_json::json;
use support::{engine, file, install, validator};

async fn refused(file: Vec<u8>) -> InstallError {
    install(&engine(), file).await.unwrap_err()
}

#[tokio::test]
async fn self_tests_decide() {
    let test = |expected| {
        json!({ "self_tests": [{ "name": "accepts all", "form": { "schema": {} }, "settings": {}, "data": {},
            "expect": { "output": { "valid": expected } } }] })
    };
    assert!(
        install(&engine(), file(&validator("", OK, OK), &test(true)))
            .await
            .is_ok()
    );
    let error = refused(file(&validator("", OK, OK), &test(false))).await;
    assert!(
        error.to_string().contains("at `/valid`: expected false, found true"),
        "{error}"
    );
}
