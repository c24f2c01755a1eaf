//! Reading a file into memory.

use crate::{Error, Result, memory};
use std::{fs::File, io::Read, path::Path, string::ToString, vec::Vec};

/// Reads a whole file into [`memory::buffer`].
///
/// # Errors
/// [`Error::Io`] names the file, [`Error::OutOfMemory`] says how large it is.
pub fn read_file(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let path = path.as_ref();
    let failed = |e: std::io::Error| Error::Io { what: std::format!("reading {}", path.display()), why: e.to_string() };
    let mut file = File::open(path).map_err(failed)?;
    let len = file.metadata().map_err(failed)?.len();
    let mut bytes = memory::buffer(usize::try_from(len).unwrap_or(usize::MAX))?;
    file.read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
