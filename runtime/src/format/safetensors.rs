//! The safetensors container, single or sharded: names, shapes and byte ranges. The `safetensors`
//! crate checks that tensors tile the file without holes or overlaps; shards are put together here.
//!
//! What names mean is for [`super::hf`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use safetensors::tensor::Metadata;
use safetensors::{Dtype as StDtype, SafeTensorError, SafeTensors};
use serde::Deserialize;

use super::dtype::{Dtype, TernaryType};
use super::error::{LoadErrorKind, bad, unsupported};
use super::float::FloatType;
use super::map::Blob;
use super::store::{TensorInfo, TensorStore};

/// Whether a file starts as one: a header length, then JSON.
pub(super) fn detect(magic: &[u8]) -> bool {
    let (Some(len), Some(b'{')) = (magic.first_chunk::<8>(), magic.get(8)) else {
        return false;
    };
    // The format caps headers at 100 MB; a text file that happens to have a brace is not one.
    u64::from_le_bytes(*len) <= 100_000_000
}

/// The tensors of one file.
pub(super) fn one_file(bytes: Arc<Blob>, name: &str) -> Result<TensorStore, LoadErrorKind> {
    let mut tensors = Vec::new();
    read_shard(&bytes, name, 0, &mut tensors)?;
    Ok(TensorStore::new(vec![bytes], tensors))
}

/// The tensors of a folder: by `model.safetensors.index.json` if there is one, else
/// `model.safetensors`, else every `*.safetensors`.
pub(super) fn folder(path: &Path) -> Result<TensorStore, LoadErrorKind> {
    let index = read_index(path)?;
    let names: Vec<String> = match &index {
        Some(map) => map
            .values()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .cloned()
            .collect(),
        None => shard_names(path)?,
    };
    let mut files = Vec::new();
    let mut tensors = Vec::new();
    for name in &names {
        let blob = Blob::map(&path.join(name)).map_err(|e| in_file(name, e))?;
        read_shard(&blob, name, files.len(), &mut tensors)?;
        files.push(Arc::new(blob));
    }
    let mut home = BTreeMap::new();
    for t in &tensors {
        if let Some(first) = home.insert(t.name.as_str(), t.file) {
            let got = format!("it in {} and {}", names[first], names[t.file]);
            return Err(bad(
                format!("tensor {}", t.name),
                "one file to hold it",
                got,
            ));
        }
    }
    for (tensor, file) in index.iter().flatten() {
        if home.get(tensor.as_str()).is_none_or(|&f| names[f] != *file) {
            let field = format!("tensor {tensor} in {file}");
            let hint = format!("{INDEX} names it; fetch the folder again");
            return Err(LoadErrorKind::Missing { field, hint });
        }
    }
    Ok(TensorStore::new(files, tensors))
}

const INDEX: &str = "model.safetensors.index.json";

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn read_index(path: &Path) -> Result<Option<BTreeMap<String, String>>, LoadErrorKind> {
    let Some(index) = super::hf::read_json::<Index>(path, INDEX)? else {
        return Ok(None);
    };
    for file in index.weight_map.values() {
        // A path would reach out of the folder.
        if Path::new(file)
            .file_name()
            .is_none_or(|name| name != file.as_str())
        {
            return Err(bad(
                format!("weight_map of {INDEX}"),
                "names of files in the folder",
                file,
            ));
        }
    }
    Ok(Some(index.weight_map))
}

fn shard_names(path: &Path) -> Result<Vec<String>, LoadErrorKind> {
    if path.join("model.safetensors").is_file() {
        return Ok(vec!["model.safetensors".into()]);
    }
    let io = |reason| LoadErrorKind::Io {
        action: "list the folder",
        reason,
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        if let Some(name) = name.to_str().filter(|n| n.ends_with(".safetensors")) {
            names.push(name.to_string());
        }
    }
    names.sort();
    if names.is_empty() {
        let hint = "the folder has config.json but no weights; *.bin and *.pt are not read".into();
        return Err(LoadErrorKind::Missing {
            field: "model.safetensors".into(),
            hint,
        });
    }
    Ok(names)
}

/// Puts a shard's name in front of what is wrong with it.
fn in_file(name: &str, kind: LoadErrorKind) -> LoadErrorKind {
    LoadErrorKind::InFile {
        file: name.to_string(),
        kind: Box::new(kind),
    }
}

fn read_shard(
    bytes: &[u8],
    name: &str,
    file: usize,
    out: &mut Vec<TensorInfo>,
) -> Result<(), LoadErrorKind> {
    let (header, metadata) =
        SafeTensors::read_metadata(bytes).map_err(|e| in_file(name, header_error(e, bytes)))?;
    let data = 8 + header;
    for tensor in metadata.offset_keys() {
        out.push(info(&metadata, tensor, data, bytes.len(), file).map_err(|e| in_file(name, e))?);
    }
    Ok(())
}

fn info(
    metadata: &Metadata,
    name: String,
    data: usize,
    len: usize,
    file: usize,
) -> Result<TensorInfo, LoadErrorKind> {
    let info = metadata
        .info(&name)
        .unwrap_or_else(|| panic!("{name} comes from the list of names"));
    let (start, end) = info.data_offsets;
    let range = data
        .checked_add(start)
        .zip(data.checked_add(end))
        .filter(|&(s, e)| s <= e && e <= len);
    let Some((start, end)) = range else {
        return Err(bad(
            format!("data_offsets of tensor {name}"),
            format!("bytes of the file ({len})"),
            format!("{start}..{end}"),
        ));
    };
    if info.shape.contains(&0) {
        return Err(bad(
            format!("shape of tensor {name}"),
            "lengths above 0",
            format!("{:?}", info.shape),
        ));
    }
    Ok(TensorInfo {
        dims: info.shape.clone(),
        dtype: dtype(info.dtype),
        file,
        bytes: start..end,
        name,
    })
}

fn dtype(d: StDtype) -> Dtype {
    match d {
        StDtype::F32 => Dtype::Float(FloatType::F32),
        StDtype::F16 => Dtype::Float(FloatType::F16),
        StDtype::BF16 => Dtype::Float(FloatType::BF16),
        StDtype::U8 => Dtype::Ternary(TernaryType::HfPacked),
        StDtype::F64 => Dtype::Other("F64"),
        StDtype::I8 => Dtype::Other("I8"),
        StDtype::I16 => Dtype::Other("I16"),
        StDtype::I32 => Dtype::Other("I32"),
        StDtype::I64 => Dtype::Other("I64"),
        StDtype::U32 => Dtype::Other("U32"),
        StDtype::BOOL => Dtype::Other("BOOL"),
        StDtype::F8_E4M3 => Dtype::Other("F8_E4M3"),
        StDtype::F8_E5M2 => Dtype::Other("F8_E5M2"),
        _ => Dtype::Other("an unknown type"),
    }
}

fn header_error(error: SafeTensorError, bytes: &[u8]) -> LoadErrorKind {
    let have = bytes.len() as u64;
    match error {
        SafeTensorError::HeaderTooSmall => LoadErrorKind::Truncated {
            field: "the header length".into(),
            at: 0,
            need: 8,
            have,
        },
        SafeTensorError::InvalidHeaderLength => {
            let need = bytes
                .first_chunk::<8>()
                .map_or(8, |b| u64::from_le_bytes(*b));
            LoadErrorKind::Truncated {
                field: "the header".into(),
                at: 8,
                need,
                have: have.saturating_sub(8),
            }
        }
        SafeTensorError::HeaderTooLarge => bad("header length", "at most 100 MB", "more"),
        SafeTensorError::InvalidHeaderDeserialization(e)
            if e.is_data() && e.to_string().contains("variant") =>
        {
            unsupported(
                format!("header: {e}"),
                "known are F32 F16 BF16 and U8 tensors",
            )
        }
        SafeTensorError::MetadataIncompleteBuffer => bad(
            "header",
            "tensors that cover the file exactly",
            format!("others; the file of {have} bytes is cut short or has surplus bytes"),
        ),
        other => bad(
            "header",
            "names, types, shapes and offsets that agree",
            other,
        ),
    }
}
