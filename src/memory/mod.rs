//! Where weights live (and the KV cache): packed ones in whole cache lines, all in huge pages where the system has them.
//!
//! Decode is as fast as weights come from memory, and a processor that finds them in pages of 2 MiB reads up to half as
//! fast again as from pages of 4 KiB. [`buffer`] gives such memory for native weights, and an [`Arena`] holds many packed
//! tensors in it; [`Linear::pack`](crate::Linear::pack) without one takes memory for each tensor by itself. An embedder with
//! an allocator of its own implements [`PackedMemory`] for it:
//!
//! ```
//! use quantblock::{Error, Linear, Result, Serial, format::Q80, memory::{ALIGN, PackedMemory, Region}};
//! use std::{alloc::{Layout, alloc_zeroed, dealloc}, ptr::NonNull, sync::Arc};
//!
//! struct Block(NonNull<u8>, Layout);
//! // SAFETY: the memory belongs to the block alone.
//! unsafe impl Send for Block {}
//! // SAFETY: as above; a shared block is not read or written.
//! unsafe impl Sync for Block {}
//!
//! impl Drop for Block {
//!     fn drop(&mut self) {
//!         // SAFETY: it was allocated with this layout.
//!         unsafe { dealloc(self.0.as_ptr(), self.1) }
//!     }
//! }
//!
//! struct Mine;
//!
//! impl PackedMemory for Mine {
//!     fn allocate(&mut self, len: usize) -> Result<Region> {
//!         let failed = || Error::OutOfMemory { bytes: len };
//!         let layout = Layout::from_size_align(len.max(1), ALIGN).map_err(|_| failed())?;
//!         // SAFETY: the layout is not empty.
//!         let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(failed)?;
//!         let owner = Arc::new(Block(start, layout));
//!         // SAFETY: `len` zeroed bytes that only `owner` knows, and frees when it is dropped.
//!         unsafe { Region::from_raw(start, len, owner) }
//!     }
//! }
//!
//! let linear = Linear::<Q80>::quantized(&[0.5; 16 * 32], None, 16, 32)?.pack_in(&mut Mine, &Serial)?;
//! assert!(linear.is_packed());
//! # Ok::<(), Error>(())
//! ```

mod arena;
mod pages;
mod region;

pub use arena::Arena;
pub(crate) use arena::Separate;
pub use pages::buffer;
#[cfg(feature = "model")]
pub(crate) use pages::zeros;
pub(crate) use region::PackedBytes;
pub use region::{ALIGN, PackedMemory, Region};
