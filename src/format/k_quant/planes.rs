//! How the K-quants lay codes in bytes: byte `l` of a chunk holds the codes `l`, `l + STRIDE`, … from its low bits up.

/// Packs codes of 2 bits (4 to a byte) or 4 bits (2 to a byte): `STRIDE` bytes for each `STRIDE · 8 / BITS` codes.
///
/// Bits above `BITS` are dropped.
pub(super) fn pack<const BITS: usize, const STRIDE: usize, const BYTES: usize>(codes: &[u8; 256]) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    let chunks = codes.chunks_exact(STRIDE * 8 / BITS);
    for (bytes, codes) in bytes.as_chunks_mut::<STRIDE>().0.iter_mut().zip(chunks) {
        for (j, codes) in codes.as_chunks::<STRIDE>().0.iter().enumerate() {
            for (byte, code) in bytes.iter_mut().zip(codes) {
                *byte |= (code & ((1 << BITS) - 1)) << (BITS * j);
            }
        }
    }
    bytes
}
