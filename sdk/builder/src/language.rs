//! Which language a plugin's folder is written in.

use std::fmt;
use std::path::Path;

use crate::Error;

/// A language that `formwork plugin build` makes components of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Language {
    /// A crate: the folder holds `Cargo.toml`.
    Rust,
    /// A module with a class `Plugin`: the folder holds `app.py`.
    Python,
    /// An ES module with a class as its default export: the folder holds `package.json`.
    JavaScript,
}

impl Language {
    const ALL: [Self; 3] = [Self::Rust, Self::Python, Self::JavaScript];

    /// The file by which a folder shows its language.
    pub fn marker(self) -> &'static str {
        match self {
            Self::Rust => "Cargo.toml",
            Self::Python => "app.py",
            Self::JavaScript => "package.json",
        }
    }

    /// The language of the plugin in `folder`.
    ///
    /// # Errors
    /// [`Error::NoLanguage`], and [`Error::Ambiguous`] when several fit: a guess would build the wrong program.
    pub fn detect(folder: &Path) -> Result<Self, Error> {
        let found: Vec<Self> = Self::ALL
            .into_iter()
            .filter(|language| folder.join(language.marker()).is_file())
            .collect();
        match found[..] {
            [language] => Ok(language),
            [] => Err(Error::NoLanguage {
                path: folder.to_owned(),
            }),
            _ => Err(Error::Ambiguous {
                path: folder.to_owned(),
                found: found
                    .iter()
                    .map(|language| language.marker())
                    .collect::<Vec<_>>()
                    .join(" and "),
            }),
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rust => "Rust",
            Self::Python => "Python",
            Self::JavaScript => "JavaScript",
        })
    }
}
