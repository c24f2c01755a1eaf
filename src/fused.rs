//! Fused matmuls: several products of the same activations, and what is done with their rows while they are in the caches.

use crate::{
    Activations, Error, Executor, Result, WeightFormat,
    kernel::Output,
    nonlinear::{gelu_tanh, silu},
    plan::Plan,
    simd::{Isa, IsaTask, Level},
};
use alloc::{format, string::String};
use core::ops::Range;

/// Most jobs that one [`dispatch_matmul_fused`] may have.
pub const MAX_FUSED: usize = 8;

/// What a gate's product goes through before it multiplies another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gate {
    /// x · σ(x).
    Silu,
    /// GELU in its tanh form, ½x(1 + tanh(√(2/π)·x·(1 + 0.044715·x²))).
    GeluTanh,
}

/// A product `y = x · Wᵀ [+ bias]` and where it goes.
#[derive(Debug)]
pub struct Product<'a> {
    weight: &'a WeightFormat<'a>,
    y: &'a mut [f32],
    bias: Option<&'a [f32]>,
}

impl<'a> Product<'a> {
    /// `y = x · Wᵀ`: y is `[m, n]`.
    pub fn new(weight: &'a WeightFormat<'a>, y: &'a mut [f32]) -> Self {
        Product { weight, y, bias: None }
    }

    /// Adds `bias`, `[n]`, to every row of y.
    pub fn bias(mut self, bias: &'a [f32]) -> Self {
        self.bias = Some(bias);
        self
    }
}

/// A job of [`dispatch_matmul_fused`]: a [`Product`] and its *epilogue*, which the task that computed some features
/// applies to them at once, in this order:
///
/// 1. `y += bias` ([`Matmul::bias`]),
/// 2. `y = gate(y) · up` with a second product of the same x ([`Matmul::gated`]),
/// 3. `target += y` ([`Matmul::add_to`]).
///
/// The bits are those of the same operations one after the other, each rounded by itself.
///
/// ```
/// use quantblock::{Activations, Serial, WeightFormat, dispatch_matmul_fused, fused::{Gate, Matmul, Product}};
///
/// let (n, k) = (32, 64);
/// let [gate, up] = [0.5, 0.25].map(|w| WeightFormat::quantized(8, &vec![w; n * k], None, n, k));
/// let (gate, up) = (gate?, up?);
/// let mut x = Activations::new();
/// x.quantize(&[0.1; 64], 1, k, gate.kinds() | up.kinds(), &Serial)?;
/// let (mut g, mut u) = ([0.0; 32], [0.0; 32]);
/// let job = Matmul::new(&gate, &mut g).gated(Gate::Silu, Product::new(&up, &mut u));
/// dispatch_matmul_fused(&mut [job], &x, &Serial)?;
/// assert!((g[0] - 3.2 / (1.0 + (-3.2f32).exp()) * 1.6).abs() < 0.05);
/// # Ok::<(), quantblock::Error>(())
/// ```
#[derive(Debug)]
pub struct Matmul<'a> {
    product: Product<'a>,
    gated: Option<(Gate, Product<'a>)>,
    add_to: Option<&'a mut [f32]>,
}

impl<'a> From<Product<'a>> for Matmul<'a> {
    fn from(product: Product<'a>) -> Self {
        Matmul { product, gated: None, add_to: None }
    }
}

impl<'a> Matmul<'a> {
    /// `y = x · Wᵀ`: y is `[m, n]`.
    pub fn new(weight: &'a WeightFormat<'a>, y: &'a mut [f32]) -> Self {
        Product::new(weight, y).into()
    }

    /// Adds `bias`, `[n]`, to every row of y.
    pub fn bias(mut self, bias: &'a [f32]) -> Self {
        self.product.bias = Some(bias);
        self
    }

    /// [`Matmul::bias`] where there is one.
    #[cfg(feature = "model")]
    pub(crate) fn with_bias(mut self, bias: Option<&'a [f32]>) -> Self {
        self.product.bias = bias;
        self
    }

    /// `y = gate(y) · up`. `up` is a product of the same x with as many features; its own y holds it afterwards.
    pub fn gated(mut self, gate: Gate, up: Product<'a>) -> Self {
        self.gated = Some((gate, up));
        self
    }

    /// `target += y`, both `[m, n]`: a residual stream. y holds what was added afterwards.
    pub fn add_to(mut self, target: &'a mut [f32]) -> Self {
        self.add_to = Some(target);
        self
    }

    /// Checks every shape; the result holds the slices by raw pointers, and the borrow is the caller's to keep.
    fn job<'j>(&'j mut self, x: &'j Activations, threads: usize) -> Result<Job<'j>> {
        let n = self.product.weight.n();
        let plan = self.product.weight.plan(0..n, x, self.product.y, threads)?;
        let level = self.product.weight.level();
        let bias = checked_bias(self.product.bias, n)?;
        let mut job = Job { plan, up: None, epilogue: Epilogue { level, bias, gated: None, add_to: None } };
        if let Some((gate, up)) = &mut self.gated {
            if up.weight.n() != n {
                return Err(Error::Shape {
                    what: String::from("features of a gated matmul's up"),
                    expected: n,
                    found: up.weight.n(),
                });
            }
            let mut up_plan = up.weight.plan(0..n, x, up.y, threads)?;
            // The same rows of both are one task.
            up_plan.tasks = job.plan.tasks;
            job.epilogue.gated = Some(Gated { gate: *gate, up: up_plan.output(), bias: checked_bias(up.bias, n)? });
            job.up = Some(up_plan);
        }
        if let Some(target) = &mut self.add_to {
            // y has m · n elements.
            if target.len() != self.product.y.len() {
                let what = format!("target of a matmul with (m, n) = ({}, {n})", x.m());
                return Err(Error::Shape { what, expected: self.product.y.len(), found: target.len() });
            }
            job.epilogue.add_to = Some(Output { y: target.as_mut_ptr(), stride: n });
        }
        Ok(job)
    }
}

fn checked_bias(bias: Option<&[f32]>, n: usize) -> Result<Option<&[f32]>> {
    match bias {
        Some(bias) if bias.len() != n => {
            Err(Error::Shape { what: format!("bias of a matmul with n = {n}"), expected: n, found: bias.len() })
        }
        _ => Ok(bias),
    }
}

/// A checked [`Matmul`].
#[derive(Clone, Copy)]
struct Job<'j> {
    plan: Plan<'j>,
    up: Option<Plan<'j>>,
    epilogue: Epilogue<'j>,
}

#[derive(Clone, Copy)]
struct Gated<'j> {
    gate: Gate,
    up: Output,
    bias: Option<&'j [f32]>,
}

/// What follows the products of some features.
#[derive(Clone, Copy)]
struct Epilogue<'j> {
    level: Level,
    bias: Option<&'j [f32]>,
    gated: Option<Gated<'j>>,
    add_to: Option<Output>,
}

impl Job<'_> {
    /// Runs one task. Each is to be run once, while the borrow of its [`Matmul`] is kept.
    fn run(&self, task: usize) {
        self.plan.run(task);
        if let Some(up) = &self.up {
            up.run(task);
        }
        let Epilogue { bias, gated, add_to, level, .. } = self.epilogue;
        if bias.is_some() || gated.is_some() || add_to.is_some() {
            level.dispatch(EpilogueTask { job: self, features: self.plan.features(task) });
        }
    }
}

struct EpilogueTask<'a> {
    job: &'a Job<'a>,
    features: Range<usize>,
}

impl IsaTask for EpilogueTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let Epilogue { bias, gated, add_to, .. } = self.job.epilogue;
        let (y, m) = (self.job.plan.output(), self.job.plan.m());
        let (first, len) = (self.features.start, self.features.len());
        // SAFETY: the features are this task's own, in every row of y, up and the target, whose shapes were checked.
        let row = |of: Output, i: usize| unsafe { core::slice::from_raw_parts_mut(of.at(i, first).y, len) };
        for i in 0..m {
            let y = row(y, i);
            if let Some(bias) = bias {
                add(y, &bias[self.features.clone()]);
            }
            if let Some(Gated { gate, up, bias }) = gated {
                let up = row(up, i);
                if let Some(bias) = bias {
                    add(up, &bias[self.features.clone()]);
                }
                match gate {
                    Gate::Silu => multiply(y, up, silu),
                    Gate::GeluTanh => multiply(y, up, gelu_tanh),
                }
            }
            if let Some(target) = add_to {
                add(row(target, i), y);
            }
        }
    }
}

/// `y += x`.
#[inline(always)]
fn add(y: &mut [f32], x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

/// `gate = f(gate) · up`.
#[inline(always)]
fn multiply(gate: &mut [f32], up: &[f32], f: impl Fn(f32) -> f32) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = f(*gate) * up;
    }
}

/// Several matmuls of the same activations (Q, K and V; gate and up) that enter the executor once, with what is done with
/// their results. The weights may be of different formats: quantize x for all their [`WeightFormat::kinds`].
///
/// # Errors
/// Those of [`Linear::matmul`](crate::Linear::matmul); [`Error::Shape`] if a bias, a target or the features of a gate and
/// its up do not fit; [`Error::Unsupported`] for more than [`MAX_FUSED`] jobs. Nothing is written then.
pub fn dispatch_matmul_fused(jobs: &mut [Matmul<'_>], x: &Activations, executor: &impl Executor) -> Result<()> {
    let count = jobs.len();
    if count > MAX_FUSED {
        return Err(Error::Unsupported {
            what: format!("a fused matmul of {count} weights"),
            instead: format!("fuse at most {MAX_FUSED}"),
        });
    }
    let mut checked: [Option<Job>; MAX_FUSED] = [None; MAX_FUSED];
    for (job, slot) in jobs.iter_mut().zip(&mut checked) {
        *slot = Some(job.job(x, executor.threads())?);
    }
    let tasks = checked.iter().flatten().map(|job| job.plan.tasks).sum();
    executor.run(tasks, &|mut task| {
        for job in checked.iter().flatten() {
            if task < job.plan.tasks {
                return job.run(task);
            }
            task -= job.plan.tasks;
        }
    });
    Ok(())
}
