//! What was evaluated once is not evaluated again, and nothing wrong is taken for it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use formwork_inference::{GenerationRequest, Inference, Options, Summary};
use support::{ask, call, generator, options};

fn request(form: &str, prompt: &str) -> GenerationRequest {
    GenerationRequest {
        system: format!("{form}: you sort messages of customers. ") + &"Read with care and answer briefly. ".repeat(8),
        ..ask(prompt, 3)
    }
}

async fn say(inference: &Inference, form: &str, prompt: &str) -> (String, Summary) {
    let mut completion = inference
        .generate("prefix", request(form, prompt), &call())
        .await
        .unwrap();
    let text = completion.text().await.unwrap();
    (text, completion.summary().unwrap())
}

fn start(folder: Option<&Path>) -> Inference {
    let options = Options {
        prefix_folder: folder.map(Path::to_path_buf),
        ..options()
    };
    Inference::start(options, vec![generator("prefix")]).unwrap()
}

/// The prefix files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for inner in fs::read_dir(folder).into_iter().flatten().flatten() {
        found.extend(fs::read_dir(inner.path()).unwrap().map(|file| file.unwrap().path()));
    }
    found
}

#[tokio::test]
async fn more_forms_than_sequences_keep_their_prefixes() {
    let inference = start(None);
    let mut cold = Vec::new();
    for form in ["a", "b", "c", "d"] {
        cold.push(say(&inference, form, "My chain broke.").await);
    }
    for (form, (text, cold)) in ["a", "b", "c", "d"].into_iter().zip(cold) {
        assert!(cold.cached_tokens < 8, "{cold:?}");
        say(&inference, form, "Where is it?").await;
        let (again, warm) = say(&inference, form, "My chain broke.").await;
        assert!(warm.cached_tokens > 60, "{form}: {warm:?}");
        assert_eq!(again, text, "a kept prefix must not change the text");
    }
}

#[tokio::test]
async fn prefixes_survive_a_restart_and_their_files_are_private() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("prefixes");
    let inference = start(Some(&folder));
    let (text, _) = say(&inference, "a", "My chain broke.").await;
    inference.shutdown();
    let kept = files(&folder);
    assert_eq!(kept.len(), 1, "{kept:?}");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&kept[0])), (0o700, 0o600));

    let inference = start(Some(&folder));
    let (again, warm) = say(&inference, "a", "My chain broke.").await;
    assert!(warm.cached_tokens > 60, "{warm:?}");
    assert_eq!(again, text);
}

#[tokio::test]
async fn a_damaged_file_is_ignored_and_removed() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("prefixes");
    let inference = start(Some(&folder));
    let (text, _) = say(&inference, "a", "My chain broke.").await;
    inference.shutdown();
    let kept = files(&folder).pop().unwrap();
    let whole = fs::read(&kept).unwrap();
    let last = whole.len() - 40;
    let mut flipped = whole.clone();
    flipped[last] ^= 1;
    let mut foreign = whole.clone();
    foreign[9] ^= 1;
    for damaged in [
        flipped,
        whole[..last].to_vec(),
        whole[..20].to_vec(),
        Vec::new(),
        foreign,
    ] {
        fs::write(&kept, &damaged).unwrap();
        let inference = start(Some(&folder));
        let (again, cold) = say(&inference, "a", "My chain broke.").await;
        assert!(cold.cached_tokens < 8, "{cold:?}");
        assert_eq!(again, text);
        inference.shutdown();
        assert_eq!(fs::read(&kept).unwrap(), whole, "evaluated and kept anew");
    }
    // Others may not have had a hand in it.
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o666)).unwrap();
    let inference = start(Some(&folder));
    let (_, cold) = say(&inference, "a", "My chain broke.").await;
    assert!(cold.cached_tokens < 8, "{cold:?}");
}

#[tokio::test]
async fn the_bounds_of_memory_and_disk_hold() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("prefixes");
    let bounded = Options {
        prefix_folder: Some(folder.clone()),
        prefix_memory_bytes: 4 << 20,
        prefix_disk_bytes: 5 << 20,
        ..options()
    };
    let inference = Inference::start(bounded, vec![generator("prefix")]).unwrap();
    for form in ["a", "b", "c", "d", "e"] {
        say(&inference, form, "My chain broke.").await;
    }
    let memory = support::gauge("formwork_inference_prefix_bytes", &[("model", "prefix")]);
    inference.shutdown();
    let disk: u64 = files(&folder)
        .iter()
        .map(|file| fs::metadata(file).unwrap().len())
        .sum();
    assert!(disk > 1 << 20 && disk <= 5 << 20, "{disk}");
    assert!(memory <= 4 << 20, "{memory}");
}
