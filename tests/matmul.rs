//! Every format × every instruction set level of this CPU × storage × batch × threads: one answer, and the right one.

use quantblock::{
    Activations, Error, Executor, Kinds, Level, Serial, WeightFormat, executor::ThreadPool, for_each_format,
};

/// xorshift: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Roughly normal, in −2..2.
    fn float(&mut self) -> f32 {
        (0..4).map(|_| (self.next() >> 40) as f32 / (1 << 24) as f32 - 0.5).sum()
    }

    fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.float()).collect()
    }
}

fn levels() -> impl Iterator<Item = Level> {
    Level::ALL.into_iter().filter(|level| level.is_available())
}

/// Activations dequantized by the documented rule: `round(x · 127 / amax) · amax / 127` per group.
fn rounded_activations(x: &[f32], group: usize) -> Vec<f64> {
    if group == 1 {
        return x.iter().map(|&v| v as f64).collect();
    }
    x.chunks(group)
        .flat_map(|x| {
            let amax = x.iter().fold(0.0f32, |max, v| max.max(v.abs()));
            let (d, id) = (amax / 127.0, if amax > 0.0 { 127.0 / amax } else { 0.0 });
            x.iter().map(move |v| (v * id).round_ties_even() as f64 * d as f64)
        })
        .collect()
}

fn activations(x: &[f32], m: usize, k: usize, kinds: Kinds, level: Level) -> Activations {
    let mut a = Activations::with_level(level);
    a.quantize(x, m, k, kinds, &Serial).unwrap();
    a
}

fn bits(y: &[f32]) -> Vec<u32> {
    y.iter().map(|v| v.to_bits()).collect()
}

fn product(linear: &WeightFormat, x: &[f32], m: usize, executor: &impl Executor) -> Vec<f32> {
    let a = activations(x, m, linear.k(), linear.kinds(), linear.level());
    let mut y = vec![f32::MAX; m * linear.n()];
    linear.matmul(&a, &mut y, executor).unwrap();
    y
}

/// Bounds every element by 1e-5 of the sum of magnitudes, against f64 over dequantized weights and activations.
fn check_against_f64(linear: &WeightFormat, x: &[f32], m: usize, group: usize, y: &[f32]) {
    let (n, k) = (linear.n(), linear.k());
    let mut w = vec![0.0; k];
    for row in 0..n {
        linear.dequantize_row(row, &mut w).unwrap();
        for column in 0..m {
            let a = rounded_activations(&x[column * k..(column + 1) * k], group);
            let exact: f64 = w.iter().zip(&a).map(|(&w, a)| w as f64 * a).sum();
            let magnitude: f64 = w.iter().zip(&a).map(|(&w, a)| (w as f64 * a).abs()).sum();
            let error = (y[column * n + row] as f64 - exact).abs();
            assert!(
                error <= 1e-5 * magnitude,
                "{}: row {row}, column {column}: {error} of {magnitude}",
                linear.format_name()
            );
        }
    }
}

/// Activations that share a scale: also the format's block.
fn group(linear: &WeightFormat) -> usize {
    match linear.kinds() {
        Kinds::F32 => 1,
        Kinds::BLOCK32 => 32,
        _ => 256,
    }
}

/// All storages, levels, batches and threads against the scalar native result.
fn one_answer(id: u32, n: usize, k: usize, batches: &[usize], seed: u64, loud: bool) {
    let mut random = Random(seed);
    let mut w = random.floats(n * k);
    let m_max = batches.iter().copied().max().unwrap();
    let mut x = random.floats(m_max * k);
    if loud {
        // Every code at its limit: sums of groups come to what kernels with narrow sums must not be given.
        w[..k].fill(1.0);
        w[k..2 * k].iter_mut().enumerate().for_each(|(i, w)| *w = if i % 16 == 15 { 1.0 } else { -1.0 });
        x.iter_mut().for_each(|x| *x = x.signum());
        x[..k].fill(-1.0);
        x[2 * k..3 * k].fill(1.0);
    }
    let pools = [1, 2, 3, 7].map(ThreadPool::new);
    let native = WeightFormat::quantized(id, &w, None, n, k).unwrap();
    let reference = product(&native.clone().with_level(Level::Scalar).unwrap(), &x, m_max, &Serial);
    check_against_f64(&native, &x, m_max, group(&native), &reference);
    let packed = native.clone().pack(&pools[1]).unwrap();
    let mut rows = (vec![0.0; k], vec![0.0; k]);
    for row in 0..n {
        native.dequantize_row(row, &mut rows.0).unwrap();
        packed.dequantize_row(row, &mut rows.1).unwrap();
        assert_eq!(bits(&rows.0), bits(&rows.1), "{}: dequantized row {row}", packed.kernel_name());
    }
    for level in levels() {
        for linear in [native.clone(), packed.clone()] {
            let linear = linear.with_level(level).unwrap();
            for &m in batches {
                for pool in &pools {
                    let y = product(&linear, &x[..m * k], m, pool);
                    let name = linear.kernel_name();
                    assert_eq!(bits(&y), bits(&reference[..m * n]), "{name} m {m} n {n} threads {}", pool.threads());
                }
            }
        }
    }
}

fn for_format(id: u32) {
    let group = group(&WeightFormat::from_bytes(id, &[][..], 0, 256).unwrap());
    let k = group.max(32);
    for (i, (n, blocks)) in [(1, 1), (15, 3), (16, 2), (17, 5), (50, 9)].into_iter().enumerate() {
        one_answer(id, n, k * blocks, &[1, 2, 3, 5, 8, 17, 20], 0x9E37_79B9 + i as u64, false);
    }
    // One column may meet several panels side by side: more than once, and fewer at the end.
    one_answer(id, 147, 5 * k, &[1], 82, false);
    // Rows may end anywhere in a register.
    for blocks in 4..24 {
        one_answer(id, 21, k * blocks, &[1], 79 + blocks as u64, false);
    }
    if group == 1 {
        // Floats have no blocks: rows may be empty, and end anywhere in a line of memory.
        for k in [0, 1, 3, 15, 16, 31, 33, 250, 257, 531] {
            one_answer(id, 37, k, &[1, 2, 3, 5, 8, 20], 83, false);
        }
    }
    // Long rows take several chunks of k.
    one_answer(id, 35, 6144, &[1, 3, 20], 77, false);
    // Of rows so long, decode keeps the terms of a part at a time, and of longer ones the codes of x as well.
    one_answer(id, 17, (1 << 14) + 5 * k, &[1], 75, false);
    one_answer(id, 17, (1 << 15) + 5 * k, &[1], 75, false);
    // Of so many columns, k is cut into slabs as well, or they are taken in parts.
    one_answer(id, 18, 6144, &[257], 76, false);
    one_answer(id, 18, 2 * k, &[1, 2, 3, 5, 8, 17, 64, 512], 78, false);
    one_answer(id, 35, 3 * k, &[1, 3, 7, 20], 79, true);
    // Tiles are for many columns: those that do not fill the last ones, and more than they keep the sums of.
    one_answer(id, 35, 9 * k, &[33, 49, 77], 80, true);
    one_answer(id, 50, 9 * k, &[1030], 81, false);
}

fn f32_mode(id: u32) {
    let (m, n, k) = (5, 19, 512);
    let mut random = Random(99);
    let (w, x) = (random.floats(n * k), random.floats(m * k));
    let native = WeightFormat::quantized(id, &w, None, n, k).unwrap();
    let packed = native.clone().pack(&Serial).unwrap();
    let mut reference = Vec::new();
    for level in levels() {
        for linear in [&native, &packed] {
            let mut a = Activations::new();
            a.keep_f32(&x, m, k).unwrap();
            let mut y = vec![0.0; m * n];
            linear.clone().with_level(level).unwrap().matmul(&a, &mut y, &Serial).unwrap();
            check_against_f64(linear, &x, m, 1, &y);
            if reference.is_empty() {
                reference = bits(&y);
            }
            assert_eq!(bits(&y), reference, "{} in f32 at {}", linear.format_name(), level.name());
        }
    }
}

/// Bytes of a file may be anything: every scale, code and minimum must multiply the same way everywhere, and stay in its row.
fn random_bytes(id: u32) {
    let block = group(&WeightFormat::from_bytes(id, &[][..], 0, 256).unwrap()).max(32);
    for (n, blocks) in [(16, 4), (16, 32), (21, 13), (37, 18)] {
        random_bytes_of(id, 3, n, block * blocks);
    }
    random_bytes_of(id, 70, 37, block * 9);
}

fn random_bytes_of(id: u32, m: usize, n: usize, k: usize) {
    let mut random = Random(5);
    let len = WeightFormat::quantized(id, &vec![0.0; n * k], None, n, k).unwrap().size_bytes();
    let bytes: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
    let x = random.floats(m * k);
    let native = WeightFormat::from_bytes(id, &bytes[..], n, k).unwrap();
    let packed = native.clone().pack(&Serial).unwrap();
    let canonical =
        |y: Vec<f32>| y.iter().map(|v| if v.is_nan() { 0x7FC0_0000 } else { v.to_bits() }).collect::<Vec<_>>();
    let reference = canonical(product(&native.clone().with_level(Level::Scalar).unwrap(), &x, m, &Serial));
    for level in levels() {
        let native = native.clone().with_level(level).unwrap();
        let packed = packed.clone().with_level(level).unwrap();
        assert_eq!(canonical(product(&native, &x, m, &Serial)), reference, "{}", native.kernel_name());
        assert_eq!(canonical(product(&packed, &x, m, &Serial)), reference, "{}", packed.kernel_name());
        for column in 0..m {
            for linear in [&native, &packed] {
                let one = canonical(product(linear, &x[column * k..(column + 1) * k], 1, &Serial));
                assert_eq!(one, reference[column * n..(column + 1) * n], "{} m 1", linear.kernel_name());
            }
        }
    }
}

fn bad_calls(id: u32) {
    let (n, k) = (20, 256);
    let linear = WeightFormat::quantized(id, &vec![0.5; n * k], None, n, k).unwrap();
    let a = activations(&vec![1.0; 2 * k], 2, k, linear.kinds(), Level::best());
    let mut y = vec![0.0; 2 * n];
    assert!(linear.matmul(&a, &mut y, &Serial).is_ok());
    assert!(matches!(linear.matmul(&a, &mut y[1..], &Serial), Err(Error::Shape { .. })));
    assert!(matches!(linear.matmul(&Activations::new(), &mut [], &Serial), Err(Error::Shape { .. })));
    let narrow = activations(&vec![1.0; 512], 1, 512, linear.kinds(), Level::best());
    assert!(matches!(linear.matmul(&narrow, &mut y[..n], &Serial), Err(Error::Shape { .. })));
    let mut other = Activations::new();
    other.quantize(&vec![1.0; k], 1, k, Kinds::NONE, &Serial).unwrap();
    assert!(matches!(linear.matmul(&other, &mut y[..n], &Serial), Err(Error::ActivationKind { .. })));
    assert!(matches!(linear.matmul_rows(0..n + 1, &a, &mut y, &Serial), Err(Error::Shape { .. })));
    assert!(matches!(linear.matmul_rows(3..n, &a, &mut y, &Serial), Err(Error::Shape { .. })));
    assert!(matches!(linear.dequantize_row(n, &mut vec![0.0; k]), Err(Error::Shape { .. })));
    assert!(matches!(linear.dequantize_row(0, &mut vec![0.0; k - 1]), Err(Error::Block { .. } | Error::Shape { .. })));
    assert!(matches!(WeightFormat::from_bytes(id, &[][..], usize::MAX, k), Err(Error::Overflow { .. })));
    assert!(matches!(WeightFormat::from_bytes(id, &[1u8][..], 1, k), Err(Error::Shape { .. })));
    if group(&linear) > 1 {
        assert!(matches!(WeightFormat::from_bytes(id, &[][..], 1, k + 1), Err(Error::Block { .. })));
    }
    assert!(matches!(WeightFormat::quantized(id, &[0.0], None, 1, k), Err(Error::Shape { .. })));
    let short = [1.0];
    assert!(matches!(WeightFormat::quantized(id, &vec![0.0; k], Some(&short), 1, k), Err(Error::Shape { .. })));
    // Nothing at all is a matmul too.
    let empty = activations(&[], 0, k, linear.kinds(), Level::best());
    assert!(linear.matmul(&empty, &mut [], &Serial).is_ok());
    assert!(
        WeightFormat::from_bytes(id, &[][..], 0, k)
            .unwrap()
            .pack(&Serial)
            .unwrap()
            .matmul(&a, &mut [], &Serial)
            .is_ok()
    );
}

fn rows_and_non_finite(id: u32) {
    let (m, n, k) = (3, 70, 512);
    let mut random = Random(3);
    let linear = WeightFormat::quantized(id, &random.floats(n * k), None, n, k).unwrap();
    let mut x = random.floats(m * k);
    let all = product(&linear, &x, m, &Serial);
    for linear in [linear.clone(), linear.clone().pack(&Serial).unwrap()] {
        let a = activations(&x, m, k, linear.kinds(), Level::best());
        for rows in [0..70, 16..70, 32..48, 48..53, 64..64] {
            let mut part = vec![0.0; m * rows.len()];
            linear.matmul_rows(rows.clone(), &a, &mut part, &Serial).unwrap();
            for column in 0..m {
                let whole = &all[column * n..][rows.clone()];
                assert_eq!(bits(whole), bits(&part[column * rows.len()..][..rows.len()]), "{rows:?}");
            }
        }
    }
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        x[k + 7] = bad;
        let y = product(&linear, &x, m, &Serial);
        assert_eq!(bits(&y[..n]), bits(&all[..n]), "{}: the row before", linear.format_name());
        assert!(y[n..2 * n].iter().all(|v| !v.is_finite()), "{}: {bad} in x", linear.format_name());
        assert_eq!(bits(&y[2 * n..]), bits(&all[2 * n..]), "{}: the row after", linear.format_name());
    }
}

macro_rules! tests {
    ([] $($format:ident = $id:literal),* $(,)?) => {
        $(#[allow(non_snake_case)]
        mod $format {
            #[test] fn one_answer_everywhere() { super::for_format($id); }
            #[test] fn f32_activations() { super::f32_mode($id); }
            #[test] fn any_bytes() { super::random_bytes($id); }
            #[test] fn wrong_calls_are_errors() { super::bad_calls($id); }
            #[test] fn row_ranges_and_non_finite_inputs() { super::rows_and_non_finite($id); }
        })*
    };
}

for_each_format!(tests);
