//! Embeddings that are known already.
//!
//! Label texts and repeated answers are embedded over and over; a vector depends only on the model's
//! bytes and the text. Cost: about 1.6 KB an entry at 384 dimensions, bounded by entry count.
//! Rejected: keeping the texts as keys (submissions would stay in memory).

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;
use sha2::{Digest, Sha256};

use crate::model::ModelId;

pub(crate) type Key = [u8; 32];

/// One text's vector.
#[derive(Debug, Clone)]
pub(crate) struct Embedded {
    pub(crate) vector: Arc<[f32]>,
    /// Whether the text was longer than the model reads.
    pub(crate) truncated: bool,
}

pub(crate) struct EmbeddingCache(Option<Mutex<LruCache<Key, Embedded>>>);

impl EmbeddingCache {
    pub(crate) fn new(entries: usize) -> Self {
        Self(NonZeroUsize::new(entries).map(|entries| Mutex::new(LruCache::new(entries))))
    }

    /// The key of a text under a model: weights, tokenizer and window all decide the vector.
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
        let cache = self.0.as_ref()?;
        cache.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    pub(crate) fn put(&self, key: Key, embedded: Embedded) {
        if let Some(cache) = &self.0 {
            cache.lock().unwrap_or_else(PoisonError::into_inner).put(key, embedded);
        }
    }
}
