//! Decoding allocates nothing, and neither does a prompt as long as an earlier one, nor experts' matmuls with warm buffers.

use quantblock::{
    Activations, Executor, Serial, Storage, WeightFormat,
    bytes::SharedBytes,
    dispatch_matmul_fused, dispatch_matmul_indexed,
    executor::ThreadPool,
    fused::{Gate, Matmul, Product},
    gguf::read_file,
    indexed::IndexedBuffers,
    transformer::{CacheType, LoadOptions, Model, Sampler, SamplingOptions, Session},
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    path::Path,
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
    },
};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn check(what: &str, model: &Model, ex: &impl Executor) {
    let mut session = Session::new(model).unwrap();
    let mut sampler = Sampler::new(SamplingOptions::default());
    let prompt: Vec<u32> = (0..40).collect();
    let mut step = |session: &mut Session<'_>| {
        let mut next = sampler.sample(session.prefill(&prompt, ex).unwrap(), &prompt).unwrap();
        for _ in 0..20 {
            next = sampler.sample(session.decode(next, ex).unwrap(), &prompt).unwrap();
        }
    };
    step(&mut session);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    session.truncate(0);
    step(&mut session);
    let count = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert_eq!(count, 0, "{what}: {count} allocations");
}

/// Experts' matmuls, whose rows are gathered, and epilogues.
fn check_routed(ex: &impl Executor) {
    let (m, n, k) = (24, 64, 256);
    let experts: Vec<_> =
        (0..4).map(|e| WeightFormat::quantized(12, &vec![e as f32; n * k], None, n, k).unwrap()).collect();
    let mut x = Activations::new();
    x.quantize(&vec![1.0; m * k], m, k, experts[0].kinds(), ex).unwrap();
    let (mut buffers, mut y, mut gate) = (IndexedBuffers::new(), vec![0.0; 2 * m * n], vec![0.0; m * n]);
    let ids = |shift: u32| std::array::from_fn::<u32, 48, _>(|place| (place as u32 * 7 + shift) % 3);
    let mut before = 0;
    for step in 0..4 {
        dispatch_matmul_indexed(&experts, &ids(step), &x, &mut y, &mut buffers, ex).unwrap();
        let up = Product::new(&experts[1], &mut y[..m * n]);
        dispatch_matmul_fused(&mut [Matmul::new(&experts[2], &mut gate).gated(Gate::Silu, up)], &x, ex).unwrap();
        if step == 0 {
            before = ALLOCATIONS.load(Ordering::Relaxed);
        }
    }
    let count = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert_eq!(count, 0, "experts and epilogues: {count} allocations");
}

// A plain program: a test harness's own thread would allocate into the count.
fn main() {
    let pool = ThreadPool::new(3);
    // A thread allocates when it starts: all of them meet before anything is counted.
    let all = Barrier::new(pool.threads());
    pool.run(pool.threads(), &|_| {
        all.wait();
    });
    for name in ["tiny_llama", "tiny_qwen2", "tiny_qwen3", "tiny_gemma3"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/{name}.gguf"));
        let file: SharedBytes = Arc::new(read_file(path).unwrap());
        for storage in [Storage::Native, Storage::Packed] {
            let options = LoadOptions::default().storage(storage);
            let with_caches = CacheType::ALL.map(|kind| options.clone().cache_type(kind));
            for options in with_caches.into_iter().chain([options.clone().f32_activations(true)]) {
                let model = Model::load_from_gguf(file.clone(), options.clone()).unwrap();
                check(&format!("{name}, {options:?}, one thread"), &model, &Serial);
                check(&format!("{name}, {options:?}, a pool"), &model, &pool);
            }
        }
    }
    check_routed(&Serial);
    check_routed(&pool);
    println!("test a_warm_session_does_not_allocate ... ok");
}
