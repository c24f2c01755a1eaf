//! Where registers go that the compiler has to spill.

use core::{arch::asm, mem::MaybeUninit};

/// Aligns the stack of the function that this is inlined into to a `Register`.
///
/// The compiler finds out what to spill after it has chosen the stack's alignment, so that a function with no other reason for
/// it has its registers spilled across cache lines.
#[inline(always)]
pub fn align_stack<Register>() {
    let place = MaybeUninit::<Register>::uninit();
    // SAFETY: no instruction at all; only that the place is somewhere.
    unsafe { asm!("/* {} */", in(reg) (&raw const place).addr(), options(nomem, nostack, preserves_flags)) };
}
