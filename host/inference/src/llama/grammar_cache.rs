//! Compiled schemas, kept for the next request with the same one.
//!
//! Problem: a step sends the same schema with every submission. Promise: it is compiled once and
//! copied per request; what is kept is bounded. Cost: a copy is a few microseconds to tenths of a
//! millisecond, by size. The guard bounds what can be compiled at all.

use std::num::NonZeroUsize;

use lru::LruCache;
use prometheus::IntCounter;

use super::metrics;
use super::native::{Grammar, Model};
use crate::error::Error;
use crate::limits;

pub(crate) struct GrammarCache<'m> {
    model: &'m Model,
    /// By the schema's text, as the guard wrote it.
    kept: LruCache<String, Grammar<'m>>,
    reused: IntCounter,
    compiled: IntCounter,
}

impl<'m> GrammarCache<'m> {
    pub(crate) fn new(model: &'m Model, name: &str) -> Self {
        let grammars = |source: &str| metrics::GRAMMARS.with_label_values(&[name, source]);
        Self {
            model,
            kept: LruCache::new(NonZeroUsize::new(limits::KEPT_GRAMMARS).unwrap_or(NonZeroUsize::MIN)),
            reused: grammars("reused"),
            compiled: grammars("compiled"),
        }
    }

    /// A grammar at its beginning. `schema` must have passed [`super::schema_guard::admit`].
    pub(crate) fn get(&mut self, schema: &str) -> Result<Grammar<'m>, Error> {
        let unusable =
            |reason: String| Error::InvalidArgument(format!("json schema cannot constrain output: {reason}"));
        if let Some(grammar) = self.kept.get(schema) {
            self.reused.inc();
            return grammar.copy().map_err(unusable);
        }
        let grammar = Grammar::compile(self.model, schema).map_err(unusable)?;
        self.compiled.inc();
        let copy = grammar.copy().map_err(unusable)?;
        self.kept.put(schema.to_owned(), grammar);
        Ok(copy)
    }
}
