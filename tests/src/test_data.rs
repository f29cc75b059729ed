//! Real forms, texts and test suites that are too large for the repository.

use std::path::PathBuf;

/// Names the folder of test data.
const VARIABLE: &str = "FORMWORK_TEST_DATA";

/// The folder `name` of the test data, or `None` with a message on standard error when none was given.
///
/// # Panics
/// When the variable is set and the folder is not there: in CI a test must not vanish silently.
pub fn test_data(name: &str) -> Option<PathBuf> {
    let Some(root) = std::env::var_os(VARIABLE).filter(|root| !root.is_empty()) else {
        eprintln!("skipped: {VARIABLE} is not set, so `{name}` is not there");
        return None;
    };
    let folder = PathBuf::from(root).join(name);
    assert!(
        folder.is_dir(),
        "{VARIABLE} is set, but {} is not a folder",
        folder.display()
    );
    Some(folder)
}
