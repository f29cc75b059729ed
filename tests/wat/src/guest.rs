//! A plugin in pieces.

use std::fmt::Write as _;

use formwork_manifest::Kind;
use serde_json::{Value, json};

use crate::package::{add_modules, assemble, package};

/// Body of a function that answers `ok`: zeros stand at address 1024, which read as an empty answer of every kind.
pub const OK: &str = "(i32.const 1024)";

/// An address with room for results that the guest makes, up to [`HEAP`].
pub const SCRATCH: u32 = 2048;

/// Where `cabi_realloc` begins.
const HEAP: u32 = 8192;

/// A plugin under construction.
#[derive(Debug, Clone)]
pub struct Guest {
    kind: Kind,
    imports: String,
    fields: String,
    memory: String,
    heap: u32,
    realloc: String,
    prepare: String,
    work: String,
    begin: String,
    end: String,
    beside: Vec<String>,
    manifest: Value,
}

impl Guest {
    /// A plugin of this kind that does nothing wrong yet.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            imports: String::new(),
            fields: String::new(),
            memory: "1".into(),
            heap: HEAP,
            realloc: String::new(),
            prepare: OK.into(),
            work: OK.into(),
            begin: OK.into(),
            end: OK.into(),
            beside: Vec::new(),
            manifest: json!({}),
        }
    }

    /// A validator.
    pub fn validator() -> Self {
        Self::new(Kind::Validator)
    }

    /// A classifier.
    pub fn classifier() -> Self {
        Self::new(Kind::Classifier)
    }

    /// An extractor.
    pub fn extractor() -> Self {
        Self::new(Kind::Extractor)
    }

    /// An exporter. It asks for its sink.
    pub fn exporter() -> Self {
        Self::new(Kind::Exporter).manifest(&json!({ "grants": { "sink": "to write" } }))
    }

    /// Declares imports: one of [`crate::imports`].
    #[must_use]
    pub fn import(mut self, import: &str) -> Self {
        self.imports.push_str(import);
        self
    }

    /// Adds fields to the module: functions, globals, tables, a start function.
    #[must_use]
    pub fn with(mut self, fields: &str) -> Self {
        self.fields.push_str(fields);
        self
    }

    /// The memory's pages: `initial` or `initial maximum`.
    #[must_use]
    pub fn pages(mut self, limits: &str) -> Self {
        self.memory = limits.into();
        self
    }

    /// Where `cabi_realloc` begins, for guests that use more memory than the first pages.
    #[must_use]
    pub fn heap(mut self, heap: u32) -> Self {
        self.heap = heap;
        self
    }

    /// Puts bytes into the memory.
    #[must_use]
    pub fn data(mut self, at: u32, bytes: &[u8]) -> Self {
        let escaped = bytes.iter().fold(String::new(), |mut text, byte| {
            let _infallible = write!(text, "\\{byte:02x}");
            text
        });
        let _infallible = write!(self.fields, "(data (i32.const {at}) \"{escaped}\")");
        self
    }

    /// Runs first in `cabi_realloc` (parameters: old address, old size, alignment, new size).
    #[must_use]
    pub fn realloc(mut self, code: &str) -> Self {
        self.realloc = code.into();
        self
    }

    /// Body of `prepare` (form, settings); leaves the address of its result.
    #[must_use]
    pub fn prepare(mut self, body: &str) -> Self {
        self.prepare = body.into();
        self
    }

    /// Body of the work function; leaves the address of its result. Locals 0 to 7 are the submission (id, submitted-at,
    /// data, results); an exporter has the submissions in 0 and 1 and the sink in 2.
    #[must_use]
    pub fn work(mut self, body: &str) -> Self {
        self.work = body.into();
        self
    }

    /// Body of an exporter's `begin`; local 0 is the sink.
    #[must_use]
    pub fn begin(mut self, body: &str) -> Self {
        self.begin = body.into();
        self
    }

    /// Body of an exporter's `end`; local 0 is the sink.
    #[must_use]
    pub fn end(mut self, body: &str) -> Self {
        self.end = body.into();
        self
    }

    /// What runs after the host has read the work function's answer.
    #[must_use]
    pub fn post_return(self, code: &str) -> Self {
        let export = self.work_export();
        self.with(&format!(r#"(func (export "cabi_post_{export}") (param i32) {code})"#))
    }

    /// A further core module of the component, instantiated with it. It imports nothing.
    #[must_use]
    pub fn beside(mut self, module: &str) -> Self {
        self.beside.push(module.into());
        self
    }

    /// Changes of the manifest; see [`crate::manifest`].
    #[must_use]
    pub fn manifest(mut self, changes: &Value) -> Self {
        merge(&mut self.manifest, changes);
        self
    }

    /// Asks for limits.
    #[must_use]
    pub fn limits(self, limits: &Value) -> Self {
        self.manifest(&json!({ "limits": limits }))
    }

    fn work_export(&self) -> &'static str {
        match self.kind {
            Kind::Validator => "formwork:plugin/validation@1.0.0#validate",
            Kind::Classifier => "formwork:plugin/classifying@1.0.0#classify",
            Kind::Extractor => "formwork:plugin/extracting@1.0.0#extract",
            Kind::Exporter => "formwork:plugin/exporting@1.0.0#export",
        }
    }

    /// The core module, as text.
    pub fn module(&self) -> String {
        let export = self.work_export();
        let work = &self.work;
        let exports = if self.kind == Kind::Exporter {
            format!(
                r#"(func (export "{export}") (param i32 i32 i32) (result i32) {work})
                   (func (export "formwork:plugin/exporting@1.0.0#begin") (param i32) (result i32) {begin})
                   (func (export "formwork:plugin/exporting@1.0.0#end") (param i32) (result i32) {end})"#,
                begin = self.begin,
                end = self.end,
            )
        } else {
            format!(r#"(func (export "{export}") (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32) {work})"#)
        };
        format!(
            r#"(module
              {imports}
              (memory (export "memory") {memory})
              (global $heap (mut i32) (i32.const {heap}))
              {fields}
              (func $realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
                {realloc}
                (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
                (global.set $heap (i32.add (local.get $at) (local.get 3)))
                (if (i32.gt_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536)))
                  (then (if (i32.eq (i32.const -1) (memory.grow
                      (i32.add (i32.const 1) (i32.div_u (local.get 3) (i32.const 65536)))))
                    (then (unreachable)))))
                (local.get $at))
              (func (export "prepare") (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) {prepare})
              {exports})"#,
            imports = self.imports,
            memory = self.memory,
            heap = self.heap,
            fields = self.fields,
            realloc = self.realloc,
            prepare = self.prepare,
        )
    }

    /// The component, without a manifest.
    pub fn component(&self) -> Vec<u8> {
        add_modules(&assemble(self.kind, &self.module()), &self.beside)
    }

    /// The plugin file.
    pub fn file(&self) -> Vec<u8> {
        let mut changes = json!({ "kind": self.kind });
        merge(&mut changes, &self.manifest);
        package(&self.component(), &changes)
    }
}

/// Replaces members, and members of members.
fn merge(into: &mut Value, changes: &Value) {
    for (key, value) in changes.as_object().into_iter().flatten() {
        match &mut into[key] {
            Value::Object(members) if value.is_object() => {
                members.extend(value.as_object().cloned().unwrap_or_default());
            }
            place => *place = value.clone(),
        }
    }
}

/// Numbers as they stand in memory.
pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// `text` as the words of a string that stands at `at`: address and length.
pub fn text(at: u32, text: &str) -> [u32; 2] {
    [at, u32::try_from(text.len()).unwrap_or(u32::MAX)]
}
