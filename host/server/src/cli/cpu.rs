//! Whether this CPU has what the program was compiled for; without this check it would die on an illegal instruction.

use super::exit::Failure;

/// What `target-cpu=x86-64-v2` uses, as the kernel names it.
const V2: &[&str] = &["cx16", "popcnt", "ssse3", "sse4_1", "sse4_2"];
/// What `target-cpu=x86-64-v3` uses besides.
const V3: &[&str] = &["avx2", "bmi1", "bmi2", "fma", "movbe"];

/// Looks at the kernel's list of the CPU's features; where there is none, nothing is refused.
pub(crate) fn check() -> Result<(), Failure> {
    let (level, needed) = if cfg!(not(target_arch = "x86_64")) {
        return Ok(());
    } else if cfg!(target_feature = "avx2") {
        ("x86-64-v3", [V2, V3].concat())
    } else if cfg!(target_feature = "sse4.2") {
        ("x86-64-v2", V2.to_vec())
    } else {
        return Ok(());
    };
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let Some(flags) = text.lines().find(|line| line.starts_with("flags")) else {
        return Ok(());
    };
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let missing: Vec<&str> = needed.into_iter().filter(|feature| !flags.contains(feature)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "this program was compiled for {level} and the CPU lacks {}: build it here with another target-cpu in .cargo/config.toml",
        missing.join(", ")
    )))
}
