//! Evaluated prompt prefixes, kept in memory and on disk.
//!
//! Problem: the part of a prompt that a form brings (its system text) is the same for each submission
//! and costs seconds to evaluate; native sequences are few, and lost when a model is evicted. Promise:
//! a prefix is evaluated once; any text that shares its beginning with a kept one starts from there,
//! whatever ran in between, also after a restart; memory and disk are bounded in bytes, the least
//! recently used go first. Cost: 23 KB a token for SmolLM2-135M; putting 400 tokens back takes
//! milliseconds where evaluating them takes a second. Rejected: sharing cells between native sequences
//! (then each step attends over all sequences' cells); one native sequence per form (memory for the
//! whole context instead of the prefix).

use std::path::PathBuf;

use super::native::Token;
use super::prefix_files::PrefixFiles;
use super::slots::shared;
use crate::limits;

/// Where evaluated prefixes may be kept, and how many bytes of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct PrefixBounds {
    pub(crate) memory_bytes: u64,
    /// A folder of the host's own; `None` keeps nothing on disk.
    pub(crate) folder: Option<PathBuf>,
    pub(crate) disk_bytes: u64,
}

pub(crate) struct PrefixCache {
    entries: Vec<Entry>,
    bounds: PrefixBounds,
    files: Option<PrefixFiles>,
    /// Bytes of the memory that others have.
    lent: u64,
    clock: u64,
}

struct Entry {
    tokens: Vec<Token>,
    /// In memory.
    state: Option<Vec<u8>>,
    on_disk: bool,
    used: u64,
}

/// Where a state came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Memory,
    Disk,
}

impl PrefixCache {
    /// `key` is what a state depends on besides its tokens: model, shape and library.
    pub(crate) fn open(bounds: PrefixBounds, key: &str) -> Self {
        let files = bounds.folder.as_deref().and_then(|folder| {
            PrefixFiles::open(folder, key, bounds.disk_bytes)
                .inspect_err(|error| {
                    tracing::warn!(folder = %folder.display(), %error, "evaluated prefixes are not kept on disk");
                })
                .ok()
        });
        let mut cache = Self {
            entries: Vec::new(),
            bounds,
            files,
            lent: 0,
            clock: 0,
        };
        // Files come oldest first.
        for tokens in cache.files.as_ref().map(PrefixFiles::list).unwrap_or_default() {
            cache.clock += 1;
            cache.entries.push(Entry {
                tokens,
                state: None,
                on_disk: true,
                used: cache.clock,
            });
        }
        cache
    }

    /// Most tokens that a kept prefix shares with a prompt; `whole`: only prefixes that it begins with.
    pub(crate) fn longest(&self, prompt: &[Token], whole: bool) -> usize {
        self.find(prompt, whole).map_or(0, |(_, shared)| shared)
    }

    /// The state of the prefix that shares most with a prompt, the number of its tokens, and how many
    /// of them are shared.
    pub(crate) fn get(&mut self, prompt: &[Token], whole: bool) -> Option<(&[u8], &[Token], usize, Source)> {
        loop {
            let (index, shared) = self.find(prompt, whole)?;
            let mut source = Source::Memory;
            if self.entries[index].state.is_none() {
                source = Source::Disk;
                let tokens = &self.entries[index].tokens;
                match self.files.as_ref().and_then(|files| files.read(tokens)) {
                    Some(state) => self.entries[index].state = Some(state),
                    None => {
                        // Gone or damaged: try the next best.
                        self.entries.remove(index);
                        continue;
                    }
                }
            }
            self.clock += 1;
            self.entries[index].used = self.clock;
            let index = self.bound(index);
            let entry = &self.entries[index];
            return Some((entry.state.as_deref()?, &entry.tokens, shared, source));
        }
    }

    /// Whether a prefix of just these tokens is kept.
    pub(crate) fn holds(&self, tokens: &[Token]) -> bool {
        self.entries.iter().any(|entry| entry.tokens == tokens)
    }

    /// Forgets a prefix whose state was refused.
    pub(crate) fn forget(&mut self, tokens: &[Token]) {
        self.entries.retain(|entry| entry.tokens != tokens);
        if let Some(files) = &self.files {
            files.remove(tokens);
        }
    }

    pub(crate) fn put(&mut self, tokens: &[Token], state: Vec<u8>) {
        if self.lent + state.len() as u64 > self.bounds.memory_bytes || self.holds(tokens) {
            return;
        }
        self.clock += 1;
        self.entries.push(Entry {
            tokens: tokens.to_vec(),
            state: Some(state),
            on_disk: false,
            used: self.clock,
        });
        self.bound(self.entries.len() - 1);
    }

    /// Writes one prefix that is not on disk yet; whether there was one. For when nothing else is to do.
    pub(crate) fn write_one(&mut self) -> bool {
        let Some(files) = &self.files else { return false };
        let Some(entry) = self
            .entries
            .iter_mut()
            .find(|entry| !entry.on_disk && entry.state.is_some())
        else {
            return false;
        };
        // Also when it failed, which was logged: a full disk is not tried again and again.
        entry.on_disk = true;
        if let Some(state) = &entry.state {
            files.write(&entry.tokens, state);
        }
        true
    }

    /// Lends memory to a text that is set aside; false if there is not so much.
    pub(crate) fn lend(&mut self, bytes: u64) -> bool {
        if self.lent.saturating_add(bytes) > self.bounds.memory_bytes {
            return false;
        }
        self.lent += bytes;
        self.bound(usize::MAX);
        true
    }

    pub(crate) fn give_back(&mut self, bytes: u64) {
        self.lent = self.lent.saturating_sub(bytes);
    }

    /// Bytes of states in memory.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.entries
            .iter()
            .filter_map(|entry| entry.state.as_ref())
            .map(|state| state.len() as u64)
            .sum()
    }

    fn find(&self, prompt: &[Token], whole: bool) -> Option<(usize, usize)> {
        self.entries
            .iter()
            .enumerate()
            .map(|(index, entry)| (index, shared(&entry.tokens, prompt)))
            .filter(|(index, shared)| !whole || *shared == self.entries[*index].tokens.len())
            .filter(|(_, shared)| *shared >= limits::MIN_PREFIX_TOKENS)
            .max_by_key(|(_, shared)| *shared)
    }

    /// Drops states, least recently used first, until memory is within its bound; entry `keep` stays, if
    /// it is one, and its index is answered.
    fn bound(&mut self, keep: usize) -> usize {
        let mut keep = keep;
        while self.lent + self.memory_bytes() > self.bounds.memory_bytes || self.entries.len() > limits::MAX_PREFIXES {
            let over = self.entries.len() > limits::MAX_PREFIXES;
            let oldest = (0..self.entries.len())
                .filter(|index| *index != keep && (over || self.entries[*index].state.is_some()))
                .min_by_key(|index| self.entries[*index].used);
            let Some(oldest) = oldest else { break };
            let entry = &mut self.entries[oldest];
            if let (Some(files), Some(state), false) = (&self.files, &entry.state, entry.on_disk) {
                files.write(&entry.tokens, state);
                entry.on_disk = true;
            }
            entry.state = None;
            if over || self.files.is_none() {
                self.entries.remove(oldest);
                keep -= usize::from(oldest < keep && keep != usize::MAX);
            }
        }
        keep
    }
}
