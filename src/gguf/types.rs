//! The table of tensor types: what an id in the file means in bytes.

/// A tensor type of GGUF: its id, its name and the size of its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorType {
    /// The id in the file.
    pub id: u32,
    /// The name as GGUF spells it, for example `Q4_K`.
    pub name: &'static str,
    /// Weights in a block; a row's length must be a multiple of it.
    pub block: usize,
    /// Size of a block in the file.
    pub block_bytes: usize,
}

const fn t(id: u32, name: &'static str, block: usize, block_bytes: usize) -> TensorType {
    TensorType { id, name, block, block_bytes }
}

/// Every tensor type that a file may hold, by increasing id (source: ggml's `enum ggml_type` and its block structs, MIT
/// licence). That a type is here says that its bytes can be located, not that a kernel exists for it.
pub static TENSOR_TYPES: [TensorType; 35] = [
    t(0, "F32", 1, 4),
    t(1, "F16", 1, 2),
    t(2, "Q4_0", 32, 18),
    t(3, "Q4_1", 32, 20),
    t(6, "Q5_0", 32, 22),
    t(7, "Q5_1", 32, 24),
    t(8, "Q8_0", 32, 34),
    t(9, "Q8_1", 32, 36),
    t(10, "Q2_K", 256, 84),
    t(11, "Q3_K", 256, 110),
    t(12, "Q4_K", 256, 144),
    t(13, "Q5_K", 256, 176),
    t(14, "Q6_K", 256, 210),
    t(15, "Q8_K", 256, 292),
    t(16, "IQ2_XXS", 256, 66),
    t(17, "IQ2_XS", 256, 74),
    t(18, "IQ3_XXS", 256, 98),
    t(19, "IQ1_S", 256, 50),
    t(20, "IQ4_NL", 32, 18),
    t(21, "IQ3_S", 256, 110),
    t(22, "IQ2_S", 256, 82),
    t(23, "IQ4_XS", 256, 136),
    t(24, "I8", 1, 1),
    t(25, "I16", 1, 2),
    t(26, "I32", 1, 4),
    t(27, "I64", 1, 8),
    t(28, "F64", 1, 8),
    t(29, "IQ1_M", 256, 56),
    t(30, "BF16", 1, 2),
    t(34, "TQ1_0", 256, 54),
    t(35, "TQ2_0", 256, 66),
    t(39, "MXFP4", 32, 17),
    t(40, "NVFP4", 64, 36),
    t(41, "Q1_0", 128, 18),
    t(42, "Q2_0", 64, 18),
];

/// Ids that ggml gave to types which it has since removed, with their names: files that hold them are refused.
pub static REMOVED_TENSOR_TYPES: [(u32, &str); 8] = [
    (4, "Q4_2"),
    (5, "Q4_3"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (36, "IQ4_NL_4_4"),
    (37, "IQ4_NL_4_8"),
    (38, "IQ4_NL_8_8"),
];

impl TensorType {
    /// The type with this id, or `None` if the id is unknown or removed.
    pub fn from_id(id: u32) -> Option<&'static TensorType> {
        let at = TENSOR_TYPES.binary_search_by_key(&id, |t| t.id).ok()?;
        TENSOR_TYPES.get(at)
    }

    /// The type with this name, spelled as GGUF does (`Q4_K`).
    pub fn from_name(name: &str) -> Option<&'static TensorType> {
        TENSOR_TYPES.iter().find(|t| t.name == name)
    }

    /// Bytes of a row of `k` weights; `None` if `k` is not a multiple of the block or the size is not representable.
    pub fn row_bytes(&self, k: usize) -> Option<usize> {
        if !k.is_multiple_of(self.block) {
            return None;
        }
        (k / self.block).checked_mul(self.block_bytes)
    }
}
