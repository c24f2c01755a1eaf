//! A stranger's format: no `unsafe`, no intrinsics, and it gets packing and every kernel.
#![forbid(unsafe_code)]

use quantblock::{
    Activations, Level, Linear, QuantBlock, Serial,
    bytemuck::{Pod, Zeroable},
    format::BlockCodes,
    kernel::SuperTile,
};

/// Three-bit codes in bytes, 8 groups of 32 with an integer scale each, under one f16.
#[derive(Debug, Clone, Copy, Default)]
struct Threes;

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[bytemuck(crate = "quantblock::bytemuck")]
#[repr(C)]
struct BlockThrees {
    d: [u8; 2],
    scales: [u8; 8],
    codes: [u8; 256],
}

const ONE: u16 = 0x3C00;

impl QuantBlock for Threes {
    const NAME: &'static str = "THREES";
    const BLOCK: usize = 256;
    type Block = BlockThrees;
    type Tile = SuperTile<3, 4, 32, 6, 0, false>;

    fn dequantize(block: &BlockThrees, out: &mut [f32]) {
        for (i, (out, code)) in out.iter_mut().zip(block.codes).enumerate() {
            *out = block.scales[i / 32] as f32 * (code as f32 - 4.0);
        }
    }

    fn quantize(row: &[f32], _: Option<&[f32]>, blocks: &mut [BlockThrees]) {
        for (block, x) in blocks.iter_mut().zip(row.chunks(256)) {
            block.d = ONE.to_le_bytes();
            for (i, &x) in x.iter().enumerate() {
                block.scales[i / 32] = 1 + (i / 32) as u8;
                block.codes[i] = (x / block.scales[i / 32] as f32 + 4.0).round().clamp(0.0, 7.0) as u8;
            }
        }
    }

    fn codes(block: &BlockThrees, out: &mut BlockCodes) {
        out.codes = block.codes;
        out.d = u16::from_le_bytes(block.d) as u32;
        out.scales[..8].copy_from_slice(&block.scales);
    }
}

#[test]
fn a_format_from_outside_runs_at_every_level_packed_and_native() {
    let (m, n, k) = (5, 37, 768);
    let weights: Vec<f32> = (0..n * k).map(|i| ((i * 7919) % 61) as f32 * 0.7 - 20.0).collect();
    let x: Vec<f32> = (0..m * k).map(|i| ((i * 104_729) % 97) as f32 - 48.0).collect();
    let native = Linear::<Threes>::quantized(&weights, None, n, k).unwrap();
    let packed = native.clone().pack(&Serial).unwrap();
    assert!(packed.size_bytes() * 5 < native.size_bytes() * 3, "3 bits instead of bytes, up to whole panels");
    let mut a = Activations::new();
    a.quantize(&x, m, k, native.kinds(), &Serial).unwrap();
    let mut exact = vec![0.0; k];
    let mut reference = vec![0.0; m * n];
    native.clone().with_level(Level::Scalar).unwrap().matmul(&a, &mut reference, &Serial).unwrap();
    for row in 0..n {
        native.dequantize_row(row, &mut exact).unwrap();
        let sum: f64 = exact.iter().zip(&x).map(|(&w, &x)| w as f64 * x as f64).sum();
        let magnitude: f64 = exact.iter().zip(&x).map(|(&w, &x)| (w as f64 * x as f64).abs()).sum();
        approx::assert_abs_diff_eq!(reference[row] as f64, sum, epsilon = 0.005 * magnitude);
    }
    for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
        for linear in [&native, &packed] {
            let linear = linear.clone().with_level(level).unwrap();
            let mut y = vec![0.0; m * n];
            linear.matmul(&a, &mut y, &Serial).unwrap();
            assert_eq!(y, reference, "{}", linear.kernel_name());
        }
    }
}
