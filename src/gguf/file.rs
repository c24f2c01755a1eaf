//! Reading a file into memory.

use crate::{Error, Result};
use std::path::Path;

/// Reads a whole file into memory; the error names it.
pub fn read_file(path: impl AsRef<Path>) -> Result<std::vec::Vec<u8>> {
    let path = path.as_ref();
    std::fs::read(path).map_err(|e| Error::Io {
        what: std::format!("reading {}", path.display()),
        why: std::string::ToString::to_string(&e),
    })
}
