//! `formwork model check` and `formwork model quantize`: files of models, without a server.

use std::path::{Path, PathBuf};

use formwork_inference::{
    CallContext, FileSpec, GenerationRequest, Header, Inference, ModelFile, ModelSpec, ModelTask, Quantisation,
    inspect, quantise,
};
use serde_json::{Value, json};

use super::Global;
use super::exit::Failure;
use super::output::{print, print_json};

/// What both generators are asked when a quantised one is verified: likeliest words only, so that it can be repeated.
const PROMPT: &str = "Write two sentences about the sea.";

/// Longest answer to it, tokens.
const TOKENS: u32 = 48;

#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// A GGUF or ONNX file.
    file: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Quantize {
    /// The GGUF file to read.
    from: PathBuf,
    /// The GGUF file to write; it must not exist.
    to: PathBuf,
    /// `Q8_0`, `Q6_K`, `Q5_K_M`, `Q4_K_M`, `Q4_1` or `Q4_0`.
    #[arg(long = "type", value_name = "TYPE", default_value = "Q4_K_M")]
    kind: Quantisation,
    /// Also weights that are quantised already, which costs more quality than quantising the original.
    #[arg(long)]
    requantize: bool,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Do not load both files to compare what they write.
    #[arg(long)]
    no_verify: bool,
}

/// What a generator wrote, and how sure it was.
struct Sample {
    text: String,
    /// Mean of the tokens' log-probabilities.
    logprob: f64,
}

pub(crate) fn check(options: &Check, global: &Global) -> Result<(), Failure> {
    let found = inspect(&options.file).map_err(failure)?;
    if global.json {
        return Ok(print_json(&described(&options.file, &found))?);
    }
    Ok(print(&shown(&options.file, &found))?)
}

pub(crate) fn quantize(options: &Quantize, global: &Global) -> Result<(), Failure> {
    let before = inspect(&options.from).map_err(failure)?;
    let after = quantise(
        &options.from,
        &options.to,
        options.kind,
        options.requantize,
        options.threads,
    );
    let after = after.map_err(|error| match &error {
        formwork_inference::Error::Native(reason) if reason.contains("requantizing") => Failure::Usage(format!(
            "{error}; the weights are quantised already: begin with the original, or say --requantize"
        )),
        _ => failure(error),
    })?;
    let samples = match options.no_verify {
        true => None,
        false => Some((sample(&options.from, &before)?, sample(&options.to, &after)?)),
    };
    if global.json {
        let mut answer = described(&options.to, &after);
        answer["bytes_before"] = json!(before.bytes);
        if let Some((before, after)) = &samples {
            answer["verified"] = json!({ "prompt": PROMPT, "before": before.text, "after": after.text,
                "mean_logprob_before": before.logprob, "mean_logprob_after": after.logprob });
        }
        return Ok(print_json(&answer)?);
    }
    let mut text = shown(&options.to, &after);
    text.push_str(&format!(
        "\n{} MB before, {} MB now\n",
        before.bytes / 1_000_000,
        after.bytes / 1_000_000
    ));
    if let Some((before, after)) = &samples {
        for (name, sample) in [("before", before), ("now", after)] {
            let (logprob, answer) = (sample.logprob, &sample.text);
            text.push_str(&format!(
                "asked \"{PROMPT}\", {name} (mean log-probability {logprob:.3}): {answer}\n"
            ));
        }
    }
    Ok(print(&text)?)
}

fn described(path: &Path, file: &ModelFile) -> Value {
    let header = match &file.header {
        Header::Gguf {
            architecture,
            tensors,
            parameters,
        } => json!({ "format": "gguf", "architecture": architecture, "tensors": tensors, "parameters": parameters }),
        Header::Onnx {
            ir_version,
            nodes,
            initialisers,
        } => json!({ "format": "onnx", "ir_version": ir_version, "nodes": nodes, "tensors": initialisers }),
        other => json!({ "format": other.to_string() }),
    };
    json!({ "path": path, "sha256": file.sha256, "bytes": file.bytes, "header": header })
}

/// What it is, and the lines that declare it.
fn shown(path: &Path, file: &ModelFile) -> String {
    let stem = path
        .file_stem()
        .map_or_else(|| "model".into(), |stem| stem.to_string_lossy());
    let version: String = stem
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_.+".contains(c) {
                c
            } else {
                '-'
            }
        })
        .collect();
    let (name, task) = match file.header {
        Header::Gguf { .. } => ("generator", "{ kind = \"generator\" }".to_owned()),
        _ => (
            "encoder",
            "{ kind = \"encoder\", tokenizer = { path = \"tokenizer.json\", sha256 = \"…\" } }   # or { kind = \"graph\" }"
                .to_owned(),
        ),
    };
    format!(
        "{}: {}\n{} bytes, the header is sound\n\n[[models]]\nname = \"{name}\"\nversion = \"{version}\"\n\
         file = {{ path = {:?}, sha256 = \"{}\" }}\ntask = {task}\n",
        path.display(),
        file.header,
        file.bytes,
        path.display().to_string(),
        file.sha256,
    )
}

/// Loads a generator as a server does, sha256 included, and lets it write.
fn sample(path: &Path, file: &ModelFile) -> Result<Sample, Failure> {
    let spec = FileSpec {
        path: path.to_path_buf(),
        sha256: file.sha256.clone(),
    };
    let task = ModelTask::Generator {
        context_tokens: 256,
        prefix_slots: 1,
    };
    let models = vec![ModelSpec::new("sample", "1", task, spec)];
    let inference = Inference::start(formwork_inference::Options::default(), models).map_err(failure)?;
    let request = GenerationRequest {
        prompt: PROMPT.to_owned(),
        max_tokens: TOKENS,
        ..GenerationRequest::default()
    };
    super::block_on(async {
        let mut completion = inference
            .generate("sample", request, &CallContext::default())
            .await
            .map_err(failure)?;
        let (mut text, mut sum, mut tokens) = (String::new(), 0.0, 0_u32);
        while let Some(chunk) = completion.next().await.map_err(failure)? {
            text.push_str(&chunk.text);
            sum += f64::from(chunk.logprob);
            tokens += chunk.tokens;
        }
        Ok(Sample {
            text: text.trim().to_owned(),
            logprob: sum / f64::from(tokens.max(1)),
        })
    })
}

fn failure(error: formwork_inference::Error) -> Failure {
    match error {
        formwork_inference::Error::File { .. } => Failure::NotFound(error.to_string()),
        other => Failure::failed(other),
    }
}
