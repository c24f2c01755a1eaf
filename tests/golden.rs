//! Every format against ggml: the bytes that quantizing gives, the bits that dequantizing gives, and the integer view.
//!
//! The vectors are in `tests/data/golden`; `tests/data/make_fixtures.py` makes them.

use quantblock::format::{self, BlockCodes, F16Le, QuantBlock};
use quantblock::kernel::{FlatTile, FloatTile, SuperTile, Tile};
use quantblock::{Error, for_each_format};
use serde_json::Value;
use sha2::{Digest, Sha256};

const COLUMNS: usize = 512;
const ODD_COLUMNS: usize = 480;

fn path(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn floats(name: &str) -> Vec<f32> {
    bytes(name).chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256_of_floats(floats: &[f32]) -> String {
    sha256(&floats.iter().flat_map(|f| f.to_le_bytes()).collect::<Vec<_>>())
}

fn manifest<F: QuantBlock>() -> Value {
    let all: Value = serde_json::from_slice(&bytes("manifest.json")).unwrap();
    let entry = all[F::NAME].clone();
    assert!(entry.is_object(), "{} is not in the manifest", F::NAME);
    entry
}

fn quantize<F: QuantBlock>(rows: &[f32], k: usize, importance: Option<&[f32]>) -> Vec<u8> {
    let row_bytes = format::row_bytes::<F>(k).unwrap();
    let mut bytes = vec![0xA5; rows.len() / k * row_bytes];
    for (row, bytes) in rows.chunks_exact(k).zip(bytes.chunks_exact_mut(row_bytes)) {
        format::quantize_row::<F>(row, importance, bytes).unwrap();
    }
    bytes
}

fn dequantize<F: QuantBlock>(bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![f32::NAN; bytes.len() / size_of::<F::Block>() * F::BLOCK];
    format::dequantize_row::<F>(bytes, &mut out).unwrap();
    out
}

/// What a tile's constants say a weight is.
trait Reconstruct: Tile {
    /// Weight `i` of the block, or `None` for a tile that has no integer view.
    fn weight(view: &BlockCodes, i: usize) -> Option<f32>;
}

fn f16(bits: u32) -> f32 {
    F16Le::from_bits(bits as u16).to_f32()
}

impl<const BITS: u32, const BIAS: i32, const MIN: bool> Reconstruct for FlatTile<BITS, BIAS, MIN> {
    fn weight(view: &BlockCodes, i: usize) -> Option<f32> {
        assert!((view.codes[i] as u32) < 1 << BITS);
        let m = if MIN { f16(view.dmin) } else { 0.0 };
        Some(f16(view.d) * (view.codes[i] as i32 - BIAS) as f32 + m)
    }
}

impl<
    const BITS: u32,
    const BIAS: i32,
    const GROUP: usize,
    const SCALE_BITS: u32,
    const SCALE_BIAS: i32,
    const MIN: bool,
> Reconstruct for SuperTile<BITS, BIAS, GROUP, SCALE_BITS, SCALE_BIAS, MIN>
{
    fn weight(view: &BlockCodes, i: usize) -> Option<f32> {
        assert!((view.codes[i] as u32) < 1 << BITS);
        let code = (view.codes[i] as i32 - BIAS) as f32;
        if SCALE_BITS == 0 {
            return Some(f32::from_bits(view.d) * code);
        }
        let (scale, min) = (view.scales[i / GROUP], if MIN { view.mins[i / GROUP] } else { 0 });
        assert!((scale.max(min) as u32) < 1 << SCALE_BITS);
        Some(f16(view.d) * (scale as i32 - SCALE_BIAS) as f32 * code - f16(view.dmin) * min as f32)
    }
}

impl<const BITS: u32, const EXPONENT_BITS: u32> Reconstruct for FloatTile<BITS, EXPONENT_BITS> {
    fn weight(_view: &BlockCodes, _i: usize) -> Option<f32> {
        None
    }
}

/// The integer view of each block gives the weights that `dequantize` gives.
fn check_view<F: QuantBlock<Tile: Reconstruct>>(bytes: &[u8], weights: &[f32]) {
    let blocks: &[F::Block] = bytemuck::cast_slice(bytes);
    for (block, weights) in blocks.iter().zip(weights.chunks_exact(F::BLOCK)) {
        let mut view = BlockCodes::default();
        // What was there before must not show through.
        (view.codes, view.scales, view.mins) = ([0xFF; 256], [0xFF; 16], [0xFF; 16]);
        F::codes(block, &mut view);
        for (i, &expected) in weights.iter().enumerate() {
            let Some(found) = F::Tile::weight(&view, i) else { return };
            assert_eq!(found, expected, "{}: weight {i} by its code {}", F::NAME, view.codes[i]);
        }
    }
}

fn check_golden<F: QuantBlock<Tile: Reconstruct>>(id: u32) {
    let manifest = manifest::<F>();
    assert_eq!(manifest["id"], id, "{}", F::NAME);
    assert_eq!(manifest["block"], F::BLOCK, "{}", F::NAME);
    assert_eq!(manifest["bytes"], size_of::<F::Block>(), "{}", F::NAME);
    assert_eq!(align_of::<F::Block>(), 1, "{}", F::NAME);

    let (weights, importance) = (floats("weights.f32"), floats("imatrix.f32"));
    for (tag, importance) in [("", None), (".imatrix", Some(importance.as_slice()))] {
        let expected = bytes(&format!("{}{tag}.q", F::NAME));
        let found = quantize::<F>(&weights, COLUMNS, importance);
        let differs = found.iter().zip(&expected).position(|(a, b)| a != b);
        assert_eq!(differs, None, "{}{tag}: first byte that differs from ggml's", F::NAME);
        assert_eq!(found.len(), expected.len(), "{}{tag}", F::NAME);

        let entry = &manifest[format!("rows{tag}")];
        let values = dequantize::<F>(&expected);
        assert_eq!(entry["dequantized_sha256"], sha256_of_floats(&values), "{}{tag}", F::NAME);
        check_view::<F>(&expected, &values);

        if F::BLOCK == 32 {
            let odd: Vec<f32> = weights.chunks_exact(COLUMNS).flat_map(|row| &row[..ODD_COLUMNS]).copied().collect();
            let found = quantize::<F>(&odd, ODD_COLUMNS, importance.map(|all| &all[..ODD_COLUMNS]));
            assert_eq!(entry["odd_sha256"], sha256(&found), "{}{tag}: 15 blocks", F::NAME);
        }
    }

    if F::BLOCK == 256 {
        let inputs = floats("sparse_importance.f32");
        let (rows, importance) = inputs.split_at(inputs.len() / 2);
        let quantize_block = |(row, importance)| quantize::<F>(row, F::BLOCK, Some(importance));
        let found: Vec<u8> = rows.chunks(F::BLOCK).zip(importance.chunks(F::BLOCK)).flat_map(quantize_block).collect();
        assert_eq!(manifest["sparse_sha256"], sha256(&found), "{}: sparse importance", F::NAME);
    }

    let random = bytes(&format!("{}.random.q", F::NAME));
    let values = dequantize::<F>(&random);
    assert_eq!(manifest["random"]["dequantized_sha256"], sha256_of_floats(&values), "{}: random blocks", F::NAME);
    check_view::<F>(&random, &values);

    // A block may lie at any address.
    let mut shifted = vec![0];
    shifted.extend_from_slice(&random);
    assert_eq!(dequantize::<F>(&shifted[1..]), values, "{}: at an odd address", F::NAME);
}

/// Numbers that are no weights end in some block, and any block in some numbers: no panic, nothing left unwritten.
fn check_any_input<F: QuantBlock<Tile: Reconstruct>>(_id: u32) {
    let odd =
        [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45, -0.0, 1e-16, 1.0];
    for (i, &a) in odd.iter().enumerate() {
        for &b in &odd {
            let row: Vec<f32> = (0..COLUMNS).map(|j| if j % 7 == i % 7 { a } else { b }).collect();
            let importance: Vec<f32> = (0..COLUMNS).map(|j| if j % 5 == 0 { b } else { a }).collect();
            for importance in [None, Some(importance.as_slice())] {
                let bytes = quantize::<F>(&row, COLUMNS, importance);
                assert_eq!(bytes, quantize::<F>(&row, COLUMNS, importance), "{}: {a}, {b}", F::NAME);
                assert_eq!(dequantize::<F>(&bytes).len(), COLUMNS);
            }
        }
    }
    let zeros = dequantize::<F>(&quantize::<F>(&[0.0; COLUMNS], COLUMNS, None));
    assert_eq!(zeros, [0.0; COLUMNS], "{}", F::NAME);
    let zeros = dequantize::<F>(&quantize::<F>(&[0.0; COLUMNS], COLUMNS, Some(&[0.0; COLUMNS])));
    assert_eq!(zeros, [0.0; COLUMNS], "{}", F::NAME);

    let mut state = 1u32;
    let noise = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let bytes: Vec<u8> = (0..size_of::<F::Block>() * 64).map(noise).collect();
    let values = dequantize::<F>(&bytes);
    if values.iter().all(|value| value.is_finite()) {
        check_view::<F>(&bytes, &values);
    }
}

/// Wrong lengths are errors of the kind that names them.
fn check_lengths<F: QuantBlock>(_id: u32) {
    let k = 2 * F::BLOCK;
    let size = 2 * size_of::<F::Block>();
    let (row, mut bytes, mut out) = (vec![0.5; k], vec![0; size], vec![0.0; k]);
    let shape = |result: quantblock::Result<()>, expected, found| match result {
        Err(Error::Shape { expected: e, found: f, what }) => {
            assert!(what.contains(F::NAME), "{what}");
            assert_eq!((e, f), (expected, found), "{what}");
        }
        other => panic!("{}: {other:?}", F::NAME),
    };
    shape(format::quantize_row::<F>(&row, None, &mut bytes[1..]), size, size - 1);
    shape(format::quantize_row::<F>(&row, None, &mut []), size, 0);
    shape(format::quantize_row::<F>(&row, Some(&row[1..]), &mut bytes), k, k - 1);
    shape(format::dequantize_row::<F>(&bytes[1..], &mut out), size, size - 1);
    shape(format::dequantize_row::<F>(&bytes, &mut out[F::BLOCK..]), size / 2, size);
    if F::BLOCK > 1 {
        let block = Err(Error::Block { format: F::NAME, block: F::BLOCK, k: k - 1 });
        assert_eq!(format::quantize_row::<F>(&row[1..], None, &mut bytes), block);
        assert_eq!(format::dequantize_row::<F>(&bytes, &mut out[1..]), block);
    }
    assert_eq!(format::quantize_row::<F>(&[], None, &mut []), Ok(()));
    assert_eq!(format::dequantize_row::<F>(&[], &mut []), Ok(()));
}

macro_rules! test_formats {
    ([] $($format:ident = $id:literal),* $(,)?) => {
        $(
            #[test]
            #[allow(non_snake_case)]
            fn $format() {
                check_golden::<format::$format>($id);
                check_any_input::<format::$format>($id);
                check_lengths::<format::$format>($id);
            }
        )*

        #[test]
        fn the_manifest_has_exactly_the_formats() {
            let all: Value = serde_json::from_slice(&bytes("manifest.json")).unwrap();
            let mut expected = vec![$(<format::$format as QuantBlock>::NAME),*];
            expected.sort_unstable();
            let mut found: Vec<&str> = all.as_object().unwrap().keys().map(String::as_str).collect();
            found.sort_unstable();
            assert_eq!(found, expected);
        }
    };
}
for_each_format!(test_formats);
