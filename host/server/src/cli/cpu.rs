//! Whether this CPU has what the program was compiled for; without this check it would die on an illegal instruction.

use super::exit::Failure;

/// What `target-cpu=x86-64-v3` uses, as the kernel names it.
const NEEDED: [&str; 5] = ["avx2", "bmi1", "bmi2", "fma", "movbe"];

/// Looks at the kernel's list of the CPU's features; where there is none, nothing is refused.
pub(crate) fn check() -> Result<(), Failure> {
    if !cfg!(all(target_arch = "x86_64", target_feature = "avx2")) {
        return Ok(());
    }
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let Some(flags) = text.lines().find(|line| line.starts_with("flags")) else {
        return Ok(());
    };
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let missing: Vec<&str> = NEEDED.into_iter().filter(|feature| !flags.contains(feature)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "this program was compiled for x86-64-v3 and the CPU lacks {}: build it here with another target-cpu in .cargo/config.toml",
        missing.join(", ")
    )))
}
