//! Random weights, quantized in rows.

use quantblock::{Result, for_each_format, format};

/// Rows of a length that are really drawn and quantized; longer matrices repeat them.
const DISTINCT_ROWS: usize = 509;

/// Numbers at random, the same ones each time.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// Uniform from −1 to 1.
    fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Nearly normal, with mean 0 and deviation 1: the sum of three uniform numbers, each of variance 1/3.
    fn normal(&mut self) -> f32 {
        self.uniform() + self.uniform() + self.uniform()
    }

    /// `len` floats around `mean`, as they lie in a file.
    pub fn vector(&mut self, mean: f32, deviation: f32, len: usize) -> Vec<u8> {
        (0..len).flat_map(|_| (mean + deviation * self.normal()).to_le_bytes()).collect()
    }
}

macro_rules! quantize_rows {
    ([$type_id:expr, $weights:expr, $k:expr] $($format:ident = $id:literal),* $(,)?) => {
        match $type_id {
            $($id => {
                let mut out = vec![0; format::row_bytes::<format::$format>($k)? * ($weights.len() / $k)];
                let row_bytes = out.len() / ($weights.len() / $k);
                for (row, out) in $weights.chunks_exact($k).zip(out.chunks_exact_mut(row_bytes)) {
                    format::quantize_row::<format::$format>(row, None, out)?;
                }
                out
            })*
            _ => Vec::new(),
        }
    };
}

/// `n` rows of `k` weights of type `type_id`: a few hundred are drawn and quantized, and then repeat in that order. So
/// 1.5 G weights cost seconds even where a format's quantization searches, and no more than those rows are ever f32.
///
/// Weights have deviation 1/√k, so that a matrix keeps the size of the vectors that it multiplies.
pub fn rows(random: &mut Random, type_id: u32, n: usize, k: usize) -> Result<Vec<u8>> {
    let distinct = n.min(DISTINCT_ROWS);
    let deviation = 1.0 / (k as f32).sqrt();
    let weights: Vec<f32> = (0..distinct * k).map(|_| deviation * random.normal()).collect();
    let mut bytes: Vec<u8> = for_each_format!(quantize_rows type_id, weights, k);
    let total = bytes.len() / distinct * n;
    bytes.reserve_exact(total - bytes.len());
    while bytes.len() < total {
        let more = bytes.len().min(total - bytes.len());
        bytes.extend_from_within(..more);
    }
    Ok(bytes)
}
