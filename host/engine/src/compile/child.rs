//! The compiler's process: both ends.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, setrlimit};

use super::CompilerCommand;
use crate::config::compiler_config;
use crate::{CompileOptions, InstallError};

/// What of the compiler's complaint is kept, bytes.
const MAX_COMPLAINT_BYTES: u64 = 16 << 10;

/// The child's end: takes its limits, compiles the component on `input`, writes machine code to `output`.
///
/// # Errors
/// What is wrong with the component or the streams, in words for the parent's refusal.
pub fn compile_in_this_process(
    limits: &CompileOptions,
    input: impl Read,
    mut output: impl Write,
) -> Result<(), String> {
    let CompileOptions { seconds, memory_bytes } = *limits;
    // Two threads at most compile, so CPU time is at most twice the wall time the parent waits.
    setrlimit(Resource::RLIMIT_CPU, seconds * 2, seconds * 2).map_err(|error| format!("limiting CPU time: {error}"))?;
    setrlimit(Resource::RLIMIT_AS, memory_bytes, memory_bytes).map_err(|error| format!("limiting memory: {error}"))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(|error| format!("limiting core dumps: {error}"))?;
    let mut component = Vec::new();
    let mut input = input.take(crate::limits::MAX_COMPONENT_BYTES as u64 * 2);
    input
        .read_to_end(&mut component)
        .map_err(|error| format!("reading the component: {error}"))?;
    let engine = wasmtime::Engine::new(&compiler_config()).map_err(|error| format!("{error:#}"))?;
    let code = engine
        .precompile_component(&component)
        .map_err(|error| format!("{error:#}"))?;
    output
        .write_all(&code)
        .map_err(|error| format!("writing machine code: {error}"))
}

/// The parent's end.
pub(super) fn compile(
    command: &CompilerCommand,
    limits: &CompileOptions,
    component: &[u8],
) -> Result<Vec<u8>, InstallError> {
    let failed = |message: String| InstallError::Compiler(message);
    let limits_text = serde_json::to_string(limits).map_err(|error| failed(error.to_string()))?;
    let mut child = Command::new(&command.program)
        .args(&command.arguments)
        .arg(limits_text)
        // Nothing of this process's secrets.
        .env_clear()
        .envs(command.environment.iter().cloned())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("starting {}: {error}", command.program.display())))?;
    let ended = converse(&mut child, limits, component);
    // Also when it has ended: it must not stay as a zombie.
    let _killed = child.kill();
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    let Answer { code, complaint } = ended?;
    if status.success() {
        return Ok(code);
    }
    let complaint = complaint.trim();
    let out_of_memory = [
        "memory allocation of",
        "out of memory",
        "Resource temporarily unavailable",
    ]
    .iter()
    .any(|words| complaint.contains(words));
    if status.code().is_some() && !complaint.is_empty() && !out_of_memory {
        return Err(InstallError::Invalid(complaint.to_owned()));
    }
    // Killed by a signal: its CPU limit (SIGXCPU, SIGKILL), or it aborted because memory ended.
    Err(InstallError::CompileLimit {
        limits: limits.clone(),
        how: format!("{status}{}{complaint}", if complaint.is_empty() { "" } else { ": " }),
    })
}

struct Answer {
    code: Vec<u8>,
    complaint: String,
}

/// Feeds the child and listens to it, each stream on a thread of its own, until it ends or its time does.
fn converse(child: &mut Child, limits: &CompileOptions, component: &[u8]) -> Result<Answer, InstallError> {
    let (Some(mut stdin), Some(mut stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(InstallError::Compiler("it has no streams".into()));
    };
    let until = Instant::now() + Duration::from_secs(limits.seconds);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // A child that died early says so by its status.
            let _fed = stdin.write_all(component);
        });
        let complaint = scope.spawn(move || {
            let mut text = Vec::new();
            let _read = stderr.take(MAX_COMPLAINT_BYTES).read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let (tell, told) = channel();
        scope.spawn(move || {
            let mut code = Vec::new();
            let read = stdout.read_to_end(&mut code).map(|_| code);
            // Nobody listens any more once the time is up.
            let _heard = tell.send(read);
        });
        let read = told.recv_timeout(until.saturating_duration_since(Instant::now()));
        if let Err(RecvTimeoutError::Timeout) = read {
            // Ends the streams, and with them the threads of this scope.
            let _killed = child.kill();
            return Err(InstallError::CompileLimit {
                limits: limits.clone(),
                how: "it was not done in time".into(),
            });
        }
        match read {
            Ok(Ok(code)) => Ok(Answer {
                code,
                complaint: complaint.join().unwrap_or_default(),
            }),
            Ok(Err(error)) => Err(InstallError::Compiler(error.to_string())),
            Err(_) => Err(InstallError::Compiler("its answer was lost".into())),
        }
    })
}
