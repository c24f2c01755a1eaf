"""Writes the logits that llama.cpp itself gives for the texts of smollm2.logits and gemma3-270m.logits.

    python3 -m pip install xllamacpp==2026.10.11549 numpy
    python3 make_llamacpp_logits.py DIRECTORY        # NAME.llamacpp.logits from DIRECTORY/NAME.gguf

The package's wheel holds a built llama.cpp, read here through its C API: on the CPU with 2 threads, all tokens in one
batch, every other setting as llama.cpp has it (int8 activations, f16 KV cache). The tokens are those of NAME.logits and
the format is that of make_logits.py.
"""
import ctypes as C
import sys
from pathlib import Path

import numpy as np
import xllamacpp.xllamacpp

HERE = Path(__file__).parent
THREADS = 2
KEPT = 64


class ModelParams(C.Structure):
    """llama_model_params of this build, as llama.cpp fills it."""
    _fields_ = [("devices", C.c_void_p), ("tensor_buft_overrides", C.c_void_p), ("enums", C.c_int32 * 5),
                ("pointers", C.c_void_p * 4), ("flags", C.c_bool * 8)]


class ContextParams(C.Structure):
    """The head of llama_context_params of this build; `rest` is longer than what follows."""
    _fields_ = [("n_ctx", C.c_uint32), ("n_batch", C.c_uint32), ("n_ubatch", C.c_uint32), ("n_seq_max", C.c_uint32),
                ("between", C.c_uint32 * 3), ("n_threads", C.c_int32), ("n_threads_batch", C.c_int32),
                ("rest", C.c_uint32 * 119)]


class Batch(C.Structure):
    _fields_ = [("n_tokens", C.c_int32), ("token", C.POINTER(C.c_int32)), ("embd", C.POINTER(C.c_float)),
                ("pos", C.POINTER(C.c_int32)), ("n_seq_id", C.POINTER(C.c_int32)),
                ("seq_id", C.POINTER(C.POINTER(C.c_int32))), ("logits", C.POINTER(C.c_int8))]


def llama_cpp_logits(path, tokens):
    """[T, vocab]: the logits after each token."""
    lib, t = C.CDLL(xllamacpp.xllamacpp.__file__), len(tokens)
    lib.llama_model_default_params.restype = ModelParams
    lib.llama_model_load_from_file.argtypes = [C.c_char_p, ModelParams]
    lib.llama_context_default_params.restype = ContextParams
    lib.llama_init_from_model.argtypes = [C.c_void_p, ContextParams]
    lib.llama_batch_init.argtypes, lib.llama_batch_init.restype = [C.c_int32] * 3, Batch
    lib.llama_decode.argtypes = [C.c_void_p, Batch]
    lib.llama_get_logits_ith.argtypes = [C.c_void_p, C.c_int32]
    lib.llama_get_logits_ith.restype = C.POINTER(C.c_float)
    lib.llama_model_get_vocab.argtypes = lib.llama_vocab_n_tokens.argtypes = [C.c_void_p]
    for name in ("llama_model_load_from_file", "llama_init_from_model", "llama_model_get_vocab"):
        getattr(lib, name).restype = C.c_void_p

    model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
    assert model, path
    params = lib.llama_context_default_params()
    head = [params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max, params.n_threads, params.n_threads_batch]
    assert head == [512, 2048, 512, 1, 4, 4], "another layout of llama_context_params"
    assert t <= params.n_ubatch
    params.n_threads = params.n_threads_batch = THREADS
    context = lib.llama_init_from_model(model, params)
    assert context, path
    batch = lib.llama_batch_init(t, 0, 1)
    batch.n_tokens = t
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, 1
    assert lib.llama_decode(context, batch) == 0
    vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
    return np.stack([np.ctypeslib.as_array(lib.llama_get_logits_ith(context, i), (vocab,)).copy() for i in range(t)])


def write_logits(path, tokens, logits):
    exact = logits.astype(np.float64)
    top = exact.max(-1)
    log_sum = top + np.log(np.exp(exact - top[:, None]).sum(-1))
    following = np.append(exact[np.arange(len(tokens) - 1), tokens[1:]] - log_sum[:-1], 0.0)
    order = np.argsort(-logits, axis=-1, kind="stable")[:, :KEPT]
    with open(path, "wb") as out:
        out.write(np.array([len(tokens), KEPT, logits.shape[1], *tokens], "<u4").tobytes())
        for t, ids in enumerate(order):
            out.write(np.array([log_sum[t], following[t]], "<f4").tobytes())
            out.write(ids.astype("<u4").tobytes() + logits[t, ids].astype("<f4").tobytes())
    print(path, "perplexity", np.exp(-following[:-1].mean()), "bytes", path.stat().st_size)


if __name__ == "__main__":
    for name in ("smollm2", "gemma3-270m"):
        words = np.fromfile(HERE / f"{name}.logits", "<u4")
        tokens = words[3:3 + words[0]].astype(int)
        write_logits(HERE / f"{name}.llamacpp.logits", tokens, llama_cpp_logits(Path(sys.argv[1]) / f"{name}.gguf", tokens))
