//! The kept inputs, and small changes of them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Target;

/// Changes made to one input at most.
const MOST_CHANGES: u64 = 6;

/// Longest input that is made.
const MOST_BYTES: usize = 4 << 10;

/// Bytes that stand at edges.
const INTERESTING: [&[u8]; 8] = [
    &[0],
    &[0xff],
    &[0x7f],
    &[0xff, 0xff, 0xff, 0xff],
    &[0xff, 0xff, 0xff, 0x7f],
    &[0, 0, 0, 0x80],
    &[0x80, 0x80, 0x80, 0x80, 0x0f],
    &[0, 0, 0xc0, 0x7f],
];

fn folder(target: Target) -> PathBuf {
    // Read when the test runs: a target folder shared by several clones may hold a program compiled in another one.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    PathBuf::from(here).join("../fuzz/corpus").join(target.name())
}

/// The kept inputs of a target, in the order of their names.
fn corpus(target: Target) -> Vec<Vec<u8>> {
    let folder = folder(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry can be read").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
        .iter()
        .map(|file| std::fs::read(file).expect("an input can be read"))
        .collect()
}

/// Writes the inputs a target begins with into its corpus.
///
/// # Panics
/// When the folder cannot be written.
pub fn write_seeds(target: Target) {
    let folder = folder(target);
    std::fs::create_dir_all(&folder).expect("the corpus can be made");
    for (number, seed) in target.seeds().iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{number:03}")), seed).expect("a seed can be written");
    }
}

/// How many inputs ended in which way.
pub type Ends = BTreeMap<&'static str, u64>;

/// Runs the corpus, then `changed` inputs made of it: the same ones in every run.
///
/// # Panics
/// When a promise is broken; the message has the input.
pub fn bounded(target: Target, changed: u64) -> Ends {
    let corpus = corpus(target);
    let mut ends = Ends::new();
    let mut run = |input: &[u8]| {
        let Ok(end) = std::panic::catch_unwind(|| target.run(input)) else {
            panic!("{} breaks a promise on {input:?}", target.name());
        };
        *ends.entry(end).or_default() += 1;
    };
    for input in &corpus {
        run(input);
    }
    let mut chance = Chance(0);
    for _ in 0..changed {
        run(&change(&corpus, &mut chance));
    }
    ends
}

/// SplitMix64: its numbers are the same on every machine and in every version.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 when there is none.
    fn below(&mut self, end: usize) -> usize {
        let end = (end as u64).max(1);
        usize::try_from(self.next() % end).unwrap_or(0)
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

fn change(corpus: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut input = chance.pick(corpus).clone();
    for _ in 0..=chance.next() % MOST_CHANGES {
        let at = chance.below(input.len());
        let end = (at + 1 + chance.below(16)).min(input.len());
        match chance.next() % 8 {
            0 if at < input.len() => input[at] ^= 1 << chance.below(8),
            1 if at < input.len() => input[at] = chance.next().to_le_bytes()[0],
            2 => drop(input.splice(at..at, chance.pick(&INTERESTING).iter().copied())),
            3 if at < input.len() => {
                let bytes = *chance.pick(&INTERESTING);
                let end = (at + bytes.len()).min(input.len());
                drop(input.splice(at..end, bytes.iter().copied()));
            }
            4 if at < input.len() => drop(input.drain(at..end)),
            5 if at < input.len() => {
                let copy = input[at..end].to_vec();
                let to = chance.below(input.len());
                drop(input.splice(to..to, copy));
            }
            6 => {
                let other = chance.pick(corpus);
                let from = chance.below(other.len());
                input.truncate(at);
                input.extend(&other[from..]);
            }
            _ => input.truncate(at + 1),
        }
        input.truncate(MOST_BYTES);
    }
    input
}
