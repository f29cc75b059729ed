//! A generator's weights are made smaller, and what comes out is a model like any other.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

mod support;

use formwork_inference::{Error, FileSpec, Header, Inference, ModelTask, Options, Quantisation, inspect, quantise};
use support::{ask, call, gguf, onnx, spec};

#[tokio::test]
async fn quantised_weights_are_checked_loaded_and_write() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (gguf().path, folder.path().join("smaller.gguf"));
    let kind: Quantisation = "q4_0".parse().unwrap();

    // These are quantised already, and nobody said that this is meant.
    let error = quantise(&from, &to, kind, false, 1).unwrap_err();
    assert!(
        matches!(&error, Error::Native(reason) if reason.contains("requantizing")),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "nothing is left behind");

    let before = inspect(&from).unwrap();
    let after = quantise(&from, &to, kind, true, 1).unwrap();
    assert_eq!(before.sha256, gguf().sha256);
    assert!(
        after.bytes < before.bytes * 97 / 100,
        "{} of {}",
        after.bytes,
        before.bytes
    );
    match (before.header, after.header) {
        (
            Header::Gguf { parameters, .. },
            Header::Gguf {
                architecture,
                parameters: kept,
                ..
            },
        ) => {
            assert_eq!((architecture.as_str(), kept), ("llama", parameters));
        }
        other => panic!("{other:?}"),
    }
    let error = quantise(&from, &to, kind, true, 1).unwrap_err();
    assert!(error.to_string().contains("exists already"), "{error}");

    let file = FileSpec {
        path: to,
        sha256: after.sha256,
    };
    let task = ModelTask::Generator {
        context_tokens: 128,
        prefix_slots: 1,
    };
    let inference = Inference::start(Options::default(), vec![spec("smaller", task, file)]).unwrap();
    let mut completion = inference
        .generate("smaller", ask("Name the capital of France.", 16), &call())
        .await
        .unwrap();
    let text = completion.text().await.unwrap();
    assert!(!text.trim().is_empty(), "nothing was written");
}

#[test]
fn only_what_is_a_model_is_inspected_or_quantised() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("smaller.gguf");
    assert!(matches!(inspect(&onnx().path).unwrap().header, Header::Onnx { nodes, .. } if nodes > 100));
    let error = quantise(&onnx().path, &to, Quantisation::Q8_0, true, 1).unwrap_err();
    assert!(matches!(error, Error::BadModelFile { .. }), "{error}");
    assert!(matches!(inspect(&to), Err(Error::File { .. })));
    assert!("Q3".parse::<Quantisation>().unwrap_err().contains("Q4_K_M"));
}
