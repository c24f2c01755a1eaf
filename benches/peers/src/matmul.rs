//! The contestants of one format and shape, on the same weights.

#[cfg(feature = "ggml")]
use crate::ggml::{self, Layout};
use crate::{
    contest::{self, Contestant, Outcome},
    float,
    probe::{self, Machine},
};
use candle_core::{
    Device, Module, Tensor,
    quantized::{GgmlDType, QMatMul, QStorage, QTensor},
};
use quantblock::{Activations, Executor, QuantBlock, WeightFormat, for_each_format, format};
use std::{borrow::Cow, cell::RefCell, time::Duration};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Rows of x up to which reading the weights is the limit, so that they have to lie beyond the caches.
pub const SMALL_BATCH: usize = 16;

/// Rows that are quantized; quantizers are slow and time does not depend on the values, so these are repeated.
const ROWS: usize = 64;

/// One cell of the table.
#[derive(Clone, Copy)]
pub struct Cell {
    pub type_id: u32,
    pub format: &'static str,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub threads: usize,
}

/// candle's name of a GGUF type, if its `QMatMul` multiplies it without dequantizing at load.
fn candle_dtype(type_id: u32) -> Option<GgmlDType> {
    use GgmlDType::*;
    let all = [
        (2, Q4_0),
        (3, Q4_1),
        (6, Q5_0),
        (7, Q5_1),
        (8, Q8_0),
        (10, Q2K),
        (11, Q3K),
        (12, Q4K),
        (13, Q5K),
        (14, Q6K),
        (15, Q8K),
    ];
    all.into_iter().find(|&(id, _)| id == type_id).map(|(_, dtype)| dtype)
}

/// [`ROWS`] rows of format `F` and what they dequantize to.
fn some_rows<F: QuantBlock>(k: usize) -> quantblock::Result<(Vec<u8>, Vec<f32>)> {
    let row_bytes = format::row_bytes::<F>(k)?;
    let mut values = values(ROWS * k, 7);
    let mut bytes = vec![0; ROWS * row_bytes];
    for (row, out) in values.chunks_exact_mut(k).zip(bytes.chunks_exact_mut(row_bytes)) {
        format::quantize_row::<F>(row, None, out)?;
        format::dequantize_row::<F>(out, row)?;
    }
    Ok((bytes, values))
}

macro_rules! some_rows_of {
    ([$type_id:ident, $k:ident] $($format:ident = $id:literal),* $(,)?) => {
        match $type_id {
            $($id => some_rows::<format::$format>($k)?,)*
            _ => return Err("a format of the list".into()),
        }
    };
}

fn rows(type_id: u32, k: usize) -> Result<(Vec<u8>, Vec<f32>)> {
    Ok(for_each_format!(some_rows_of type_id, k))
}

/// The n for which W `[n, k]` takes at least `bytes`, a multiple of [`ROWS`].
pub fn rows_of(type_id: u32, k: usize, bytes: usize) -> Result<usize> {
    let row_bytes = rows(type_id, k)?.0.len() / ROWS;
    Ok(bytes.div_ceil(row_bytes).next_multiple_of(ROWS))
}

/// Reproducible values around zero.
fn values(len: usize, mut seed: u64) -> Vec<f32> {
    let mut uniform = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..len).map(|_| uniform() + uniform() + uniform()).collect()
}

/// The slices of `pattern` behind each other until `out` is full.
fn repeat<T: Copy>(pattern: &[T], out: &mut [T]) {
    for chunk in out.chunks_mut(pattern.len()) {
        chunk.copy_from_slice(&pattern[..chunk.len()]);
    }
}

/// Root of the mean square of the difference, over that of `b`.
fn difference(a: &[f32], b: &[f32]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let error = square(&mut a.iter().zip(b).map(|(&a, &b)| f64::from(a) - f64::from(b)));
    (error / square(&mut b.iter().map(|&b| f64::from(b)))).sqrt()
}

/// Whether a result with this [`difference`] cannot be that of the same weights: 8 bits of activations leave about half a
/// percent.
fn is_off(error: f64) -> bool {
    error.is_nan() || error > 0.03
}

/// Measures the contestants of a cell, `without` some peers; those whose result is off are left out.
pub fn measure(
    cell: Cell,
    machine: &Machine,
    rounds: usize,
    slice: Duration,
    without: &[String],
) -> Result<Vec<Outcome>> {
    let Cell { type_id, m, n, k, threads, .. } = cell;
    let pool = &machine.pool;
    if pool.threads() != threads {
        return Err(format!("the system gave {} threads instead of {threads}", pool.threads()).into());
    }
    let x = values(m * k, 3);
    let (pattern, pattern_f32) = rows(type_id, k)?;
    let weight_bytes = pattern.len() / ROWS * n;
    let mut bytes = probe::huge(weight_bytes, 0u8);
    repeat(&pattern, &mut bytes);
    let mut weights_f32 = probe::huge(n * k, 0.0f32);
    repeat(&pattern_f32, &mut weights_f32);
    let macs = m * n * k;
    #[cfg(feature = "ggml")]
    let ggml = [("ggml", Layout::Native), ("ggml-repack", Layout::Repacked)].map(|(name, layout)| {
        let takes_part = without.iter().all(|without| without != name);
        (name, takes_part.then(|| ggml::Matmul::new(layout, type_id, &bytes, (m, n, k), &x, threads)).flatten())
    });

    let candle = match candle_dtype(type_id) {
        Some(dtype) if without.iter().all(|without| without != "candle") => {
            let storage = QStorage::from_data(Cow::Borrowed(&bytes), &Device::Cpu, dtype)?;
            let weights = QMatMul::from_qtensor(QTensor::new(storage, (n, k))?)?;
            Some((weights, Tensor::from_slice(&x, (m, k), &Device::Cpu)?))
        }
        _ => None,
    };
    let native = WeightFormat::from_bytes(type_id, bytes, n, k)?.with_level(machine.level)?;
    let packed = native.clone().pack(pool)?;

    // Each contestant's last y, to be compared at the end.
    let ys: [RefCell<Vec<f32>>; 4] = std::array::from_fn(|_| RefCell::new(vec![0.0; m * n]));
    let mut contestants = Vec::new();
    for (name, weights, y) in [("native", &native, &ys[0]), ("packed", &packed, &ys[1])] {
        let (mut activations, x) = (Activations::with_level(machine.level), &x);
        contestants.push(Contestant {
            name,
            kernel: weights.kernel_name(),
            bytes: weight_bytes,
            macs,
            call: Box::new(move || {
                activations.quantize(x, m, k, weights.kinds(), pool).expect("activations that fit");
                weights.matmul(&activations, &mut y.borrow_mut(), pool).expect("shapes that fit");
            }),
            rest: None,
        });
    }
    if let Some((weights, x)) = &candle {
        let y = &ys[2];
        contestants.push(Contestant {
            name: "candle",
            kernel: String::new(),
            bytes: weight_bytes,
            macs,
            call: Box::new(move || {
                let out = weights.forward(x).expect("shapes that fit");
                if m == 1 {
                    // Small: taken each time. The large ones are compared from one extra call below.
                    *y.borrow_mut() = out.flatten_all().and_then(|out| out.to_vec1()).expect("f32 values");
                }
            }),
            rest: None,
        });
    }
    #[cfg(feature = "ggml")]
    for (name, matmul) in &ggml {
        let Some(matmul) = matmul else { continue };
        contestants.push(Contestant {
            name,
            kernel: matmul.layout().into(),
            bytes: weight_bytes,
            macs,
            call: Box::new(|| matmul.run()),
            rest: Some(Box::new(|| matmul.rest())),
        });
    }
    contestants.push(Contestant {
        name: "f32",
        kernel: if m == 1 { "gemv".into() } else { "gemm crate".into() },
        bytes: n * k * 4,
        macs,
        call: Box::new(|| {
            let y = &mut ys[3].borrow_mut();
            match m {
                1 => float::gemv(&weights_f32, &x, y, pool),
                _ => float::matmul((m, n, k), &x, &weights_f32, y, threads),
            }
        }),
        rest: None,
    });
    contestants.push(if m <= SMALL_BATCH {
        Contestant {
            name: "read",
            kernel: "huge pages".into(),
            bytes: machine.read_bytes(),
            macs: 0,
            call: Box::new(|| machine.read()),
            rest: None,
        }
    } else {
        Contestant {
            name: "dot",
            kernel: machine.dot_name().into(),
            bytes: 0,
            macs: machine.dot_macs(),
            call: Box::new(|| machine.dot()),
            rest: None,
        }
    });
    let mut outcomes = contest::hold(contestants, rounds, slice);

    if let (Some((weights, x)), true) = (&candle, m > 1) {
        *ys[2].borrow_mut() = weights.forward(x)?.flatten_all()?.to_vec1()?;
    }
    let [native, packed, candle_y, exact] = ys.map(RefCell::into_inner);
    if native != packed {
        return Err(format!("{}: native and packed differ", cell.format).into());
    }
    let error = difference(&native, &exact);
    if is_off(error) {
        return Err(format!("{}: quantblock is off by {error}", cell.format).into());
    }
    let mut leave_out_if_off = |name: &str, y: &[f32]| {
        let error = difference(y, &exact);
        if is_off(error) {
            eprintln!("{}, m = {m}: {name} is off by {error} and left out", cell.format);
            outcomes.retain(|outcome| outcome.name != name);
        }
    };
    if candle.is_some() {
        leave_out_if_off("candle", &candle_y);
    }
    #[cfg(feature = "ggml")]
    for (name, matmul) in &ggml {
        let Some(matmul) = matmul else { continue };
        let mut y = vec![0.0; m * n];
        matmul.read(&mut y);
        leave_out_if_off(name, &y);
    }
    Ok(outcomes)
}
