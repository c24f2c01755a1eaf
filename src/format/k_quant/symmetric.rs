//! What the quantizers of the formats around zero share: Q3_K and Q6_K.

use super::SUPERBLOCK;
use crate::format::le::F16Le;
use crate::format::search::nearest;

/// The codes once more, for the scales as they will be read; where a scale is 0 those of the search stay.
pub(super) fn requantize(x: &[f32; SUPERBLOCK], d: F16Le, scales: &[i32; 16], half: i32, codes: &mut [u8; SUPERBLOCK]) {
    let d = d.to_f32();
    let groups = x.as_chunks::<16>().0.iter().zip(codes.as_chunks_mut::<16>().0);
    for ((x, codes), &scale) in groups.zip(scales) {
        let scale = d * scale as f32;
        if scale != 0.0 {
            *codes = x.map(|x| (nearest(x / scale).clamp(-half, half - 1) + half) as u8);
        }
    }
}
