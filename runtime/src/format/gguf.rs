//! The GGUF container, versions 2 and 3: metadata and tensor infos, every count and offset checked
//! against the bytes that are there before anything is allocated or trusted.
//!
//! What keys and tensors mean is for [`super::gguf_model`].

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use super::dtype::{self, Dtype, TernaryType};
use super::error::{LoadErrorKind, bad, unsupported};
use super::map::Blob;
use super::metadata::{Entry, Metadata, ValueType};
use super::store::TensorInfo;
use crate::graph::Architecture;

/// The first four bytes of a file.
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";
/// Tensor data starts at, and is aligned to, a multiple of this unless the file says otherwise.
pub(crate) const DEFAULT_ALIGNMENT: usize = 32;
/// The smallest entry: an empty key, a type, one byte; a tensor with an empty name and no dimension.
const MIN_KV_BYTES: usize = 8 + 4 + 1;
const MIN_INFO_BYTES: usize = 8 + 4 + 4 + 8;
/// Longer names or keys are damage, not names.
const MAX_NAME_BYTES: usize = 65_535;
/// More keys or tensors are damage, not a model: each costs memory many times its bytes in the file.
const MAX_KEYS: usize = 1 << 14;
const MAX_TENSORS: usize = 1 << 16;

/// A parsed file.
#[derive(Debug)]
pub(crate) struct Gguf {
    pub(crate) metadata: Metadata,
    pub(crate) tensors: Vec<TensorInfo>,
}

/// Parses a whole file.
pub(crate) fn parse(file: &Arc<Blob>) -> Result<Gguf, LoadErrorKind> {
    let mut r = Reader { bytes: file, at: 0 };
    if r.take(4, "the magic bytes")? != MAGIC {
        return Err(bad("magic bytes", "GGUF", format!("{:02x?}", &file[..4])));
    }
    check_version(r.u32("the version")?)?;
    let n_tensors = r.count("the tensor count", MIN_INFO_BYTES)?;
    let n_keys = r.count("the key count", MIN_KV_BYTES)?;
    for (field, n, limit) in [
        ("tensor count", n_tensors, MAX_TENSORS),
        ("key count", n_keys, MAX_KEYS),
    ] {
        if n > limit {
            return Err(bad(field, format!("at most {limit}"), n));
        }
    }
    let entries = read_entries(&mut r, n_keys)?;
    let metadata = Metadata::new(file.clone(), entries);
    let alignment = alignment(&metadata)?;
    let raw = read_infos(&mut r, n_tensors)?;
    let arch = metadata.str("general.architecture")?.unwrap_or_default();
    let tensors = place(raw, &r, alignment, Architecture::of_gguf(arch).is_some())?;
    Ok(Gguf { metadata, tensors })
}

fn check_version(version: u32) -> Result<(), LoadErrorKind> {
    match version {
        2 | 3 => Ok(()),
        1 => Err(unsupported(
            "GGUF version 1",
            "known are 2 and 3; convert the file with a current tool",
        )),
        v if v & 0xffff == 0 => Err(unsupported(
            "big-endian GGUF file",
            "convert it to little-endian first",
        )),
        v => Err(unsupported(
            format!("GGUF version {v}"),
            "known are 2 and 3",
        )),
    }
}

fn alignment(metadata: &Metadata) -> Result<usize, LoadErrorKind> {
    let key = "general.alignment";
    let value = metadata.u64(key)?.unwrap_or(DEFAULT_ALIGNMENT as u64);
    if !value.is_power_of_two() || value > 1 << 20 {
        return Err(bad(key, "a power of two up to 2^20", value));
    }
    Ok(value as usize)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, n: usize, field: impl Into<String>) -> Result<&'a [u8], LoadErrorKind> {
        if n > self.left() {
            return Err(self.truncated(n as u64, field));
        }
        let out = &self.bytes[self.at..self.at + n];
        self.at += n;
        Ok(out)
    }

    fn truncated(&self, need: u64, field: impl Into<String>) -> LoadErrorKind {
        LoadErrorKind::Truncated {
            field: field.into(),
            at: self.at as u64,
            need,
            have: self.left() as u64,
        }
    }

    fn u32(&mut self, field: &str) -> Result<u32, LoadErrorKind> {
        let b = self.take(4, field)?;
        Ok(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    fn u64(&mut self, field: &str) -> Result<u64, LoadErrorKind> {
        let b = self.take(8, field)?;
        Ok(u64::from_le_bytes([
            b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7],
        ]))
    }

    /// A number of things of at least `min_bytes` each, which must fit in what is left.
    fn count(&mut self, field: &str, min_bytes: usize) -> Result<usize, LoadErrorKind> {
        let n = self.u64(field)?;
        match usize::try_from(n)
            .ok()
            .and_then(|n| n.checked_mul(min_bytes))
        {
            Some(need) if need <= self.left() => Ok(n as usize),
            _ => Err(self.truncated(
                n.saturating_mul(min_bytes as u64),
                format!("{n} entries of {field}"),
            )),
        }
    }

    /// A string's bytes.
    fn string(&mut self, field: &str) -> Result<Range<usize>, LoadErrorKind> {
        let n = self.count(field, 1)?;
        self.at += n;
        Ok(self.at - n..self.at)
    }

    fn name(&mut self, field: &str) -> Result<String, LoadErrorKind> {
        let range = self.string(field)?;
        let bytes = &self.bytes[range];
        if bytes.len() > MAX_NAME_BYTES {
            return Err(bad(
                field,
                format!("at most {MAX_NAME_BYTES} bytes"),
                bytes.len(),
            ));
        }
        String::from_utf8(bytes.to_vec()).map_err(|e| bad(field, "UTF-8 text", e))
    }
}

fn read_entries(r: &mut Reader<'_>, n: usize) -> Result<Vec<Entry>, LoadErrorKind> {
    let mut seen = HashSet::new();
    let mut entries = Vec::new();
    for i in 0..n {
        let key = r.name(&format!("the name of key {i}"))?;
        if !seen.insert(key.clone()) {
            return Err(bad(format!("key {key}"), "one value", "the key twice"));
        }
        let start = r.at;
        let kind = value_type(r, &key)?;
        let (array, value) = read_value(r, &key, kind)?;
        entries.push(Entry {
            key,
            kind,
            array,
            value,
            raw: start..r.at,
        });
    }
    Ok(entries)
}

fn value_type(r: &mut Reader<'_>, key: &str) -> Result<ValueType, LoadErrorKind> {
    let id = r.u32(&format!("the type of key {key}"))?;
    ValueType::from_id(id).ok_or_else(|| {
        bad(
            format!("type of key {key}"),
            "a value type from 0 to 12",
            id,
        )
    })
}

type ArrayType = Option<(ValueType, usize)>;

fn read_value(
    r: &mut Reader<'_>,
    key: &str,
    kind: ValueType,
) -> Result<(ArrayType, Range<usize>), LoadErrorKind> {
    match kind {
        ValueType::String => Ok((None, r.string(key)?)),
        ValueType::Array => {
            let element = value_type(r, key)?;
            let start_of = |r: &Reader<'_>| r.at;
            let n = match element.scalar_bytes() {
                Some(width) => {
                    let n = r.count(key, width)?;
                    let start = start_of(r);
                    r.at += n * width;
                    return Ok((Some((element, n)), start..r.at));
                }
                None if element == ValueType::String => r.count(key, 8)?,
                None => {
                    return Err(unsupported(
                        format!("array of arrays in key {key}"),
                        "known are arrays of scalars and strings",
                    ));
                }
            };
            let start = start_of(r);
            for _ in 0..n {
                r.string(key)?;
            }
            Ok((Some((element, n)), start..r.at))
        }
        _ => {
            let width = kind
                .scalar_bytes()
                .unwrap_or_else(|| panic!("{kind:?} is a scalar"));
            let b = r.take(width, key)?;
            if kind == ValueType::Bool && b[0] > 1 {
                return Err(bad(format!("key {key}"), "a bool of 0 or 1", b[0]));
            }
            Ok((None, r.at - width..r.at))
        }
    }
}

struct RawInfo {
    name: String,
    dims: Vec<usize>,
    type_id: u32,
    offset: u64,
}

fn read_infos(r: &mut Reader<'_>, n: usize) -> Result<Vec<RawInfo>, LoadErrorKind> {
    let mut seen = HashSet::new();
    let mut infos = Vec::new();
    for i in 0..n {
        let name = r.name(&format!("the name of tensor {i}"))?;
        let field = |what: &str| format!("the {what} of tensor {name}");
        let n_dims = r.u32(&field("dimension count"))?;
        if n_dims > 4 {
            return Err(bad(
                format!("dimensions of tensor {name}"),
                "at most 4",
                n_dims,
            ));
        }
        let mut dims = Vec::new();
        for _ in 0..n_dims {
            let d = r.u64(&field("shape"))?;
            dims.push(usize::try_from(d).ok().filter(|&d| d > 0).ok_or_else(|| {
                bad(
                    format!("shape of tensor {name}"),
                    "lengths above 0 that fit in memory",
                    d,
                )
            })?);
        }
        // The file lists the contiguous dimension first; converters write a scalar with none.
        dims.reverse();
        if dims.is_empty() {
            dims.push(1);
        }
        let type_id = r.u32(&field("type"))?;
        let offset = r.u64(&field("offset"))?;
        if !seen.insert(name.clone()) {
            return Err(bad(
                format!("tensor {name}"),
                "one tensor of that name",
                "two",
            ));
        }
        infos.push(RawInfo {
            name,
            dims,
            type_id,
            offset,
        });
    }
    Ok(infos)
}

/// Turns offsets into checked byte ranges of the file.
fn place(
    raw: Vec<RawInfo>,
    r: &Reader<'_>,
    alignment: usize,
    ternary_arch: bool,
) -> Result<Vec<TensorInfo>, LoadErrorKind> {
    let end = r.bytes.len();
    let Some(data) =
        r.at.checked_next_multiple_of(alignment)
            .filter(|&d| d <= end || raw.is_empty())
    else {
        return Err(r.truncated(
            (alignment - r.at % alignment) as u64,
            "the padding before the tensor data",
        ));
    };
    let mut starts: Vec<u64> = raw.iter().map(|t| t.offset).collect();
    starts.sort_unstable();
    let data_len = (end.max(data) - data) as u64;
    let mut tensors = Vec::new();
    for t in raw {
        let next = starts[starts.partition_point(|&s| s <= t.offset)..]
            .first()
            .copied()
            .unwrap_or(data_len);
        tensors.push(place_one(t, data, data_len, next, alignment, ternary_arch)?);
    }
    let mut by_start: Vec<&TensorInfo> = tensors.iter().collect();
    by_start.sort_by_key(|t| t.bytes.start);
    for pair in by_start.windows(2) {
        if pair[0].bytes.end > pair[1].bytes.start {
            let got = format!(
                "an offset inside {}, which ends at {}",
                pair[0].name,
                pair[0].bytes.end - data
            );
            return Err(bad(
                format!("offset of tensor {}", pair[1].name),
                "bytes of its own",
                got,
            ));
        }
    }
    Ok(tensors)
}

fn place_one(
    t: RawInfo,
    data: usize,
    data_len: u64,
    next: u64,
    alignment: usize,
    ternary_arch: bool,
) -> Result<TensorInfo, LoadErrorKind> {
    let field = |what: &str| format!("{what} of tensor {}", t.name);
    if !t.offset.is_multiple_of(alignment as u64) {
        return Err(bad(
            field("offset"),
            format!("a multiple of {alignment}"),
            t.offset,
        ));
    }
    let mut dtype = dtype::from_ggml_id(t.type_id, &t.name)?;
    let extent = next.saturating_sub(t.offset);
    if t.type_id == 39 && ternary_arch && is_tl2(&t.dims, extent, alignment) {
        dtype = Dtype::Ternary(TernaryType::TL2);
    }
    if dtype == Dtype::Ternary(TernaryType::Q2_0) && is_q2_128(&t.dims, extent, alignment) {
        dtype = Dtype::Ternary(TernaryType::PQ2_0);
    }
    let shape = || {
        t.dims
            .iter()
            .map(usize::to_string)
            .collect::<Vec<_>>()
            .join("x")
    };
    let n_bytes = dtype::n_bytes(dtype, &t.dims).ok_or_else(|| {
        bad(
            field("shape"),
            format!("rows of whole {dtype} blocks"),
            shape(),
        )
    })?;
    if dtype == Dtype::Ternary(TernaryType::I2S)
        && !t.dims.iter().product::<usize>().is_multiple_of(4)
    {
        return Err(bad(field("shape"), "a multiple of 4 elements", shape()));
    }
    match t.offset.checked_add(n_bytes as u64) {
        Some(stop) if stop <= data_len => {
            let start = data + t.offset as usize;
            Ok(TensorInfo {
                bytes: start..start + n_bytes,
                file: 0,
                name: t.name,
                dims: t.dims,
                dtype,
            })
        }
        _ => Err(LoadErrorKind::Truncated {
            field: format!("tensor {} ({}, {dtype})", t.name, shape()),
            at: (data as u64).saturating_add(t.offset),
            need: n_bytes as u64,
            have: data_len.saturating_sub(t.offset),
        }),
    }
}

/// Id 39 is TL2 to bitnet.cpp and MXFP4 to others; only the bytes the tensor takes tell them apart.
fn is_tl2(dims: &[usize], extent: u64, alignment: usize) -> bool {
    let [n, k] = *dims else { return false };
    fills(TernaryType::TL2.n_bytes(n, k), extent, alignment)
}

/// Blocks of 128, which have an id of their own by now, were once written under that of blocks of 64.
fn is_q2_128(dims: &[usize], extent: u64, alignment: usize) -> bool {
    let [n, k] = *dims else { return false };
    let wide = TernaryType::PQ2_0;
    k.is_multiple_of(wide.k_multiple()) && fills(wide.n_bytes(n, k), extent, alignment)
}

/// Whether a tensor of this size takes `extent` bytes of the file, with or without padding after it.
fn fills(size: Option<usize>, extent: u64, alignment: usize) -> bool {
    let padded = size.and_then(|s| s.checked_next_multiple_of(alignment));
    [size, padded].iter().flatten().any(|&s| s as u64 == extent)
}
