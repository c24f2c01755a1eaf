//! Decoding allocates nothing, and neither does a prompt as long as an earlier one.

use quantblock::{
    Executor, Serial, Storage,
    bytes::SharedBytes,
    executor::ThreadPool,
    gguf::read_file,
    transformer::{LoadOptions, Model, Sampler, SamplingOptions, Session},
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
            for exact in [false, true] {
                let options = LoadOptions::default().storage(storage).f32_activations(exact);
                let model = Model::load_from_gguf(file.clone(), options).unwrap();
                check(&format!("{name}, {storage:?}, f32 {exact}, one thread"), &model, &Serial);
                check(&format!("{name}, {storage:?}, f32 {exact}, a pool"), &model, &pool);
            }
        }
    }
    println!("test a_warm_session_does_not_allocate ... ok");
}
