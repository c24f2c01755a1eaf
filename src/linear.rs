//! A weight matrix of one format, and its matmul.

use crate::{
    Activations, Error, Executor, Level, QuantBlock, Result,
    bytes::WeightBytes,
    format,
    kernel::{Job, Operand, Output, Tile, Weights, panels_of},
    memory::{self, PackedBytes, PackedMemory, Separate},
    pack::pack,
    plan::Plan,
    simd::PANEL_ROWS,
};
use alloc::{format, string::String};
use core::{marker::PhantomData, ops::Range};

/// A weight matrix W `[n, k]` of format `F`, in native or packed form: `y = x · Wᵀ`.
///
/// ```
/// use quantblock::{Activations, Linear, Serial, format::Q4K};
///
/// let (m, n, k) = (1, 8, 256);
/// let weights: Vec<f32> = (0..n * k).map(|i| (i % 17) as f32 - 8.0).collect();
/// let linear = Linear::<Q4K>::quantized(&weights, None, n, k)?;
/// let mut x = Activations::new();
/// x.quantize(&[1.0; 256], m, k, linear.kinds(), &Serial)?;
/// let mut y = [0.0; 8];
/// linear.matmul(&x, &mut y, &Serial)?;
/// # Ok::<(), quantblock::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Linear<'a, F: QuantBlock> {
    n: usize,
    k: usize,
    level: Level,
    storage: Storage<'a>,
    format: PhantomData<F>,
}

#[derive(Debug, Clone)]
enum Storage<'a> {
    Native(WeightBytes<'a>),
    Packed(PackedBytes),
}

impl<'a, F: QuantBlock> Linear<'a, F> {
    const CHECK: () = {
        assert!(F::BLOCK == F::Tile::BLOCK, "a format's block is its tile's");
        assert!(align_of::<F::Block>() == 1, "blocks may lie at any address");
    };

    /// Weights as they lie in a file, `n` rows of `k / F::BLOCK` blocks; nothing is copied.
    ///
    /// # Errors
    /// [`Error::Block`] if `k` is not a multiple of the block, [`Error::Shape`] if the bytes are not those of `[n, k]`.
    pub fn from_bytes(bytes: impl Into<WeightBytes<'a>>, n: usize, k: usize) -> Result<Self> {
        const { Self::CHECK };
        let bytes = bytes.into();
        let expected = format::row_bytes::<F>(k)?.checked_mul(n).ok_or_else(|| overflow::<F>(n, k))?;
        let found = bytes.as_slice().len();
        if found != expected {
            return Err(Error::Shape { what: format!("bytes of {} [n, k] = [{n}, {k}]", F::NAME), expected, found });
        }
        Ok(Linear { n, k, level: Level::best(), storage: Storage::Native(bytes), format: PhantomData })
    }

    /// Quantizes `weights`, `[n, k]` row-major; `importance` has one weight per column.
    ///
    /// # Errors
    /// [`Error::Block`] if `k` is not a multiple of the block, [`Error::Shape`] if a slice's length does not fit,
    /// [`Error::OutOfMemory`] if there is no memory for the blocks.
    pub fn quantized(weights: &[f32], importance: Option<&[f32]>, n: usize, k: usize) -> Result<Linear<'static, F>> {
        let row_bytes = format::row_bytes::<F>(k)?;
        let expected = n.checked_mul(k).ok_or_else(|| overflow::<F>(n, k))?;
        if weights.len() != expected {
            let what = format!("weights of {} [n, k] = [{n}, {k}]", F::NAME);
            return Err(Error::Shape { what, expected, found: weights.len() });
        }
        let size_bytes = row_bytes.checked_mul(n).ok_or_else(|| overflow::<F>(n, k))?;
        let mut bytes = memory::buffer(size_bytes)?;
        bytes.resize(size_bytes, 0);
        if expected != 0 {
            for (row, out) in weights.chunks_exact(k).zip(bytes.chunks_exact_mut(row_bytes)) {
                format::quantize_row::<F>(row, importance, out)?;
            }
        }
        Linear::from_bytes(bytes, n, k)
    }

    /// Re-lays the codes for SIMD and drops the source: the result holds as many bytes as the source did, up to a last
    /// panel of 16 rows. It lies in memory of its own; [`Linear::pack_in`] packs many matrices into one run of memory. A
    /// packed matrix stays as it is.
    ///
    /// # Errors
    /// [`Error::Overflow`] if the packed size is not representable, [`Error::OutOfMemory`] if there is no memory for it.
    pub fn pack(self, executor: &impl Executor) -> Result<Linear<'static, F>> {
        self.pack_in(&mut Separate, executor)
    }

    /// [`Linear::pack`] into `memory`: an [`Arena`](crate::Arena), or an embedder's own allocator. A source that can be
    /// read again ([`SharedBytes`](crate::bytes::SharedBytes)) is released as it is packed.
    ///
    /// # Errors
    /// Those of [`Linear::pack`]; what `memory` returns; [`Error::Shape`] if it gives fewer bytes than it was asked for.
    pub fn pack_in(self, memory: &mut impl PackedMemory, executor: &impl Executor) -> Result<Linear<'static, F>> {
        self.pack_on(memory, executor)
    }

    /// [`Linear::pack_in`].
    pub(crate) fn pack_on(self, memory: &mut dyn PackedMemory, executor: &dyn Executor) -> Result<Linear<'static, F>> {
        let Linear { n, k, level, storage, .. } = self;
        let packed = match storage {
            Storage::Packed(packed) => packed,
            Storage::Native(native) => {
                let panel_bytes = (k / F::BLOCK).checked_mul(F::Tile::TILE_BYTES);
                let total = panel_bytes.and_then(|bytes| bytes.checked_mul(panels_of(n)));
                pack::<F>(&native, n, k, total.ok_or_else(|| overflow::<F>(n, k))?, memory, executor)?
            }
        };
        Ok(Linear { n, k, level, storage: Storage::Packed(packed), format: PhantomData })
    }

    /// The same weights, multiplied by the kernels of `level`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if this CPU lacks the level.
    pub fn with_level(mut self, level: Level) -> Result<Self> {
        self.level = level.checked()?;
        Ok(self)
    }

    /// Output features: rows of W.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input features: columns of W.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bytes that the weights take.
    pub fn size_bytes(&self) -> usize {
        match &self.storage {
            Storage::Native(bytes) => bytes.as_slice().len(),
            Storage::Packed(packed) => packed.as_slice().len(),
        }
    }

    /// Whether the weights are packed.
    pub fn is_packed(&self) -> bool {
        matches!(self.storage, Storage::Packed(_))
    }

    /// The instruction set level of the kernels.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The form of activations that [`Linear::matmul`] reads.
    pub fn kinds(&self) -> crate::Kinds {
        F::Tile::KINDS
    }

    /// What runs: instruction set, tile class and storage, for example `avx2-super4x32-packed`. [`Level::Amx`] says of which
    /// matmuls `amx` takes its tiles, and AVX-512 VNNI the others.
    pub fn kernel_name(&self) -> String {
        let storage = if self.is_packed() { "packed" } else { "native" };
        format!("{}-{}-{storage}", self.level.name(), F::Tile::KERNEL)
    }

    /// `y = x · Wᵀ`: x `[m, k]`, y `[m, n]` row-major. A NaN or an infinity in a row of x makes that row of y NaN.
    ///
    /// # Errors
    /// [`Error::Shape`] if k or the length of y does not fit, [`Error::ActivationKind`] if x was not quantized for this
    /// format's [`Linear::kinds`].
    pub fn matmul(&self, x: &Activations, y: &mut [f32], executor: &impl Executor) -> Result<()> {
        self.matmul_rows(0..self.n, x, y, executor)
    }

    /// [`Linear::matmul`] for some rows of W only: y is `[m, rows.len()]`.
    ///
    /// # Errors
    /// As [`Linear::matmul`]; [`Error::Shape`] too if the rows are not inside W or do not start at a multiple of 16.
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

    /// Checks a matmul and cuts it into tasks.
    pub(crate) fn plan<'j>(
        &'j self,
        rows: Range<usize>,
        x: &'j Activations,
        y: &mut [f32],
        threads: usize,
    ) -> Result<Plan<'j>> {
        let (m, n, k) = (x.m(), rows.len(), self.k);
        let shape = |what: &str, expected, found| Error::Shape {
            what: format!("{what} of Linear<{}>::matmul with (m, n, k) = ({m}, {n}, {k})", F::NAME),
            expected,
            found,
        };
        if rows.start > rows.end || rows.end > self.n || !rows.start.is_multiple_of(PANEL_ROWS) {
            let what = format!("rows {rows:?} of W (inside 0..{}, from a multiple of {PANEL_ROWS})", self.n);
            return Err(shape(&what, self.n, rows.end));
        }
        if x.k() != k {
            return Err(shape("k of the activations", k, x.k()));
        }
        let expected = m.checked_mul(n).ok_or_else(|| overflow::<F>(m, n))?;
        if y.len() != expected {
            return Err(shape("y", expected, y.len()));
        }
        let y = Output { y: y.as_mut_ptr(), stride: n };
        Ok(self.plan_of(rows, self.operand(x)?, y, threads))
    }

    /// What of `x` the kernels read, if it is there.
    pub(crate) fn operand<'x>(&self, x: &'x Activations) -> Result<Operand<'x>> {
        Ok(if x.is_f32() || F::Tile::KINDS == crate::Kinds::F32 {
            Operand::F32 { values: x.values(F::NAME)?, m: x.m() }
        } else {
            Operand::Quantized(x.inputs(F::NAME, F::Tile::KINDS)?)
        })
    }

    /// A matmul of which the caller has checked the shapes and the kind of `x`, cut into tasks.
    pub(crate) fn plan_of<'j>(&'j self, rows: Range<usize>, x: Operand<'j>, y: Output, threads: usize) -> Plan<'j> {
        let weights = match &self.storage {
            Storage::Native(bytes) => Weights::Native(bytes.as_slice()),
            Storage::Packed(packed) => Weights::Packed(packed.as_slice()),
        };
        let job = Job { level: self.level, weights, rows: (rows.start, rows.end), k: self.k, x, y };
        Plan::new(job, F::Tile::multiply::<F>, threads)
    }

    /// Row `row` of W, dequantized bit for bit as ggml does (an embedding look-up).
    ///
    /// # Errors
    /// [`Error::Shape`] if there is no such row or `out` does not have `k` elements.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) -> Result<()> {
        if row >= self.n {
            return Err(Error::Shape {
                what: format!("row of {} [n, k] = [{}, {}]", F::NAME, self.n, self.k),
                expected: self.n,
                found: row,
            });
        }
        let blocks = self.k / F::BLOCK;
        match &self.storage {
            Storage::Native(bytes) => {
                let row_bytes = blocks * size_of::<F::Block>();
                format::dequantize_row::<F>(&bytes.as_slice()[row * row_bytes..][..row_bytes], out)
            }
            Storage::Packed(packed) => {
                if out.len() != self.k {
                    let what = format!("out of dequantize_row of {} with k = {}", F::NAME, self.k);
                    return Err(Error::Shape { what, expected: self.k, found: out.len() });
                }
                let tile_bytes = F::Tile::TILE_BYTES;
                let panel = &packed.as_slice()[row / PANEL_ROWS * blocks * tile_bytes..][..blocks * tile_bytes];
                for (tile, out) in panel.chunks_exact(tile_bytes).zip(out.chunks_exact_mut(F::BLOCK)) {
                    F::Tile::dequantize_packed(tile, row % PANEL_ROWS, out);
                }
                Ok(())
            }
        }
    }
}

fn overflow<F: QuantBlock>(n: usize, k: usize) -> Error {
    Error::Overflow { what: format!("{} of [{n}, {k}]", F::NAME) }
}
