"""ggml itself as the oracle: quantize and dequantize every format that this crate has, through ctypes.

    python3 -m pip install libggml-python==0.20.2.post1 numpy

`Oracle()` loads the prebuilt ggml that the package ships. Rows are float32 numpy arrays; blocks are uint8 arrays.
"""
import ctypes as C
import os

import numpy as np

FORMATS = {  # GGUF type id -> name
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K",
    13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 30: "BF16",
}
# Formats that ggml_quantize_chunk does not know as weights: what quantizes a row of them.
ROW_QUANTIZERS = {1: "ggml_fp32_to_fp16_row", 15: "quantize_row_q8_K_ref", 30: "ggml_fp32_to_bf16_row_ref"}
ROW_DEQUANTIZERS = {15: "dequantize_row_q8_K"}


class _Traits(C.Structure):
    _fields_ = [("type_name", C.c_char_p), ("block_len", C.c_int64), ("interleave", C.c_int64),
                ("block_bytes", C.c_size_t), ("is_quantized", C.c_bool),
                ("to_float", C.c_void_p), ("from_float_ref", C.c_void_p)]


_CONVERT = C.CFUNCTYPE(None, C.c_void_p, C.c_void_p, C.c_int64)


class Oracle:
    def __init__(self):
        import libggml
        lib = os.path.join(os.path.dirname(libggml.__file__), "lib64")
        self.base = C.CDLL(os.path.join(lib, "libggml-base.so"), mode=C.RTLD_GLOBAL)
        self.cpu = C.CDLL(os.path.join(lib, "libggml-cpu.so"), mode=C.RTLD_GLOBAL)
        self.cpu.ggml_cpu_init()
        self.base.ggml_get_type_traits.restype = C.POINTER(_Traits)
        self.base.ggml_quantize_chunk.restype = C.c_size_t
        self.base.ggml_quantize_chunk.argtypes = [C.c_int, C.c_void_p, C.c_void_p, C.c_int64, C.c_int64, C.c_int64, C.c_void_p]
        self.base.ggml_row_size.restype = C.c_size_t
        self.base.ggml_row_size.argtypes = [C.c_int, C.c_int64]

    def traits(self, type_id):
        return self.base.ggml_get_type_traits(type_id).contents

    def _row_function(self, name):
        return _CONVERT((name, self.base))

    def quantize(self, type_id, rows, imatrix=None):
        """rows: [n, k] float32 -> uint8 bytes of the whole matrix; imatrix: [k] float32 or None."""
        rows = np.ascontiguousarray(rows, np.float32)
        n, k = rows.shape
        out = np.zeros(self.base.ggml_row_size(type_id, k) * n, np.uint8)
        if type_id == 0:
            return rows.view(np.uint8).ravel().copy()
        if type_id in ROW_QUANTIZERS:  # n rows of whole blocks are one long row to them
            self._row_function(ROW_QUANTIZERS[type_id])(rows.ctypes.data, out.ctypes.data, rows.size)
            return out
        weights = None if imatrix is None else np.ascontiguousarray(imatrix, np.float32)
        self.base.ggml_quantize_chunk(type_id, rows.ctypes.data, out.ctypes.data, 0, n, k,
                                      None if weights is None else weights.ctypes.data)
        return out

    def dequantize(self, type_id, blocks, count):
        blocks = np.ascontiguousarray(blocks, np.uint8)
        if type_id == 0:
            return blocks.view("<f4").copy()
        out = np.zeros(count, np.float32)
        if type_id in ROW_DEQUANTIZERS:
            convert = self._row_function(ROW_DEQUANTIZERS[type_id])
        else:
            convert = _CONVERT(self.traits(type_id).to_float)
        convert(blocks.ctypes.data, out.ctypes.data, count)
        return out
