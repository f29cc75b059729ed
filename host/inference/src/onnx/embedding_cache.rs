//! Embeddings that are known already.
//!
//! Label texts and repeated answers are embedded over and over; a vector depends only on the model's bytes and the text.
//! Cost: about 1.7 KB an entry at 384 dimensions, bounded in bytes. Rejected: keeping the texts as keys (submissions would
//! stay in memory).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use sha2::{Digest, Sha256};

use crate::metrics;
use crate::model::ModelId;

/// What an entry takes besides its numbers: key, list and table.
const ENTRY_BYTES: usize = 160;

pub(crate) type Key = [u8; 32];

/// One text's vector.
#[derive(Debug, Clone)]
pub(crate) struct Embedded {
    pub(crate) vector: Arc<[f32]>,
    /// Whether the text was longer than the model reads.
    pub(crate) truncated: bool,
}

impl Embedded {
    fn bytes(&self) -> usize {
        size_of_val(&*self.vector) + ENTRY_BYTES
    }
}

pub(crate) struct EmbeddingCache {
    limit: usize,
    held: Mutex<Held>,
}

struct Held {
    entries: LruCache<Key, Embedded>,
    bytes: usize,
}

impl EmbeddingCache {
    /// `limit`: bytes; 0 keeps nothing.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            held: Mutex::new(Held {
                entries: LruCache::unbounded(),
                bytes: 0,
            }),
        }
    }

    /// The key of a text under a model: weights, tokenizer, window and arithmetic all decide the vector.
    pub(crate) fn key(model: &ModelId, variant: &str, text: &str) -> Key {
        let mut hasher = Sha256::new();
        hasher.update(model.sha256.as_bytes());
        hasher.update([0]);
        hasher.update(variant.as_bytes());
        hasher.update([0]);
        hasher.update(text.as_bytes());
        hasher.finalize().into()
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Embedded> {
        if self.limit == 0 {
            return None;
        }
        self.held().entries.get(key).cloned()
    }

    pub(crate) fn put(&self, key: Key, embedded: Embedded) {
        if embedded.bytes() > self.limit {
            return;
        }
        let mut held = self.held();
        held.bytes += embedded.bytes();
        if let Some(before) = held.entries.put(key, embedded) {
            held.bytes -= before.bytes();
        }
        while held.bytes > self.limit
            && let Some((_, oldest)) = held.entries.pop_lru()
        {
            held.bytes -= oldest.bytes();
        }
        metrics::CACHE_BYTES.set(i64::try_from(held.bytes).unwrap_or(i64::MAX));
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{Embedded, EmbeddingCache};

    #[test]
    fn the_bytes_are_bounded_and_the_least_recently_used_goes_first() {
        let vector = Embedded {
            vector: vec![0.0; 100].into(),
            truncated: false,
        };
        let cache = EmbeddingCache::new(3 * vector.bytes());
        for key in 0..3 {
            cache.put([key; 32], vector.clone());
        }
        cache.put([0; 32], vector.clone());
        cache.put([3; 32], vector.clone());
        let kept: Vec<bool> = (0..4).map(|key| cache.get(&[key; 32]).is_some()).collect();
        assert_eq!(kept, [true, false, true, true]);
        let nothing = EmbeddingCache::new(0);
        nothing.put([0; 32], vector);
        assert!(nothing.get(&[0; 32]).is_none());
    }
}
