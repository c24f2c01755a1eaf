//! Matmuls by experts: every row of x is multiplied by the matrices that a router chose for it.

use crate::{
    Activations, Error, Executor, Kinds, Result, WeightFormat,
    kernel::{Gathered, Inputs, Operand, Output, Selection, SharedMut},
    plan::Plan,
};
use alloc::{format, string::String, vec::Vec};
use core::borrow::Borrow;

/// Values of x below which gathering them is not worth the executor.
const GATHER_VALUES: usize = 1 << 16;

/// Buffers of [`dispatch_matmul_indexed`]. They are kept: a call allocates only if it needs more room than those before.
#[derive(Debug, Clone, Default)]
pub struct IndexedBuffers {
    /// Places of y, those of one expert after those of another.
    order: Vec<usize>,
    /// Where each expert's places end in `order`.
    ends: Vec<usize>,
    /// The experts that have rows.
    shares: Vec<Share>,
    block32: Gathered,
    block256: Gathered,
    /// Rows of x as f32, in `order`.
    values: Vec<f32>,
    /// Rows of y, in `order`.
    y: Vec<f32>,
}

impl IndexedBuffers {
    /// Empty buffers.
    pub fn new() -> Self {
        Self::default()
    }
}

/// What one expert has to do.
#[derive(Debug, Clone, Copy)]
struct Share {
    expert: usize,
    /// Its first place in `order`.
    start: usize,
    selection: Selection,
    /// Where its tasks end.
    tasks_end: usize,
}

/// `y[p] = x[p / (places per row)] · W[ids[p]]ᵀ`: a mixture of experts' matmul that enters the executor once and reads the
/// weights of each expert once.
///
/// x is `[m, k]`, every expert `[n, k]`. `ids` is `[m, t]`: the t experts of each row; y is `[m, t, n]`. (Where every
/// place has a row of its own, as behind the gate of a mixture, x is `[m · t, k]` and ids the same.) The experts may be of
/// different formats: quantize x for all their [`WeightFormat::kinds`]. An expert may have any number of rows, or none. The
/// bits are those of a matmul of each row by itself.
///
/// ```
/// use quantblock::{Activations, Serial, WeightFormat, dispatch_matmul_indexed, indexed::IndexedBuffers};
///
/// let (m, n, k) = (2, 16, 32);
/// let experts = [1.0, 2.0, 3.0].map(|w| WeightFormat::quantized(8, &vec![w; n * k], None, n, k));
/// let experts = experts.into_iter().collect::<Result<Vec<_>, _>>()?;
/// let mut x = Activations::new();
/// x.quantize(&vec![1.0; m * k], m, k, experts[0].kinds(), &Serial)?;
/// // Two experts for each row.
/// let mut y = vec![0.0; m * 2 * n];
/// dispatch_matmul_indexed(&experts, &[0, 2, 2, 1], &x, &mut y, &mut IndexedBuffers::new(), &Serial)?;
/// assert_eq!([y[0], y[n], y[2 * n], y[3 * n]].map(f32::round), [32.0, 96.0, 96.0, 64.0]);
/// # Ok::<(), quantblock::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] if an id is not below the number of experts, if the experts have different shapes, if k does not fit, or
/// if the lengths of ids and y do not; [`Error::ActivationKind`] if x was not quantized for an expert's format;
/// [`Error::Overflow`] if the size of y is not representable. Nothing is written then.
pub fn dispatch_matmul_indexed<'w, W: Borrow<WeightFormat<'w>> + Sync>(
    experts: &[W],
    ids: &[u32],
    x: &Activations,
    y: &mut [f32],
    buffers: &mut IndexedBuffers,
    executor: &impl Executor,
) -> Result<()> {
    let n = check(experts, ids, x, y.len())?;
    if ids.is_empty() || n == 0 {
        return Ok(());
    }
    let call = Call { experts, x, n, per_row: ids.len() / x.m(), threads: executor.threads() };
    buffers.sort(ids, experts.len());
    let tasks = call.share(buffers);
    call.gather(buffers, executor)?;
    let IndexedBuffers { order, shares, block32, block256, values, y: sorted, .. } = buffers;
    sorted.resize(ids.len() * n, 0.0);
    let (out, sorted) = (SharedMut::new(y), SharedMut::new(sorted));
    let gathered = View { order, block32, block256, values };
    executor.run(tasks, &|task| {
        let at = shares.partition_point(|share| share.tasks_end <= task);
        let first = if at == 0 { 0 } else { shares[at - 1].tasks_end };
        // SAFETY: each task is run once, and tasks share no column of y of any place.
        unsafe { call.run(&gathered, shares[at], task - first, &out, &sorted) };
    });
    Ok(())
}

/// Checks all shapes and kinds; returns n.
fn check<'w, W: Borrow<WeightFormat<'w>>>(experts: &[W], ids: &[u32], x: &Activations, y_len: usize) -> Result<usize> {
    let shape = |what: String, expected, found| Err(Error::Shape { what, expected, found });
    let m = x.m();
    if ids.len() != ids.len().checked_div(m).unwrap_or(0) * m {
        return shape(format!("ids of an indexed matmul (a multiple of m = {m})"), m, ids.len());
    }
    if let Some(id) = ids.iter().find(|&&id| id as usize >= experts.len()) {
        return shape(format!("expert id {id}: number of experts"), *id as usize + 1, experts.len());
    }
    let n = experts.first().map_or(0, |expert| expert.borrow().n());
    for expert in experts {
        let expert = expert.borrow();
        if expert.n() != n {
            return shape(String::from("n of an expert, by the first one's"), n, expert.n());
        }
        if expert.k() != x.k() {
            return shape(String::from("k of the activations of an indexed matmul"), expert.k(), x.k());
        }
        expert.operand(x)?;
    }
    let Some(expected) = ids.len().checked_mul(n) else {
        return Err(Error::Overflow { what: format!("y of an indexed matmul of {} rows and n = {n}", ids.len()) });
    };
    if y_len != expected {
        return shape(format!("y of an indexed matmul of {} rows and n = {n}", ids.len()), expected, y_len);
    }
    Ok(n)
}

impl IndexedBuffers {
    /// Fills `order` and `ends`: a counting sort of the places by expert, stable.
    fn sort(&mut self, ids: &[u32], experts: usize) {
        let IndexedBuffers { order, ends, .. } = self;
        ends.clear();
        ends.resize(experts, 0);
        for &id in ids {
            ends[id as usize] += 1;
        }
        // Each expert's first place, which grows to its end as places are given out.
        let mut total = 0;
        for end in ends.iter_mut() {
            (*end, total) = (total, total + *end);
        }
        order.clear();
        order.resize(ids.len(), 0);
        for (place, &id) in ids.iter().enumerate() {
            let end = &mut ends[id as usize];
            order[*end] = place;
            *end += 1;
        }
    }
}

/// The gathered rows, read only.
struct View<'b> {
    order: &'b [usize],
    block32: &'b Gathered,
    block256: &'b Gathered,
    values: &'b [f32],
}

/// What all tasks of a call share.
struct Call<'a, W> {
    experts: &'a [W],
    x: &'a Activations,
    n: usize,
    /// Places of each row of x.
    per_row: usize,
    threads: usize,
}

/// What the rows of an expert are gathered from.
enum Source<'a> {
    /// x has one row, and so has the share.
    Whole(Operand<'a>),
    Quantized(Kinds, Inputs<'a>),
    F32(&'a [f32]),
}

impl<'w, W: Borrow<WeightFormat<'w>> + Sync> Call<'_, W> {
    /// What the rows of a share are gathered from.
    fn source(&self, share: &Share) -> Result<Source<'_>> {
        let weight = self.experts[share.expert].borrow();
        let whole = weight.operand(self.x)?;
        Ok(match whole {
            _ if self.x.m() == 1 && share.selection.m == 1 => Source::Whole(whole),
            Operand::Quantized(x) => Source::Quantized(weight.kinds(), x),
            Operand::F32 { values, .. } => Source::F32(values),
        })
    }

    /// Fills `shares`; returns the number of tasks.
    fn share(&self, buffers: &mut IndexedBuffers) -> usize {
        let IndexedBuffers { ends, shares, .. } = buffers;
        shares.clear();
        let (mut start, mut selection, mut tasks) = (0, Selection::default(), 0);
        for (expert, &end) in ends.iter().enumerate() {
            if end == start {
                continue;
            }
            selection = selection.next(end - start);
            let weight = self.experts[expert].borrow();
            tasks += Plan::count_tasks(end - start, self.n, weight.k(), self.threads);
            shares.push(Share { expert, start, selection, tasks_end: tasks });
            start = end;
        }
        tasks
    }

    /// Gathers the rows of x in the forms that the experts with rows read.
    fn gather(&self, buffers: &mut IndexedBuffers, executor: &impl Executor) -> Result<()> {
        let IndexedBuffers { order, shares, block32, block256, values, .. } = buffers;
        let Some(end) = shares.last().map(|share| share.selection.next(0)) else {
            return Ok(());
        };
        for share in shares.iter() {
            match self.source(share)? {
                Source::Whole(_) => {}
                Source::Quantized(Kinds::BLOCK32, x) => block32.reserve(&x, end),
                Source::Quantized(_, x) => block256.reserve(&x, end),
                Source::F32(_) => values.resize(order.len() * self.x.k(), 0.0),
            }
        }
        let k = self.x.k();
        let targets = (block32.targets(), block256.targets(), SharedMut::new(values));
        let gather = |at: usize| {
            let share = &shares[at];
            let row = |i: usize| order[share.start + i] / self.per_row;
            // SAFETY: each share is gathered once, to a selection and to rows of values that are its own.
            unsafe {
                match self.source(share) {
                    Ok(Source::Quantized(Kinds::BLOCK32, x)) => targets.0.gather(&x, share.selection, row),
                    Ok(Source::Quantized(_, x)) => targets.1.gather(&x, share.selection, row),
                    Ok(Source::F32(x)) => {
                        for i in 0..share.selection.m {
                            targets.2.slice((share.start + i) * k, k).copy_from_slice(&x[row(i) * k..][..k]);
                        }
                    }
                    // Nothing to do, and what is wrong was found above.
                    Ok(Source::Whole(_)) | Err(_) => {}
                }
            }
        };
        if self.threads == 1 || order.len() * k < GATHER_VALUES {
            (0..shares.len()).for_each(gather);
        } else {
            executor.run(shares.len(), &gather);
        }
        Ok(())
    }

    /// Runs task `task` of a share.
    ///
    /// # Safety
    /// Nobody else has these columns of the share's places.
    unsafe fn run(
        &self,
        gathered: &View<'_>,
        share: Share,
        task: usize,
        out: &SharedMut<'_, f32>,
        sorted: &SharedMut<'_, f32>,
    ) {
        let (n, k, m) = (self.n, self.x.k(), share.selection.m);
        let x = match self.source(&share) {
            Ok(Source::Whole(x)) => x,
            Ok(Source::Quantized(Kinds::BLOCK32, _)) => Operand::Quantized(gathered.block32.inputs(share.selection)),
            Ok(Source::Quantized(..)) => Operand::Quantized(gathered.block256.inputs(share.selection)),
            Ok(Source::F32(_)) => Operand::F32 { values: &gathered.values[share.start * k..][..m * k], m },
            Err(_) => return,
        };
        let places = &gathered.order[share.start..][..m];
        // A single row goes where it belongs; several are multiplied into rows that follow each other.
        // SAFETY: the rows are inside both, and their columns of this task nobody else's.
        let y = unsafe { if m == 1 { out.start(places[0] * n) } else { sorted.start(share.start * n) } };
        let plan = self.experts[share.expert].borrow().plan_of(x, Output { y, stride: n }, self.threads);
        plan.run(task);
        if m > 1 {
            let features = plan.features(task);
            for (i, place) in places.iter().enumerate() {
                let at = |row: usize| row * n + features.start;
                // SAFETY: as above.
                unsafe {
                    let from = sorted.slice(at(share.start + i), features.len());
                    out.slice(at(*place), features.len()).copy_from_slice(from);
                }
            }
        }
    }
}
