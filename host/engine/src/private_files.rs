//! Files that are this host's own: machine code and snapshots.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Makes a folder that only this user can enter.
pub(crate) fn private_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Writes beside `path` and renames: nobody sees half a file, and whoever has the old one mapped keeps it. Nothing is
/// synced: what a power cut tears is told by its checksum and made anew, and a sync would slow the store's down.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_added_extension(format!("new-{}", std::process::id()));
    fs::write(&draft, bytes)
        .and_then(|()| fs::rename(&draft, path))
        .inspect_err(|_| {
            let _gone = fs::remove_file(&draft);
        })
}
