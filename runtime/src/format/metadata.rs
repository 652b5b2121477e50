//! GGUF metadata: typed, bounded access to keys without copying arrays out of the file.
//!
//! Getters are lenient on integer width, as writers differ; a key of another kind is an error
//! that names the key, what was expected and what is there.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::error::{LoadErrorKind, bad};
use super::map::Blob;

/// The kinds of value, by their GGUF ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    const BY_ID: [ValueType; 13] = [
        ValueType::U8,
        ValueType::I8,
        ValueType::U16,
        ValueType::I16,
        ValueType::U32,
        ValueType::I32,
        ValueType::F32,
        ValueType::Bool,
        ValueType::String,
        ValueType::Array,
        ValueType::U64,
        ValueType::I64,
        ValueType::F64,
    ];

    pub(crate) fn from_id(id: u32) -> Option<ValueType> {
        Self::BY_ID.get(id as usize).copied()
    }

    /// The id in the file.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// Bytes of a scalar; `None` for strings and arrays.
    pub(crate) fn scalar_bytes(self) -> Option<usize> {
        match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => Some(1),
            ValueType::U16 | ValueType::I16 => Some(2),
            ValueType::U32 | ValueType::I32 | ValueType::F32 => Some(4),
            ValueType::U64 | ValueType::I64 | ValueType::F64 => Some(8),
            ValueType::String | ValueType::Array => None,
        }
    }

    fn is_integer(self) -> bool {
        !matches!(
            self,
            ValueType::F32 | ValueType::F64 | ValueType::String | ValueType::Array
        )
    }
}

/// One key: its kind, and where the value's bytes lie.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) kind: ValueType,
    /// Kind and number of an array's elements.
    pub(crate) array: Option<(ValueType, usize)>,
    /// The value alone: a scalar's bytes, a string's text, an array's elements.
    pub(crate) value: Range<usize>,
    /// Type id and value as they stand in the file, for copying.
    pub(crate) raw: Range<usize>,
}

/// The keys of a GGUF file, in file order.
#[derive(Clone, Debug)]
pub struct Metadata {
    file: Arc<Blob>,
    entries: Vec<Entry>,
    index: HashMap<String, usize>,
}

impl Metadata {
    pub(crate) fn new(file: Arc<Blob>, entries: Vec<Entry>) -> Self {
        let index = entries
            .iter()
            .enumerate()
            .map(|(i, e)| (e.key.clone(), i))
            .collect();
        Self {
            file,
            entries,
            index,
        }
    }

    /// All keys with their kinds, in file order.
    pub fn keys(&self) -> impl Iterator<Item = (&str, ValueType)> {
        self.entries.iter().map(|e| (e.key.as_str(), e.kind))
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the key exists.
    pub fn contains(&self, key: &str) -> bool {
        self.index.contains_key(key)
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn raw(&self, entry: &Entry) -> &[u8] {
        &self.file[entry.raw.clone()]
    }

    fn find(&self, key: &str) -> Option<&Entry> {
        self.index.get(key).map(|&i| &self.entries[i])
    }

    fn bytes(&self, e: &Entry) -> &[u8] {
        &self.file[e.value.clone()]
    }

    /// A string.
    ///
    /// # Errors
    /// When the key holds another kind, or text that is not UTF-8.
    pub fn str(&self, key: &str) -> Result<Option<&str>, LoadErrorKind> {
        let Some(e) = self.find(key) else {
            return Ok(None);
        };
        if e.kind != ValueType::String {
            return Err(bad(key, "a string", self.show(e)));
        }
        let text = std::str::from_utf8(self.bytes(e)).map_err(|err| bad(key, "UTF-8 text", err))?;
        Ok(Some(text))
    }

    /// A number that is not negative, of any integer width; a bool counts as 0 or 1.
    ///
    /// # Errors
    /// When the key holds another kind or a negative number.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, LoadErrorKind> {
        let Some(e) = self.find(key) else {
            return Ok(None);
        };
        match self.integer(e).map(u64::try_from) {
            Some(Ok(v)) => Ok(Some(v)),
            _ => Err(bad(key, "an integer of at least 0", self.show(e))),
        }
    }

    /// A float; integers are converted.
    ///
    /// # Errors
    /// When the key holds another kind.
    pub fn f32(&self, key: &str) -> Result<Option<f32>, LoadErrorKind> {
        let Some(e) = self.find(key) else {
            return Ok(None);
        };
        let b = self.bytes(e);
        let v = match e.kind {
            ValueType::F32 => Some(f32::from_le_bytes(word(b))),
            ValueType::F64 => Some(f64::from_le_bytes(word(b)) as f32),
            _ => self.integer(e).map(|v| v as f32),
        };
        v.map(Some)
            .ok_or_else(|| bad(key, "a number", self.show(e)))
    }

    /// A bool; an integer 0 or 1 counts.
    ///
    /// # Errors
    /// When the key holds another kind or number.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, LoadErrorKind> {
        let Some(e) = self.find(key) else {
            return Ok(None);
        };
        match self.integer(e) {
            Some(0) => Ok(Some(false)),
            Some(1) => Ok(Some(true)),
            _ => Err(bad(key, "a bool", self.show(e))),
        }
    }

    /// Number of elements of an array.
    pub fn array_len(&self, key: &str) -> Option<usize> {
        self.find(key)?.array.map(|(_, n)| n)
    }

    /// An array of strings, borrowed from the file.
    ///
    /// # Errors
    /// When the key holds another kind, or text that is not UTF-8.
    pub fn strings(&self, key: &str) -> Result<Option<Vec<&str>>, LoadErrorKind> {
        let Some(e) = self.find(key) else {
            return Ok(None);
        };
        let Some((ValueType::String, n)) = e.array else {
            return Err(bad(key, "an array of strings", self.show(e)));
        };
        let mut rest = self.bytes(e);
        let mut out = Vec::with_capacity(n);
        for i in 0..n {
            // The reader walked these lengths.
            let (len, tail) = rest.split_at(8);
            let (text, tail) = tail.split_at(u64::from_le_bytes(word(len)) as usize);
            rest = tail;
            out.push(
                std::str::from_utf8(text)
                    .map_err(|err| bad(format!("{key}[{i}]"), "UTF-8 text", err))?,
            );
        }
        Ok(Some(out))
    }

    /// An array of numbers as f32.
    ///
    /// # Errors
    /// When the key holds another kind.
    pub fn f32s(&self, key: &str) -> Result<Option<Vec<f32>>, LoadErrorKind> {
        self.numbers(key, "an array of numbers", |kind, b| match kind {
            ValueType::F32 => Some(f32::from_le_bytes(word(b))),
            ValueType::F64 => Some(f64::from_le_bytes(word(b)) as f32),
            _ => integer(kind, b).map(|v| v as f32),
        })
    }

    /// An array of integers of any width.
    ///
    /// # Errors
    /// When the key holds another kind.
    pub fn i64s(&self, key: &str) -> Result<Option<Vec<i64>>, LoadErrorKind> {
        self.numbers(key, "an array of integers", |kind, b| {
            integer(kind, b).and_then(|v| i64::try_from(v).ok())
        })
    }

    fn numbers<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(ValueType, &[u8]) -> Option<T>,
    ) -> Result<Option<Vec<T>>, LoadErrorKind> {
        let Some(e) = self.find(key) else {
            return Ok(None);
        };
        let elements = match e.array.map(|(kind, _)| (kind, kind.scalar_bytes())) {
            Some((kind, Some(width))) => self
                .bytes(e)
                .chunks_exact(width)
                .map(|b| read(kind, b))
                .collect(),
            _ => None,
        };
        elements
            .map(Some)
            .ok_or_else(|| bad(key, expected, self.show(e)))
    }

    fn integer(&self, e: &Entry) -> Option<i128> {
        integer(e.kind, self.bytes(e))
    }

    /// A value in short, for messages and `inspect`.
    pub fn display(&self, key: &str) -> Option<String> {
        self.find(key).map(|e| self.show(e))
    }

    fn show(&self, e: &Entry) -> String {
        let b = self.bytes(e);
        match (e.kind, e.array) {
            (_, Some((kind, n))) => format!("{kind:?}[{n}]"),
            (ValueType::String, _) => {
                let text = String::from_utf8_lossy(&b[..b.len().min(240)]);
                let short: String = text.chars().take(60).collect();
                let more = if short.len() < b.len() { "…" } else { "" };
                format!("{short:?}{more}")
            }
            (ValueType::F32, _) => format!("{}", f32::from_le_bytes(word(b))),
            (ValueType::F64, _) => format!("{}", f64::from_le_bytes(word(b))),
            (ValueType::Bool, _) => format!("{}", b[0] == 1),
            _ => integer(e.kind, b).map_or_else(String::new, |v| v.to_string()),
        }
    }
}

fn word<const N: usize>(b: &[u8]) -> [u8; N] {
    b.try_into()
        .unwrap_or_else(|_| panic!("a {N}-byte value has {} bytes", b.len()))
}

fn integer(kind: ValueType, b: &[u8]) -> Option<i128> {
    if !kind.is_integer() {
        return None;
    }
    Some(match kind {
        ValueType::I8 => b[0] as i8 as i128,
        ValueType::U8 | ValueType::Bool => b[0] as i128,
        ValueType::U16 => u16::from_le_bytes(word(b)) as i128,
        ValueType::I16 => i16::from_le_bytes(word(b)) as i128,
        ValueType::U32 => u32::from_le_bytes(word(b)) as i128,
        ValueType::I32 => i32::from_le_bytes(word(b)) as i128,
        ValueType::U64 => u64::from_le_bytes(word(b)) as i128,
        _ => i64::from_le_bytes(word(b)) as i128,
    })
}
