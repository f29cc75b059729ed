//! What `prepare` gets: a form version and a step's settings.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::FormInput;

/// A form version and the settings of one of its steps, with the key by which its snapshots are found. Made once and
/// shared by every call: hashing a schema of 700 kB for each submission would cost more than validating it.
#[derive(Debug, Clone)]
pub struct Setup(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    form: FormInput,
    settings: String,
    key: SetupKey,
}

impl Setup {
    /// A setup of `form` and `settings`, a JSON text.
    pub fn new(form: FormInput, settings: impl Into<String>) -> Self {
        let settings = settings.into();
        let key = SetupKey::of(&form, &settings);
        Self(Arc::new(Inner { form, settings, key }))
    }

    /// The form version.
    pub fn form(&self) -> &FormInput {
        &self.0.form
    }

    /// The step's settings, a JSON text.
    pub fn settings(&self) -> &String {
        &self.0.settings
    }

    pub(crate) fn key(&self) -> SetupKey {
        self.0.key
    }
}

/// sha256 over everything `prepare` sees.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SetupKey([u8; 32]);

impl SetupKey {
    fn of(form: &FormInput, settings: &str) -> Self {
        let mut hash = Sha256::new();
        // Each part with its length: `ab` + `c` must not be `a` + `bc`.
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        part(form.id.as_bytes());
        part(&form.version.to_le_bytes());
        part(form.schema.as_bytes());
        for (uri, schema) in &form.schemas {
            part(uri.as_bytes());
            part(schema.as_bytes());
        }
        part(settings.as_bytes());
        Self(hash.finalize().into())
    }
}

impl fmt::Display for SetupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SetupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
