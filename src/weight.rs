//! A weight matrix whose format is known at run time: the thin enum that a GGUF file's tensors become.

use crate::{
    Activations, Error, Executor, Kinds, Level, Linear, QuantBlock, Result,
    bytes::WeightBytes,
    for_each_format,
    format::*,
    kernel::{Operand, Output},
    memory::{PackedMemory, Separate},
    plan::Plan,
};
use alloc::{format, string::String};
use core::ops::Range;

macro_rules! define_weight_format {
    ([] $($format:ident = $id:literal),* $(,)?) => {
        /// A [`Linear`] of any format: one match at each call, the kernel behind it is monomorphic.
        #[derive(Debug, Clone)]
        #[non_exhaustive]
        pub enum WeightFormat<'a> {
            $(
                #[doc = concat!("Weights of format [`", stringify!($format), "`](type@crate::format::", stringify!($format), ").")]
                $format(Linear<'a, $format>),
            )*
        }

        /// The GGUF type ids and names of all formats, in the order of the list.
        pub const FORMATS: &[(u32, &str)] = &[$(($id, <$format as QuantBlock>::NAME)),*];

        /// Calls `$body` with the `Linear` inside.
        macro_rules! each {
            ($weight:expr, $linear:ident => $body:expr) => {
                match $weight { $(WeightFormat::$format($linear) => $body,)* }
            };
        }
        /// The same, with the result put back into its variant.
        macro_rules! map_each {
            ($weight:expr, $linear:ident => $body:expr) => {
                match $weight { $(WeightFormat::$format($linear) => WeightFormat::$format($body),)* }
            };
        }

        impl<'a> WeightFormat<'a> {
            /// Weights `[n, k]` of the GGUF type `type_id` as they lie in a file; nothing is copied.
            ///
            /// # Errors
            /// [`Error::Unsupported`] for a type that there is no kernel for, and those of [`Linear::from_bytes`].
            pub fn from_bytes(type_id: u32, bytes: impl Into<WeightBytes<'a>>, n: usize, k: usize) -> Result<Self> {
                match type_id {
                    $($id => Ok(WeightFormat::$format(Linear::from_bytes(bytes, n, k)?)),)*
                    _ => Err(unsupported(type_id)),
                }
            }

            /// Quantizes `weights`, `[n, k]` row-major, to the GGUF type `type_id`.
            ///
            /// # Errors
            /// [`Error::Unsupported`] for a type that there is no kernel for, and those of [`Linear::quantized`].
            pub fn quantized(
                type_id: u32,
                weights: &[f32],
                importance: Option<&[f32]>,
                n: usize,
                k: usize,
            ) -> Result<WeightFormat<'static>> {
                match type_id {
                    $($id => Ok(WeightFormat::$format(Linear::quantized(weights, importance, n, k)?)),)*
                    _ => Err(unsupported(type_id)),
                }
            }

            /// The format's name as GGUF spells it.
            pub fn format_name(&self) -> &'static str {
                match self { $(WeightFormat::$format(_) => <$format as QuantBlock>::NAME,)* }
            }

            /// The format's GGUF type id.
            pub fn type_id(&self) -> u32 {
                match self { $(WeightFormat::$format(_) => $id,)* }
            }
        }
    };
}

for_each_format!(define_weight_format);

fn unsupported(type_id: u32) -> Error {
    Error::Unsupported {
        what: format!("GGUF type {type_id}"),
        instead: String::from("requantize the tensor to one of `quantblock::weight::FORMATS`"),
    }
}

impl<'a> WeightFormat<'a> {
    /// [`Linear::pack`].
    ///
    /// # Errors
    /// Those of [`Linear::pack`].
    pub fn pack(self, executor: &impl Executor) -> Result<WeightFormat<'static>> {
        self.pack_in(&mut Separate, executor)
    }

    /// [`Linear::pack_in`].
    ///
    /// # Errors
    /// Those of [`Linear::pack_in`].
    pub fn pack_in(self, memory: &mut impl PackedMemory, executor: &impl Executor) -> Result<WeightFormat<'static>> {
        self.pack_on(memory, executor)
    }

    /// [`WeightFormat::pack_in`]. It and [`WeightFormat::plan`], where kernels begin, are generic over nothing, so that
    /// crates that call them do not compile the kernels of all formats again.
    fn pack_on(self, memory: &mut dyn PackedMemory, executor: &dyn Executor) -> Result<WeightFormat<'static>> {
        Ok(map_each!(self, linear => linear.pack_on(memory, executor)?))
    }

    /// [`Linear::with_level`].
    ///
    /// # Errors
    /// Those of [`Linear::with_level`].
    pub fn with_level(self, level: Level) -> Result<Self> {
        Ok(map_each!(self, linear => linear.with_level(level)?))
    }

    /// Output features: rows of W.
    pub fn n(&self) -> usize {
        each!(self, linear => linear.n())
    }

    /// Input features: columns of W.
    pub fn k(&self) -> usize {
        each!(self, linear => linear.k())
    }

    /// Bytes that the weights take.
    pub fn size_bytes(&self) -> usize {
        each!(self, linear => linear.size_bytes())
    }

    /// Whether the weights are packed.
    pub fn is_packed(&self) -> bool {
        each!(self, linear => linear.is_packed())
    }

    /// The instruction set level of the kernels.
    pub fn level(&self) -> Level {
        each!(self, linear => linear.level())
    }

    /// The form of activations that the matmul reads.
    pub fn kinds(&self) -> Kinds {
        each!(self, linear => linear.kinds())
    }

    /// [`Linear::kernel_name`].
    pub fn kernel_name(&self) -> String {
        each!(self, linear => linear.kernel_name())
    }

    /// [`Linear::matmul`].
    ///
    /// # Errors
    /// Those of [`Linear::matmul`].
    pub fn matmul(&self, x: &Activations, y: &mut [f32], executor: &impl Executor) -> Result<()> {
        self.matmul_rows(0..self.n(), x, y, executor)
    }

    /// [`Linear::matmul_rows`].
    ///
    /// # Errors
    /// Those of [`Linear::matmul_rows`].
    pub fn matmul_rows(
        &self,
        rows: Range<usize>,
        x: &Activations,
        y: &mut [f32],
        executor: &impl Executor,
    ) -> Result<()> {
        self.plan(rows, x, y, executor.threads())?.execute(executor);
        Ok(())
    }

    /// [`Linear::dequantize_row`].
    ///
    /// # Errors
    /// Those of [`Linear::dequantize_row`].
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) -> Result<()> {
        each!(self, linear => linear.dequantize_row(row, out))
    }

    /// [`Linear::plan`].
    pub(crate) fn plan<'j>(
        &'j self,
        rows: Range<usize>,
        x: &'j Activations,
        y: &mut [f32],
        threads: usize,
    ) -> Result<Plan<'j>> {
        each!(self, linear => linear.plan(rows, x, y, threads))
    }

    /// [`Linear::operand`].
    pub(crate) fn operand<'x>(&self, x: &'x Activations) -> Result<Operand<'x>> {
        each!(self, linear => linear.operand(x))
    }

    /// [`Linear::plan_of`] for all rows.
    pub(crate) fn plan_of<'j>(&'j self, x: Operand<'j>, y: Output, threads: usize) -> Plan<'j> {
        each!(self, linear => linear.plan_of(0..linear.n(), x, y, threads))
    }
}

/// `y = x · Wᵀ` for a weight of any format: x `[m, k]`, y `[m, n]` row-major.
///
/// # Errors
/// Those of [`Linear::matmul`].
pub fn dispatch_matmul(w: &WeightFormat, x: &Activations, y: &mut [f32], executor: &impl Executor) -> Result<()> {
    w.matmul(x, y, executor)
}
