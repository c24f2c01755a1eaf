"""Writes the golden vectors of tests/golden.rs from ggml: python3 tests/data/make_fixtures.py [OUTDIR [SEED]]

Shared inputs: weights.f32 [2, 512] and imatrix.f32 [512]. Per format T: T.q (the two rows quantized), T.imatrix.q (the same
with the importance matrix) and T.random.q (random blocks with sane scales: they reach codes that a quantizer seldom emits).
manifest.json holds sha256 of each one's dequantized little-endian f32 and, for blocks of 32, of the bytes of both rows cut to
480 columns (an odd number of blocks).
sparse_importance.f32 [2, 8, 256] is an input too, found by fuzzing and kept: 8 superblocks and their importance, most of it 0, that
leave a scale or minimum of Q2_K, Q4_K or Q5_K below 0; the manifest has the sha256 of their bytes.
The rows hold a zero block, an outlier, a constant block, -0.0 and a one-hot block.
"""
import hashlib
import json
import os
import sys

import numpy as np

from ggml_oracle import FORMATS, Oracle

F16_FIELDS = {2: [0], 3: [0, 2], 6: [0], 7: [0, 2], 8: [0], 10: [80, 82], 11: [108], 12: [0, 2], 13: [0, 2], 14: [208]}
BLOCKS, ODD = 48, 480


def sha(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def random_blocks(rng, type_id, traits, count):
    if not traits.is_quantized:  # any finite number
        return np.frombuffer(rng.standard_normal(count).astype("<f4").tobytes(), np.uint8) if type_id == 0 else (
            (rng.integers(0, 0x7800, count) | rng.integers(0, 2, count) << 15).astype("<u2").view(np.uint8))
    blocks = rng.integers(0, 256, (count, traits.block_bytes), dtype=np.uint8)
    for offset in F16_FIELDS.get(type_id, []):
        blocks[:, offset:offset + 2] = (rng.standard_normal(count) * 0.02).astype("<f2").view(np.uint8).reshape(count, 2)
    if type_id == 15:
        blocks[:, :4] = (rng.standard_normal(count) * 0.02).astype("<f4").view(np.uint8).reshape(count, 4)
    return blocks


def main(out, seed=20260101):
    oracle, rng, k = Oracle(), np.random.default_rng(seed), 512
    os.makedirs(out, exist_ok=True)
    spread = np.exp(rng.standard_normal((2, k // 32)).repeat(32, 1) * 0.5) * 0.05
    weights = (rng.standard_normal((2, k)) * spread).astype("<f4")
    weights[1, 64:96] = 0.0
    weights[1, 96:128] = 0.125
    weights[1, 130], weights[1, 131] = 2.0, -0.0
    weights[1, 160:192] = 0.0
    weights[1, 170] = -0.5
    imatrix = ((rng.random(k) + 0.05) ** 2).astype("<f4")
    weights.tofile(f"{out}/weights.f32"), imatrix.tofile(f"{out}/imatrix.f32")
    kept = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden", "sparse_importance.f32")
    sparse = np.fromfile(kept, "<f4").reshape(2, 8, 256)
    sparse.tofile(f"{out}/sparse_importance.f32")
    manifest = {}
    for type_id, name in sorted(FORMATS.items()):
        traits = oracle.traits(type_id)
        entry = {"id": type_id, "block": traits.block_len, "bytes": traits.block_bytes}
        for tag, importance in (("", None), (".imatrix", imatrix)):
            blocks = oracle.quantize(type_id, weights, importance)
            blocks.tofile(f"{out}/{name}{tag}.q")
            entry["rows" + tag] = {"dequantized_sha256": sha(oracle.dequantize(type_id, blocks, weights.size))}
            if traits.block_len == 32:
                odd = None if importance is None else importance[:ODD]
                entry["rows" + tag]["odd_sha256"] = sha(oracle.quantize(type_id, weights[:, :ODD], odd))
        blocks = random_blocks(rng, type_id, traits, BLOCKS)
        blocks.tofile(f"{out}/{name}.random.q")
        values = oracle.dequantize(type_id, blocks.ravel(), BLOCKS * traits.block_len)
        assert np.isfinite(values).all(), name
        entry["random"] = {"dequantized_sha256": sha(values)}
        if traits.block_len == 256:
            entry["sparse_sha256"] = sha(np.concatenate(
                [oracle.quantize(type_id, row[None], importance) for row, importance in zip(*sparse)]))
        manifest[name] = entry
    with open(f"{out}/manifest.json", "w") as f:
        json.dump(manifest, f, indent=1)
        f.write("\n")
    print(f"{len(manifest)} formats -> {out}")


if __name__ == "__main__":
    golden = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden")
    main(sys.argv[1] if len(sys.argv) > 1 else golden, *map(int, sys.argv[2:3]))
