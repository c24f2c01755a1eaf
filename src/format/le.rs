//! Numbers inside a block: little-endian bytes of alignment 1, so that a block may lie at any address.

use bytemuck::{Pod, Zeroable};

/// An f16 as it lies in a block.
#[derive(Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct F16Le([u8; 2]);

impl F16Le {
    /// The f16 of these bits.
    #[inline(always)]
    pub const fn from_bits(bits: u16) -> Self {
        F16Le(bits.to_le_bytes())
    }

    /// Its bits.
    #[inline(always)]
    pub const fn to_bits(self) -> u16 {
        u16::from_le_bytes(self.0)
    }

    /// The nearest f16, ties to even; beyond ±65504 an infinity.
    #[inline]
    pub fn from_f32(value: f32) -> Self {
        Self::from_bits(half::f16::from_f32(value).to_bits())
    }

    /// Its value, exactly.
    #[inline]
    pub fn to_f32(self) -> f32 {
        half::f16::from_bits(self.to_bits()).to_f32()
    }
}

impl core::fmt::Debug for F16Le {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.to_f32().fmt(f)
    }
}

/// A bf16 (the upper half of an f32) as it lies in a block.
#[derive(Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Bf16Le([u8; 2]);

impl Bf16Le {
    /// The bf16 of these bits.
    #[inline(always)]
    pub const fn from_bits(bits: u16) -> Self {
        Bf16Le(bits.to_le_bytes())
    }

    /// Its bits.
    #[inline(always)]
    pub const fn to_bits(self) -> u16 {
        u16::from_le_bytes(self.0)
    }

    /// The nearest bf16, ties to even.
    #[inline]
    pub fn from_f32(value: f32) -> Self {
        Self::from_bits(half::bf16::from_f32(value).to_bits())
    }

    /// Its value, exactly.
    #[inline(always)]
    pub const fn to_f32(self) -> f32 {
        f32::from_bits((self.to_bits() as u32) << 16)
    }
}

impl core::fmt::Debug for Bf16Le {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.to_f32().fmt(f)
    }
}

/// An f32 as it lies in a block.
#[derive(Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct F32Le([u8; 4]);

impl F32Le {
    /// The bytes of `value`.
    #[inline(always)]
    pub const fn from_f32(value: f32) -> Self {
        F32Le(value.to_bits().to_le_bytes())
    }

    /// Its bits.
    #[inline(always)]
    pub const fn to_bits(self) -> u32 {
        u32::from_le_bytes(self.0)
    }

    /// Its value.
    #[inline(always)]
    pub const fn to_f32(self) -> f32 {
        f32::from_bits(self.to_bits())
    }
}

impl core::fmt::Debug for F32Le {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.to_f32().fmt(f)
    }
}

/// An i16 as it lies in a block.
#[derive(Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct I16Le([u8; 2]);

impl I16Le {
    /// The bytes of `value`.
    #[inline(always)]
    pub const fn new(value: i16) -> Self {
        I16Le(value.to_le_bytes())
    }

    /// Its value.
    #[inline(always)]
    pub const fn get(self) -> i16 {
        i16::from_le_bytes(self.0)
    }
}

impl core::fmt::Debug for I16Le {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.get().fmt(f)
    }
}
