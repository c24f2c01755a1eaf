//! ggml's matmul on the CPU, as llama.cpp calls it: a graph of one multiplication on a pool that lives on.

use llama_cpp_sys_2 as sys;
use std::{
    ffi::{CStr, c_void},
    ptr::null_mut,
};

/// Tensors and the graph of one multiplication.
const CONTEXT_BYTES: usize = 1 << 20;

/// `y = x · Wᵀ` with the same weights for every call.
pub struct Matmul {
    backend: sys::ggml_backend_t,
    pool: *mut sys::ggml_threadpool,
    /// Contexts and buffers of the weights, and of x and y.
    contexts: [*mut sys::ggml_context; 2],
    buffers: [sys::ggml_backend_buffer_t; 2],
    graph: *mut sys::ggml_cgraph,
    y: *mut sys::ggml_tensor,
    layout: String,
}

/// How ggml keeps the weights.
#[derive(Clone, Copy, PartialEq)]
pub enum Layout {
    /// As they lie in a file.
    Native,
    /// Interleaved for this CPU where it has kernels for that, as llama.cpp does when it loads a model without mapping it.
    Repacked,
}

impl Matmul {
    /// `None` where ggml has no such layout for the format, on this CPU.
    pub fn new(
        layout: Layout,
        type_id: u32,
        weights: &[u8],
        (m, n, k): (usize, usize, usize),
        x: &[f32],
        threads: usize,
    ) -> Option<Matmul> {
        // SAFETY: ggml's own calls in the order its headers ask for; every pointer that is used was checked or comes
        // from a call that does not fail, and lengths are checked against the tensors'.
        unsafe {
            let kind = type_id as sys::ggml_type;
            // Q8_K is only a form of activations for it.
            (*sys::ggml_get_type_traits_cpu(kind)).vec_dot?;
            let backend = sys::ggml_backend_cpu_init();
            let mut params = sys::ggml_threadpool_params_default(threads as i32);
            let pool = sys::ggml_threadpool_new(&mut params);
            sys::ggml_backend_cpu_set_n_threads(backend, threads as i32);
            sys::ggml_backend_cpu_set_threadpool(backend, pool);
            let contexts = [(); 2].map(|_| {
                sys::ggml_init(sys::ggml_init_params {
                    mem_size: CONTEXT_BYTES,
                    mem_buffer: null_mut(),
                    no_alloc: true,
                })
            });
            let mut matmul = Matmul {
                backend,
                pool,
                contexts,
                buffers: [null_mut(); 2],
                graph: null_mut(),
                y: null_mut(),
                layout: String::new(),
            };
            let w = sys::ggml_new_tensor_2d(contexts[0], kind, k as i64, n as i64);
            let types = match layout {
                Layout::Native => vec![sys::ggml_backend_cpu_buffer_type()],
                Layout::Repacked => extra_buffer_types(backend),
            };
            // Not the type that is asked for, but the one that has a layout for the format.
            for buffer_type in types {
                let buffer = sys::ggml_backend_alloc_ctx_tensors_from_buft(contexts[0], buffer_type);
                if buffer.is_null() {
                    continue;
                }
                if layout == Layout::Repacked && (*w).extra.is_null() {
                    sys::ggml_backend_buffer_free(buffer);
                    (*w).buffer = null_mut();
                    (*w).data = null_mut();
                    continue;
                }
                matmul.buffers[0] = buffer;
                matmul.layout = CStr::from_ptr(sys::ggml_backend_buft_name(buffer_type)).to_string_lossy().into();
                break;
            }
            if matmul.buffers[0].is_null() || sys::ggml_nbytes(w) != weights.len() || x.len() != m * k {
                return None;
            }
            sys::ggml_backend_tensor_set(w, weights.as_ptr().cast(), 0, weights.len());
            let input = sys::ggml_new_tensor_2d(contexts[1], sys::GGML_TYPE_F32, k as i64, m as i64);
            matmul.y = sys::ggml_mul_mat(contexts[1], w, input);
            matmul.graph = sys::ggml_new_graph(contexts[1]);
            sys::ggml_build_forward_expand(matmul.graph, matmul.y);
            matmul.buffers[1] = sys::ggml_backend_alloc_ctx_tensors(contexts[1], backend);
            if matmul.buffers[1].is_null() {
                return None;
            }
            sys::ggml_backend_tensor_set(input, x.as_ptr().cast(), 0, size_of_val(x));
            Some(matmul)
        }
    }

    /// The buffer type that holds the weights.
    pub fn layout(&self) -> &str {
        &self.layout
    }

    /// Multiplies.
    pub fn run(&self) {
        // SAFETY: graph and backend live as long as `self`.
        let status = unsafe { sys::ggml_backend_graph_compute(self.backend, self.graph) };
        assert_eq!(status, sys::GGML_STATUS_SUCCESS, "ggml computes a graph of one matmul");
    }

    /// Lets the pool's threads sleep until the next call: they would wait in a loop, at others' expense.
    pub fn rest(&self) {
        // SAFETY: the pool lives as long as `self`.
        unsafe { sys::ggml_threadpool_pause(self.pool) };
    }

    /// The last result, `[m, n]`.
    pub fn read(&self, y: &mut [f32]) {
        // SAFETY: as many bytes as the tensor has, or ggml stops the process.
        unsafe { sys::ggml_backend_tensor_get(self.y, y.as_mut_ptr().cast(), 0, size_of_val(y)) };
    }
}

impl Drop for Matmul {
    fn drop(&mut self) {
        // SAFETY: each was made in `new` and is freed once; what was not made is null.
        unsafe {
            sys::ggml_backend_free(self.backend);
            sys::ggml_threadpool_free(self.pool);
            for buffer in self.buffers {
                if !buffer.is_null() {
                    sys::ggml_backend_buffer_free(buffer);
                }
            }
            for context in self.contexts {
                sys::ggml_free(context);
            }
        }
    }
}

/// The CPU's buffer types beside the plain one.
///
/// # Safety
/// `backend` is a CPU backend.
unsafe fn extra_buffer_types(backend: sys::ggml_backend_t) -> Vec<sys::ggml_backend_buffer_type_t> {
    type GetTypes = unsafe extern "C" fn(sys::ggml_backend_dev_t) -> *mut sys::ggml_backend_buffer_type_t;
    let mut types = Vec::new();
    // SAFETY: the name stands for a function of this type, which gives a list that ends with null.
    unsafe {
        let device = sys::ggml_backend_get_device(backend);
        let registry = sys::ggml_backend_dev_backend_reg(device);
        let get = sys::ggml_backend_reg_get_proc_address(registry, c"ggml_backend_dev_get_extra_bufts".as_ptr());
        if get.is_null() {
            return types;
        }
        let get = std::mem::transmute::<*mut c_void, GetTypes>(get);
        let mut at = get(device);
        while !at.is_null() && !(*at).is_null() {
            types.push(*at);
            at = at.add(1);
        }
    }
    types
}
