//! The reader: parses and checks a whole file, and looks up keys and tensors.

use super::cursor::{Cursor, Shown};
use super::tensor::{TensorInfo, tensor_error};
use super::value::{Value, ValueType};
use crate::{Error, Result};
use alloc::{format, string::String, vec::Vec};

/// Alignment of the data section and of tensors where the file does not say.
pub(super) const DEFAULT_ALIGNMENT: usize = 32;
/// No file needs more, and a file must not make readers pad without bound.
pub(super) const MAX_ALIGNMENT: usize = 1 << 20;
/// The key that holds the alignment.
pub(super) const ALIGNMENT_KEY: &str = "general.alignment";
/// Smallest key-value pair: key length, one byte of key, value type, one byte of value.
const MIN_PAIR_BYTES: usize = 8 + 1 + 4 + 1;
/// Smallest tensor entry: name length, number of dimensions, type, offset.
const MIN_TENSOR_BYTES: usize = 8 + 4 + 4 + 8;
/// Entries that a header may reserve memory for before they are read; beyond, vectors grow with what was read.
const MAX_RESERVED: usize = 1 << 16;

/// A GGUF file, parsed and checked; keys, strings, arrays and names borrow from its bytes.
#[derive(Debug, Clone)]
pub struct Gguf<'a> {
    bytes: &'a [u8],
    version: u32,
    alignment: usize,
    data_start: usize,
    pairs: Vec<(&'a str, Value<'a>)>,
    /// Indices of `pairs` by increasing key.
    pairs_by_key: Vec<usize>,
    tensors: Vec<TensorInfo<'a>>,
    /// Indices of `tensors` by increasing name.
    tensors_by_name: Vec<usize>,
}

fn header_error<T>(at: &str, why: String) -> Result<T> {
    Err(Error::Gguf { at: at.into(), why })
}

/// Indices of `items` by increasing name, or the index of an item whose name an earlier item has.
fn index_by_name<T>(items: &[T], name: impl Fn(&T) -> &str) -> Result<Vec<usize>, usize> {
    let key = |&i: &usize| items.get(i).map(&name);
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_unstable_by(|a, b| key(a).cmp(&key(b)).then(a.cmp(b)));
    let twice = order.windows(2).filter(|w| matches!(w, [a, b] if key(a) == key(b))).filter_map(|w| w.last());
    match twice.min() {
        Some(&second) => Err(second),
        None => Ok(order),
    }
}

fn look_up<'t, T>(items: &'t [T], order: &[usize], name: impl Fn(&T) -> &str, wanted: &str) -> Option<&'t T> {
    let at = order.binary_search_by(|&i| items.get(i).map(&name).cmp(&Some(wanted))).ok()?;
    items.get(*order.get(at)?)
}

impl<'a> Gguf<'a> {
    /// Parses a whole file and checks it: afterwards every string is UTF-8, and every tensor has a known type, lies
    /// inside `bytes`, is aligned and overlaps no other. The padding after the last tensor may be missing.
    ///
    /// Versions 2 and 3, little-endian. Memory is reserved only for entries that `bytes` can hold.
    ///
    /// # Errors
    /// [`Error::Gguf`] names the key, tensor or byte and the rule it breaks; [`Error::Unsupported`] for one part of a
    /// model that is split into several files, and for big-endian files.
    pub fn parse(bytes: &'a [u8]) -> Result<Gguf<'a>> {
        let mut cursor = Cursor::new(bytes);
        let version = read_version(&mut cursor)?;
        let n_tensors = cursor.u64().map_err(|f| f.at("the header's tensor count"))?;
        let n_pairs = cursor.u64().map_err(|f| f.at("the header's key count"))?;
        let pairs_capacity = capacity(&cursor, "key", n_pairs, MIN_PAIR_BYTES)?;
        capacity(&cursor, "tensor", n_tensors, MIN_TENSOR_BYTES)?;

        let mut pairs = Vec::with_capacity(pairs_capacity);
        for index in 0..n_pairs {
            pairs.push(read_pair(&mut cursor, index)?);
        }
        let pairs_by_key = index_by_name(&pairs, |p| p.0).map_err(|second| {
            let key = pairs.get(second).map_or("", |p| p.0);
            Error::Gguf { at: format!("key {}", Shown(key)), why: "the key is duplicated".into() }
        })?;
        let pair = |key| look_up(&pairs, &pairs_by_key, |p| p.0, key).map(|p| p.1);
        let alignment = alignment(pair(ALIGNMENT_KEY))?;
        refuse_split(pair("split.no"), pair("split.count"))?;

        let mut tensors = Vec::with_capacity(capacity(&cursor, "tensor", n_tensors, MIN_TENSOR_BYTES)?);
        for index in 0..n_tensors {
            tensors.push(TensorInfo::read_entry(&mut cursor, index)?);
        }
        let tensors_by_name = index_by_name(&tensors, |t| t.name).map_err(|second| {
            tensor_error(tensors.get(second).map_or("", |t| t.name), "the tensor's name is duplicated".into())
        })?;
        let data_start = place(&mut tensors, cursor.offset(), bytes.len(), alignment)?;
        Ok(Gguf { bytes, version, alignment, data_start, pairs, pairs_by_key, tensors, tensors_by_name })
    }

    /// The version of the file: 2 or 3, which differ in nothing that a little-endian reader sees.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// What tensors are aligned to, in bytes from the start of the data section.
    pub fn alignment(&self) -> usize {
        self.alignment
    }

    /// Where the data section starts, in bytes from the start of the file.
    pub fn data_start(&self) -> usize {
        self.data_start
    }

    /// The whole file.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The value of `key`, or `None` if the file lacks it.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        look_up(&self.pairs, &self.pairs_by_key, |p| p.0, key).map(|p| p.1)
    }

    /// All keys and values, in the order of the file.
    pub fn metadata(&self) -> &[(&'a str, Value<'a>)] {
        &self.pairs
    }

    /// The tensor called `name`, or `None` if the file lacks it.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo<'a>> {
        look_up(&self.tensors, &self.tensors_by_name, |t| t.name, name)
    }

    /// The tensor called `name`, or [`Error::Missing`].
    pub fn require_tensor(&self, name: &str) -> Result<&TensorInfo<'a>> {
        self.tensor(name).ok_or_else(|| Error::Missing { name: name.into() })
    }

    /// All tensors, in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo<'a>] {
        &self.tensors
    }

    /// The bytes of the tensor called `name`, or [`Error::Missing`].
    pub fn tensor_data(&self, name: &str) -> Result<&'a [u8]> {
        let range = self.require_tensor(name)?.range.clone();
        // Always inside: `parse` checked every range.
        Ok(self.bytes.get(range).unwrap_or(&[]))
    }
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<u32> {
    let magic = cursor.array::<4>().map_err(|f| f.at("the header's magic"))?;
    if magic != *b"GGUF" {
        let why = match &magic {
            b"lmgg" | b"fmgg" | b"tjgg" | b"algg" => {
                "this is a model of the time before GGUF; convert it to GGUF".into()
            }
            _ => format!("the file starts with \"{}\", not with \"GGUF\"", magic.escape_ascii()),
        };
        return header_error("the header's magic", why);
    }
    let version = cursor.u32().map_err(|f| f.at("the header's version"))?;
    match version {
        2 | 3 => Ok(version),
        v if v != 0 && v & 0xffff == 0 => Err(Error::Unsupported {
            what: "a big-endian GGUF file".into(),
            instead: "convert it to little-endian (gguf-convert-endian)".into(),
        }),
        1 => header_error(
            "the header's version",
            "version 1 is not supported, only 2 and 3; convert the model again".into(),
        ),
        v => header_error("the header's version", format!("version {v} is not supported, only 2 and 3")),
    }
}

/// How many entries to reserve memory for; an error if the rest of the file cannot hold `count` of them.
fn capacity(cursor: &Cursor<'_>, what: &str, count: u64, min_bytes: usize) -> Result<usize> {
    let most = cursor.left() / min_bytes;
    match usize::try_from(count) {
        Ok(count) if count <= most => Ok(count.min(MAX_RESERVED)),
        _ => {
            let left = cursor.left();
            let why = format!("the file is truncated: {count} entries do not fit into the {left} bytes that are left");
            header_error(&format!("the header's {what} count"), why)
        }
    }
}

fn read_pair<'a>(cursor: &mut Cursor<'a>, index: u64) -> Result<(&'a str, Value<'a>)> {
    let start = cursor.offset();
    let key = cursor.str().map_err(|f| f.at(format_args!("the key of pair {index}")))?;
    if key.is_empty() {
        return header_error(&format!("pair {index} (byte {start})"), "the key is empty".into());
    }
    let value_type = cursor.value_type();
    let value = value_type.and_then(|t: ValueType| Value::read(cursor, t));
    value.map(|value| (key, value)).map_err(|f| f.at(format_args!("key {}", Shown(key))))
}

fn alignment(value: Option<Value<'_>>) -> Result<usize> {
    let bad = |why| Error::Gguf { at: format!("key `{ALIGNMENT_KEY}`"), why };
    match value {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(Value::U32(v)) => match usize::try_from(v) {
            Ok(a) if a.is_power_of_two() && a <= MAX_ALIGNMENT => Ok(a),
            _ => Err(bad(format!("the alignment is {v}, but must be a power of two and at most {MAX_ALIGNMENT}"))),
        },
        Some(v) => Err(bad(format!("is {}, but must be u32", v.value_type().name()))),
    }
}

/// One part of a split model has only some of the tensors: refused here, where the message can say why they lack.
fn refuse_split(no: Option<Value<'_>>, count: Option<Value<'_>>) -> Result<()> {
    let Some(count) = count else { return Ok(()) };
    let Some(parts) = count.integer() else {
        return header_error("key `split.count`", format!("is {}, but must be an integer", count.value_type().name()));
    };
    if parts <= 1 {
        return Ok(());
    }
    let part =
        no.and_then(|v| v.integer()).map_or_else(|| "one part".into(), |no| format!("part {}", no.saturating_add(1)));
    Err(Error::Unsupported {
        what: format!("a model split into several files (this is {part} of {parts}: `split.no`, `split.count`)"),
        instead: "join the parts first (llama-gguf-split --merge)".into(),
    })
}

/// Turns ranges relative to the data section into ranges of the file, checks them, and returns the section's start.
fn place(tensors: &mut [TensorInfo<'_>], header_bytes: usize, file_bytes: usize, alignment: usize) -> Result<usize> {
    let overflow = || Error::Overflow { what: "the GGUF header's size".into() };
    let data_start = header_bytes.checked_next_multiple_of(alignment).ok_or_else(overflow)?;
    // Without tensor data the header's own padding may be missing.
    let data_bytes = file_bytes.saturating_sub(data_start);
    for tensor in tensors.iter_mut() {
        let (start, end) = (tensor.range.start, tensor.range.end);
        if !start.is_multiple_of(alignment) {
            let why = format!("its offset {start} is not a multiple of the alignment of {alignment}");
            return Err(tensor_error(tensor.name, why));
        }
        let bytes = end.saturating_sub(start);
        // An empty tensor after a last one whose padding is missing starts past the end by less than the alignment.
        let past_end = match bytes {
            0 => start.saturating_sub(data_bytes) >= alignment,
            _ => end > data_bytes,
        };
        if past_end {
            let why = format!(
                "its {bytes} bytes at offset {start} reach past the end of the file: the data section has {data_bytes} bytes"
            );
            return Err(tensor_error(tensor.name, why));
        }
        // Cannot overflow: both ends are inside the file, empty ranges apart, which are moved there.
        let start = data_start.saturating_add(start).min(file_bytes);
        tensor.range = start..start.saturating_add(bytes);
    }
    refuse_overlap(tensors)?;
    Ok(data_start.min(file_bytes))
}

fn refuse_overlap(tensors: &[TensorInfo<'_>]) -> Result<()> {
    let mut previous: Option<&TensorInfo<'_>> = None;
    // Most files have their tensors in order: only others pay for the sort.
    let key = |t: &&TensorInfo<'_>| (t.range.start, t.range.end);
    let sorted = tensors.is_sorted_by_key(|t| key(&t));
    let mut order: Vec<&TensorInfo<'_>> = if sorted { Vec::new() } else { tensors.iter().collect() };
    order.sort_unstable_by_key(key);
    let in_order: &mut dyn Iterator<Item = &TensorInfo<'_>> =
        if sorted { &mut tensors.iter() } else { &mut order.iter().copied() };
    for tensor in in_order.filter(|t| !t.range.is_empty()) {
        if let Some(before) = previous.filter(|p| p.range.end > tensor.range.start) {
            return Err(tensor_error(tensor.name, format!("its bytes overlap those of tensor {}", Shown(before.name))));
        }
        previous = Some(tensor);
    }
    Ok(())
}
