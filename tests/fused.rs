//! Epilogues give the bits of the same operations done one after the other, and matmuls by experts those of each row alone.

use quantblock::{
    Activations, Error, Executor, Kinds, Level, Serial, WeightFormat, dispatch_matmul, dispatch_matmul_fused,
    dispatch_matmul_indexed,
    executor::ThreadPool,
    for_each_format,
    fused::{Gate, MAX_FUSED, Matmul, Product},
    indexed::IndexedBuffers,
};

/// Numbers in −1..1, the same everywhere.
fn floats(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn bits(y: &[f32]) -> Vec<u32> {
    y.iter().map(|v| v.to_bits()).collect()
}

/// All of these work at once, so that the test of one format takes part of each.
struct Executors(Serial, ThreadPool);

fn executors() -> Executors {
    Executors(Serial, ThreadPool::new(3))
}

impl Executors {
    fn each(&self, mut run: impl FnMut(&dyn Executor)) {
        run(&self.0);
        run(&self.1);
    }
}

fn activations(x: &[f32], m: usize, k: usize, kinds: Kinds) -> Activations {
    let mut a = Activations::new();
    a.quantize(x, m, k, kinds, &Serial).unwrap();
    a
}

fn product(w: &WeightFormat<'_>, x: &Activations) -> Vec<f32> {
    let mut y = vec![f32::MAX; x.m() * w.n()];
    dispatch_matmul(w, x, &mut y, &Serial).unwrap();
    y
}

/// A weight natively and packed, at every level of this CPU.
fn forms(id: u32, seed: u32, n: usize, k: usize) -> Vec<WeightFormat<'static>> {
    let native = WeightFormat::quantized(id, &floats(seed, n * k), None, n, k).unwrap();
    let packed = native.clone().pack(&Serial).unwrap();
    let levels = Level::ALL.into_iter().filter(|level| level.is_available());
    levels.flat_map(|level| [&native, &packed].map(|w| w.clone().with_level(level).unwrap())).collect()
}

fn epilogues(id: u32) {
    let (n, k) = (50, 512);
    let (bias, up_bias) = (floats(1, n), floats(2, n));
    // Up has another format.
    let up_weight = WeightFormat::quantized(8, &floats(4, n * k), None, n, k).unwrap();
    let executors = executors();
    for m in [1, 3, 20] {
        let target = floats(5, m * n);
        for weight in forms(id, 3, n, k) {
            let x = activations(&floats(6, m * k), m, k, weight.kinds() | up_weight.kinds());
            let (plain, up) = (product(&weight, &x), product(&up_weight, &x));
            let with_bias = |y: &[f32], bias: &[f32]| -> Vec<f32> {
                y.chunks(n).flat_map(|row| row.iter().zip(bias).map(|(y, bias)| y + bias)).collect()
            };
            let add = |target: &[f32], y: &[f32]| -> Vec<f32> { target.iter().zip(y).map(|(t, y)| t + y).collect() };
            let biased = with_bias(&plain, &bias);
            let biased_up = with_bias(&up, &up_bias);
            executors.each(|executor| {
                let name = weight.kernel_name();
                let (mut y, mut u, mut t) = (vec![0.0; m * n], vec![0.0; m * n], target.clone());
                dispatch_matmul_fused(&mut [Matmul::new(&weight, &mut y).bias(&bias)], &x, &executor).unwrap();
                assert_eq!(bits(&y), bits(&biased), "{name}, m {m}: bias");

                let job = Matmul::new(&weight, &mut y).bias(&bias).add_to(&mut t);
                dispatch_matmul_fused(&mut [job], &x, &executor).unwrap();
                assert_eq!(bits(&t), bits(&add(&target, &biased)), "{name}, m {m}: residual");

                for gate in [Gate::Silu, Gate::GeluTanh] {
                    // The function by itself: a gate with an up of ones.
                    let one = WeightFormat::quantized(0, &vec![0.0; n * k], None, n, k).unwrap();
                    let ones = vec![1.0; n];
                    let x_all = activations(&floats(6, m * k), m, k, weight.kinds() | up_weight.kinds() | one.kinds());
                    let job =
                        Matmul::new(&weight, &mut y).bias(&bias).gated(gate, Product::new(&one, &mut u).bias(&ones));
                    dispatch_matmul_fused(&mut [job], &x_all, &executor).unwrap();
                    let gated: Vec<f32> = y.iter().zip(&biased_up).map(|(g, u)| g * u).collect();
                    for (y, x) in y.iter().zip(&biased) {
                        let wide = f64::from(*x);
                        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
                        let want = match gate {
                            Gate::Silu => wide * sigmoid(wide),
                            _ => wide * sigmoid(1.595_769_121_605_730_7 * wide * (1.0 + 0.044_715 * wide * wide)),
                        };
                        assert!((f64::from(*y) - want).abs() <= 1e-6 * wide.abs().max(1.0), "{name}: {gate:?} of {x}");
                    }

                    t.copy_from_slice(&target);
                    let up_product = Product::new(&up_weight, &mut u).bias(&up_bias);
                    let job = Matmul::new(&weight, &mut y).bias(&bias).gated(gate, up_product).add_to(&mut t);
                    dispatch_matmul_fused(&mut [job], &x, &executor).unwrap();
                    assert_eq!(bits(&y), bits(&gated), "{name}, m {m}: {gate:?}");
                    assert_eq!(bits(&u), bits(&biased_up), "{name}, m {m}: up");
                    assert_eq!(bits(&t), bits(&add(&target, &gated)), "{name}, m {m}: {gate:?} and residual");
                }
            });
        }
    }
}

fn wrong_epilogues(id: u32) {
    let (m, n, k) = (2, 20, 256);
    let weight = WeightFormat::quantized(id, &floats(1, n * k), None, n, k).unwrap();
    let narrow = WeightFormat::quantized(id, &floats(1, 16 * k), None, 16, k).unwrap();
    let x = activations(&floats(2, m * k), m, k, weight.kinds());
    let (mut y, mut u, mut t) = (vec![7.0; m * n], vec![7.0; m * n], vec![7.0; m * n]);
    let fails = |job: Matmul<'_>| {
        let result = dispatch_matmul_fused(&mut [job], &x, &Serial);
        assert!(matches!(result, Err(Error::Shape { .. })), "{result:?}");
    };
    fails(Matmul::new(&weight, &mut y).bias(&[0.0; 19]));
    fails(Matmul::new(&weight, &mut y).add_to(&mut t[1..]));
    fails(Matmul::new(&weight, &mut y[1..]));
    fails(Matmul::new(&weight, &mut y).gated(Gate::Silu, Product::new(&narrow, &mut u[..m * 16])));
    fails(Matmul::new(&weight, &mut y).gated(Gate::Silu, Product::new(&weight, &mut u[1..])));
    fails(Matmul::new(&weight, &mut y).gated(Gate::Silu, Product::new(&weight, &mut u).bias(&[0.0; 21])));
    assert!(y.iter().chain(&u).chain(&t).all(|&v| v == 7.0), "nothing is written");
    let mut all = vec![vec![0.0; m * n]; MAX_FUSED + 1];
    let mut jobs: Vec<Matmul<'_>> = all.iter_mut().map(|y| Matmul::new(&weight, y)).collect();
    assert!(matches!(dispatch_matmul_fused(&mut jobs, &x, &Serial), Err(Error::Unsupported { .. })));
    assert!(dispatch_matmul_fused(&mut [], &x, &Serial).is_ok());
}

/// Rows, experts of each row, and which expert a place has.
type Route<'a> = (usize, usize, &'a dyn Fn(usize) -> u32);

fn experts(id: u32) {
    let (n, k, count) = (35, 512, 5);
    let executors = executors();
    let mut buffers = IndexedBuffers::new();
    let all: Vec<_> = (0..count).map(|e| forms(id, 10 + e, n, k)).collect();
    for form in 0..all[0].len() {
        let experts: Vec<&WeightFormat<'_>> = all.iter().map(|forms| &forms[form]).collect();
        // Of one row; all to one; empty ones; one twice; any.
        let routes: [Route<'_>; 7] = [
            (1, 1, &|_| 3),
            (1, 3, &|place| place as u32),
            (1, 2, &|_| 4),
            (61, 1, &|_| 2),
            (9, 2, &|place| if place % 2 == 0 { 1 } else { 4 }),
            (40, 2, &|place| (place as u32).wrapping_mul(2_654_435_761) >> 16 & 3),
            (3, 2, &|place| (place % 5) as u32),
        ];
        for (m, per_row, route) in routes {
            let x_values = floats(m as u32, m * k);
            let x = activations(&x_values, m, k, experts[0].kinds());
            let ids: Vec<u32> = (0..m * per_row).map(route).collect();
            let want: Vec<u32> = ids
                .iter()
                .enumerate()
                .flat_map(|(place, &id)| {
                    let row = &x_values[place / per_row * k..][..k];
                    bits(&product(experts[id as usize], &activations(row, 1, k, experts[0].kinds())))
                })
                .collect();
            executors.each(|executor| {
                let mut y = vec![f32::MAX; ids.len() * n];
                dispatch_matmul_indexed(&experts, &ids, &x, &mut y, &mut buffers, &executor).unwrap();
                assert!(bits(&y) == want, "{}: m {m}, {per_row} each", experts[0].kernel_name());
            });
            if form == 0 {
                let mut exact = Activations::new();
                exact.keep_f32(&x_values, m, k).unwrap();
                let mut y = vec![0.0; ids.len() * n];
                dispatch_matmul_indexed(&experts, &ids, &exact, &mut y, &mut buffers, &Serial).unwrap();
                for (place, &id) in ids.iter().enumerate() {
                    let whole = product(experts[id as usize], &exact);
                    let row = &whole[place / per_row * n..][..n];
                    assert_eq!(bits(row), bits(&y[place * n..][..n]), "{}: f32", experts[0].format_name());
                }
            }
        }
    }
}

fn wrong_routes(id: u32) {
    let (m, n, k) = (2, 20, 256);
    let weight = WeightFormat::quantized(id, &floats(1, n * k), None, n, k).unwrap();
    let narrow = WeightFormat::quantized(id, &floats(1, 16 * k), None, 16, k).unwrap();
    let short = WeightFormat::quantized(id, &floats(1, n * 512), None, n, 512).unwrap();
    let x = activations(&floats(2, m * k), m, k, weight.kinds());
    let mut buffers = IndexedBuffers::new();
    let mut y = vec![7.0; 4 * n];
    let two = [&weight, &weight];
    let mut run = |experts: &[&WeightFormat<'_>], ids: &[u32], y: &mut [f32]| {
        dispatch_matmul_indexed(experts, ids, &x, y, &mut buffers, &Serial)
    };
    for (experts, ids, len) in [
        (&two[..], &[0, 1, 2, 0][..], 4 * n),
        (&two, &[0, u32::MAX], 2 * n),
        (&two, &[0, 1, 0], 3 * n),
        (&two, &[0, 1], 2 * n - 1),
        (&[&weight, &narrow], &[0, 1], 2 * n),
        (&[&weight, &short], &[0, 0], 2 * n),
        (&[], &[0, 0], 2 * n),
    ] {
        assert!(matches!(run(experts, ids, &mut y[..len]), Err(Error::Shape { .. })), "{ids:?}");
    }
    assert!(y.iter().all(|&v| v == 7.0), "nothing is written");
    assert!(run(&two, &[1, 1, 0, 0], &mut y).is_ok());
    assert!(run(&two, &[], &mut []).is_ok());
    let none = activations(&[], 0, k, weight.kinds());
    assert!(dispatch_matmul_indexed(&two, &[], &none, &mut [], &mut buffers, &Serial).is_ok());
    assert!(dispatch_matmul_indexed(&two, &[0], &none, &mut y[..n], &mut buffers, &Serial).is_err());
    let mut other = Activations::new();
    other.quantize(&floats(2, m * k), m, k, Kinds::NONE, &Serial).unwrap();
    let result = dispatch_matmul_indexed(&two, &[0, 1], &other, &mut y[..2 * n], &mut buffers, &Serial);
    assert!(matches!(result, Err(Error::ActivationKind { .. })), "{result:?}");
}

macro_rules! tests {
    ([] $($format:ident = $id:literal),* $(,)?) => {
        $(#[allow(non_snake_case)]
        mod $format {
            #[test] fn epilogues_are_the_separate_operations() { super::epilogues($id); }
            #[test] fn wrong_epilogues_are_errors() { super::wrong_epilogues($id); }
            #[test] fn experts_are_matmuls_of_each_row() { super::experts($id); }
            #[test] fn wrong_routes_are_errors() { super::wrong_routes($id); }
        })*
    };
}

for_each_format!(tests);

/// Experts of formats that read different forms of x.
#[test]
fn experts_of_different_formats() {
    let (m, n, k) = (12, 33, 512);
    let experts: Vec<WeightFormat<'_>> = [8, 12, 1, 2]
        .iter()
        .map(|&id| WeightFormat::quantized(id, &floats(id, n * k), None, n, k).unwrap().pack(&Serial).unwrap())
        .collect();
    let kinds = experts.iter().fold(Kinds::NONE, |kinds, expert| kinds | expert.kinds());
    let x = activations(&floats(9, m * k), m, k, kinds);
    let ids: Vec<u32> = (0..2 * m as u32).map(|place| place * 7 % 4).collect();
    let mut y = vec![0.0; ids.len() * n];
    let pool = ThreadPool::new(2);
    dispatch_matmul_indexed(&experts, &ids, &x, &mut y, &mut IndexedBuffers::new(), &pool).unwrap();
    for (place, &id) in ids.iter().enumerate() {
        let whole = product(&experts[id as usize], &x);
        assert_eq!(bits(&whole[place / 2 * n..][..n]), bits(&y[place * n..][..n]), "place {place}");
    }
}
