//! A file that is not what it should be is refused by name, before native code sees it.
#![allow(clippy::unwrap_used, reason = "a test helper fails the test by panicking")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;

use formwork_inference::{Error, FileSpec, Inference, ModelSpec, ModelState, ModelTask, Options};
use support::{call, encoder, generator, gguf, onnx, options, spec, texts};

fn write(dir: &tempfile::TempDir, name: &str, bytes: &[u8]) -> FileSpec {
    use std::fmt::Write as _;
    let path = dir.path().join(name);
    fs::File::create(&path).unwrap().write_all(bytes).unwrap();
    // The right digest of the wrong bytes.
    let digest = <sha2::Sha256 as sha2::Digest>::digest(bytes);
    let sha256 = digest.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    });
    FileSpec { path, sha256 }
}

fn start(model: ModelSpec) -> Result<Inference, Error> {
    Inference::start(options(), vec![model])
}

#[test]
fn a_wrong_sha256_names_file_expectation_and_finding() {
    for (mut model, file) in [(generator("a"), gguf()), (encoder("b"), onnx())] {
        model.file.sha256 = "0".repeat(64);
        match start(model) {
            Err(Error::Checksum { path, expected, actual }) => {
                assert_eq!((path, expected, actual), (file.path, "0".repeat(64), file.sha256));
            }
            other => panic!("{other:?}"),
        }
    }
    let mut tokenizer = support::tokenizer();
    tokenizer.sha256 = "1".repeat(64);
    let model = spec(
        "c",
        ModelTask::Encoder {
            tokenizer,
            max_tokens: 256,
        },
        onnx(),
    );
    assert!(matches!(start(model), Err(Error::Checksum { .. })));
}

#[test]
fn a_missing_file_says_how_to_get_it() {
    let mut model = generator("a");
    model.file.path = PathBuf::from("models/nowhere.gguf");
    let error = start(model).unwrap_err().to_string();
    assert!(
        error.contains("models/nowhere.gguf") && error.contains("make setup"),
        "{error}"
    );
}

#[test]
fn garbage_with_the_right_sha256_is_a_bad_model_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut head = vec![0; 3_000_000];
    fs::File::open(gguf().path).unwrap().read_exact(&mut head).unwrap();
    let mut version = head.clone();
    version[4] = 99;
    let mut keys = head.clone();
    keys[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut string = head.clone();
    string[24..32].copy_from_slice(&(1_u64 << 62).to_le_bytes());
    let cases: [(&str, &[u8]); 8] = [
        ("empty", b""),
        ("magic", b"GGUF"),
        ("garbage", &[0x5a; 4096]),
        ("truncated-header", &head[..100_000]),
        ("truncated-data", &head),
        ("version", &version),
        ("keys", &keys),
        ("string", &string),
    ];
    for (name, bytes) in cases {
        let task = ModelTask::Generator {
            context_tokens: 64,
            prefix_slots: 1,
        };
        let error = start(spec("bad", task, write(&dir, name, bytes))).unwrap_err();
        assert!(matches!(error, Error::BadModelFile { .. }), "{name}: {error}");
    }
    let whole = fs::read(onnx().path).unwrap();
    let cases: [(&str, &[u8]); 4] = [
        ("empty.onnx", b""),
        ("garbage.onnx", &[0x5a; 4096]),
        ("truncated.onnx", &whole[..1_000_000]),
        // A well-formed protobuf of the right fields that is no graph.
        ("hollow.onnx", &[8, 8, 0x3a, 4, 0x0a, 0, 0x62, 0, 0x42, 0]),
    ];
    for (name, bytes) in cases {
        let error = start(spec("bad", ModelTask::Graph {}, write(&dir, name, bytes))).unwrap_err();
        assert!(matches!(error, Error::BadModelFile { .. }), "{name}: {error}");
    }
    let tokenizer = write(&dir, "tokenizer.json", b"{\"version\": 1}");
    let model = spec(
        "bad",
        ModelTask::Encoder {
            tokenizer: tokenizer.clone(),
            max_tokens: 256,
        },
        onnx(),
    );
    match start(model) {
        Err(Error::BadModelFile { path, .. }) => assert_eq!(path, tokenizer.path),
        other => panic!("{other:?}"),
    }
}

#[test]
fn declarations_are_checked() {
    let twice = Inference::start(options(), vec![generator("a"), encoder("a")]);
    assert!(matches!(twice, Err(Error::InvalidArgument(_))), "{twice:?}");
    let nameless = start(generator("a b"));
    assert!(matches!(nameless, Err(Error::InvalidArgument(_))), "{nameless:?}");
    let tiny = ModelTask::Generator {
        context_tokens: 1,
        prefix_slots: 1,
    };
    assert!(matches!(start(spec("a", tiny, gguf())), Err(Error::InvalidArgument(_))));

    let parsed: ModelSpec = serde_json::from_value(serde_json::json!({
        "name": "smol", "version": "2", "task": { "kind": "generator", "context_tokens": 512 },
        "file": { "path": "a.gguf", "sha256": "00" },
    }))
    .unwrap();
    assert_eq!(
        parsed.task,
        ModelTask::Generator {
            context_tokens: 512,
            prefix_slots: 2
        }
    );
    let unknown = serde_json::from_value::<ModelSpec>(serde_json::json!({
        "name": "smol", "version": "2", "task": { "kind": "generator", "context": 512 },
        "file": { "path": "a.gguf", "sha256": "00" },
    }));
    assert!(
        unknown.unwrap_err().to_string().contains("context"),
        "unknown keys are errors"
    );
}

#[test]
fn without_onnx_models_the_library_is_not_touched() {
    let nowhere = Options {
        onnxruntime: PathBuf::from("nowhere.so"),
        ..options()
    };
    assert!(
        Inference::start(nowhere.clone(), Vec::new())
            .unwrap()
            .models()
            .is_empty()
    );
    let error = Inference::start(nowhere, vec![encoder("a")]).unwrap_err();
    assert!(matches!(error, Error::Library { .. }), "{error}");
}

#[tokio::test]
async fn a_loaded_model_tells_what_it_is() {
    let inference = Inference::start(options(), vec![generator("smol"), encoder("minilm")]).unwrap();
    let models = inference.models();
    assert_eq!(
        models.iter().map(|model| model.task).collect::<Vec<_>>(),
        ["encoder", "generator"]
    );
    for model in &models {
        assert_eq!(model.state, ModelState::Ready);
        assert!(model.file_bytes > 20_000_000 && model.load_time.is_some());
    }
    inference.embed("minilm", texts(&["ready"]), &call()).await.unwrap();
}
