//! What `make setup` brings, for tests.

/// A file of the folder with models.
#[allow(clippy::expect_used, reason = "a test that cannot go on says where")]
pub(crate) fn model(name: &str) -> Vec<u8> {
    let root = std::env::var("FORMWORK_CACHE")
        .unwrap_or_else(|_| format!("{}/.cache/formwork", std::env::var("HOME").expect("HOME is set")));
    std::fs::read(format!("{root}/models/{name}")).expect("make setup was run")
}
