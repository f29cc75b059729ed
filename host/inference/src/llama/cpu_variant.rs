//! Which build of ggml's CPU backend this process uses.
//!
//! Problem: llama.cpp computes in one backend for the whole process, and a build for more than the CPU has would end it.
//! Promise: the best one that the CPU can run, or the one that the operator names, decided once, before the first model is
//! loaded. Cost: none after that. Rejected: a variant for each model, because llama.cpp asks one registry for "the" CPU.

use std::sync::OnceLock;

use formwork_ggml_variants::{Variant, all};

use crate::error::Error;

/// The best that the CPU can run.
pub(crate) const AUTO: &str = "auto";
/// What the binding compiled for the CPU that the whole program was compiled for.
pub(crate) const BASELINE: &str = "baseline";

static SELECTED: OnceLock<Option<&'static Variant>> = OnceLock::new();

/// Takes the variant of that name for the whole process.
///
/// # Errors
/// [`Error::InvalidArgument`] for a name that does not exist, that the CPU cannot run, or that is not the one which was
/// taken before.
pub(crate) fn select(wanted: &str) -> Result<(), Error> {
    let found = find(wanted, all(), |variant| (variant.name(), variant.missing()))?;
    let selected = *SELECTED.get_or_init(|| found);
    if wanted != AUTO && name(selected) != wanted {
        let reason = format!("llama.cpp is {} in this process, not {wanted}", name(selected));
        return Err(Error::InvalidArgument(format!("inference.cpu_variant: {reason}")));
    }
    Ok(())
}

/// The one that was taken, or the best; nothing is the baseline.
pub(super) fn selected() -> Option<&'static Variant> {
    *SELECTED.get_or_init(|| all().iter().find(|variant| variant.missing().is_empty()))
}

/// Its name.
pub(crate) fn selected_name() -> &'static str {
    name(selected())
}

fn name(variant: Option<&'static Variant>) -> &'static str {
    variant.map_or(BASELINE, Variant::name)
}

/// Looks a name up among variants, the best first. `look` answers a variant's name and what the CPU lacks for it.
fn find<'v, V>(
    wanted: &str,
    variants: &'v [V],
    look: impl Fn(&V) -> (&'static str, Vec<&'static str>),
) -> Result<Option<&'v V>, Error> {
    let runs = |variant: &&V| look(variant).1.is_empty();
    match wanted {
        AUTO => return Ok(variants.iter().find(runs)),
        BASELINE => return Ok(None),
        _ => {}
    }
    let reason = match variants.iter().find(|variant| look(variant).0 == wanted) {
        Some(variant) if runs(&variant) => return Ok(Some(variant)),
        Some(variant) => format!("this CPU lacks {}", look(variant).1.join(", ")),
        None => "there is none of that name".to_owned(),
    };
    let names: Vec<&str> = variants.iter().filter(runs).map(|variant| look(variant).0).collect();
    let names = [&[AUTO], names.as_slice(), &[BASELINE]].concat().join(", ");
    Err(Error::InvalidArgument(format!(
        "inference.cpu_variant = {wanted:?}: {reason}; this machine can have {names}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Row = (&'static str, &'static [&'static str]);

    fn look(row: &Row) -> (&'static str, Vec<&'static str>) {
        (row.0, row.1.to_vec())
    }

    const ROWS: &[Row] = &[("new", &["avx512f", "avx512bw"]), ("middle", &[]), ("old", &[])];

    #[test]
    fn the_first_that_the_cpu_can_run_is_the_best() {
        assert_eq!(find(AUTO, ROWS, look).unwrap().map(|row| row.0), Some("middle"));
        assert_eq!(find(AUTO, &ROWS[..1], look).unwrap(), None);
        assert_eq!(find("old", ROWS, look).unwrap().map(|row| row.0), Some("old"));
        assert_eq!(find(BASELINE, ROWS, look).unwrap(), None);
    }

    #[test]
    fn a_name_that_is_unknown_or_beyond_the_cpu_is_refused_with_those_that_are_not() {
        let refused = |name| find(name, ROWS, look).unwrap_err().to_string();
        assert!(refused("new").contains("lacks avx512f, avx512bw; this machine can have auto, middle, old, baseline"));
        assert!(refused("New").contains("none of that name"));
    }
}
