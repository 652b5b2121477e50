//! The tensors of one or more mapped files: name, shape, type, and where the bytes lie.

use std::ops::Range;
use std::sync::Arc;

use super::dtype::Dtype;
use super::map::Blob;

/// One tensor as the file declares it. The reader has checked that its bytes lie in the file.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// The name in the file.
    pub name: String,
    /// Lengths of the dimensions, outermost first (`[rows, columns]`).
    pub dims: Vec<usize>,
    /// How elements are stored.
    pub dtype: Dtype,
    /// Which file of a sharded model, from 0.
    pub file: usize,
    /// Bytes of that file.
    pub bytes: Range<usize>,
}

impl TensorInfo {
    /// Number of elements.
    pub fn n_elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// Bytes in the file.
    pub fn n_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The dimensions for messages: `2560x6912`.
    pub fn shape(&self) -> String {
        self.dims
            .iter()
            .map(usize::to_string)
            .collect::<Vec<_>>()
            .join("x")
    }
}

/// Mapped files and their tensors.
#[derive(Debug)]
pub(crate) struct TensorStore {
    files: Vec<Arc<Blob>>,
    tensors: Vec<TensorInfo>,
    index: std::collections::HashMap<String, usize>,
}

impl TensorStore {
    /// Takes tensors whose byte ranges were checked against their files.
    pub(crate) fn new(files: Vec<Arc<Blob>>, tensors: Vec<TensorInfo>) -> Self {
        for t in &tensors {
            let len = files[t.file].len();
            assert!(
                t.bytes.start <= t.bytes.end && t.bytes.end <= len,
                "{}: {:?} of {len}",
                t.name,
                t.bytes
            );
        }
        let index = tensors
            .iter()
            .enumerate()
            .map(|(i, t)| (t.name.clone(), i))
            .collect();
        Self {
            files,
            tensors,
            index,
        }
    }

    pub(crate) fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        self.files.iter().map(|f| f.len() as u64).sum()
    }

    pub(crate) fn bytes(&self, index: usize) -> &[u8] {
        let t = &self.tensors[index];
        &self.files[t.file][t.bytes.clone()]
    }
}
