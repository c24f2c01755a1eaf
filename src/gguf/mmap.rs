//! Files mapped into memory.

use crate::{Error, Result, bytes::BytesOwner};
use alloc::{format, string::ToString};
use core::ops::Range;
use std::{fs::File, path::Path};

/// A file mapped into memory, read-only: it is read as it is used, and shared with every process that maps it.
///
/// As with every mapping, the file must stay as it is while it is mapped: if another process truncates it, the system
/// ends this one when it touches the missing part. `Arc::new(mmap)` can be shared as weight bytes.
#[derive(Debug)]
pub struct Mmap(memmap2::Mmap);

impl Mmap {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// [`Error::Io`] names the file, and says whether it could not be opened or not be mapped.
    pub fn open(path: impl AsRef<Path>) -> Result<Mmap> {
        let path = path.as_ref();
        let failed = |doing: &str, e: std::io::Error| Error::Io {
            what: format!("{doing} {}", path.display()),
            why: e.to_string(),
        };
        let file = File::open(path).map_err(|e| failed("opening", e))?;
        // SAFETY: the mapping is private to this value and read-only, and lives as long as the slices borrowed from it.
        // That no other process changes the file is the one thing a program cannot ensure; the type's docs ask for it.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| failed("mapping", e))?;
        // Where files are kept in large pieces, what is not in memory yet comes in those and is mapped by huge pages. A
        // system that does not take the advice gives small ones.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Mmap(map))
    }
}

impl AsRef<[u8]> for Mmap {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl BytesOwner for Mmap {
    /// Lets go of the memory that `range` takes in this process, the pages at its ends included; they are read again when
    /// they are used.
    fn release(&self, range: Range<usize>) {
        let end = range.end.min(self.0.len());
        #[cfg(unix)]
        if range.start < end {
            // SAFETY: the mapping is read-only, so that its pages hold what the file holds, before and after. That a
            // system does not take the advice changes nothing but the memory in use.
            let _ = unsafe {
                self.0.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, end - range.start)
            };
        }
        #[cfg(not(unix))]
        let _ = end;
    }
}

impl core::ops::Deref for Mmap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
