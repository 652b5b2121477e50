//! What a model file holds: configuration, what each byte is for, every tensor, the file's keys.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use serde::Serialize;
use serde_json::Value;

use crate::format::ternary::{Packing, RowOrder, TernarySource};
use crate::format::{Model, TokenizerSource};
use crate::graph::TensorId;
use crate::network::head::HeadForm;

/// Everything `inspect` shows; serialises to its JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// File or folder.
    pub path: String,
    /// File format.
    pub format: String,
    /// The model's own name.
    pub name: String,
    /// Configuration, by name.
    pub config: BTreeMap<&'static str, Value>,
    /// How the head finds the likeliest tokens unless another form is asked for; none where it is ternary and has one.
    pub head_form: Option<HeadForm>,
    /// Bytes by purpose, largest first.
    pub uses: Vec<Use>,
    /// All weights of all tensors.
    pub n_parameters: u64,
    /// Bytes of the file or files.
    pub file_bytes: u64,
    /// Every tensor, in file order.
    pub tensors: Vec<Row>,
    /// Keys of a GGUF file with their values in short.
    pub keys: Vec<(String, String)>,
    /// What the reader assumed or could not know.
    pub notes: Vec<String>,
}

/// What some of the bytes are for.
#[derive(Clone, Debug, Serialize)]
pub struct Use {
    /// The purpose.
    pub purpose: &'static str,
    /// Tensors that serve it.
    pub n_tensors: usize,
    /// Their elements.
    pub n_elements: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Types they have.
    pub types: String,
}

/// One tensor.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Name in the file.
    pub name: String,
    /// What it is in the graph, and how it is read.
    pub used_as: String,
    /// Dimensions, outermost first.
    pub shape: String,
    /// Stored type.
    pub dtype: String,
    /// Bytes.
    pub bytes: u64,
    /// Offset in its file.
    pub offset: u64,
    /// Which file of a sharded model.
    pub file: usize,
}

const PROJECTIONS: &str = "ternary projections";
const KEPT: &str = "float projections";
const EMBEDDING: &str = "embedding";
const EMBEDDING_AND_HEAD: &str = "embedding and head (tied)";
const HEAD: &str = "head";
const NORMS: &str = "norms";
const OTHER: &str = "scales and others";
const REST: &str = "header, keys, padding";

/// Looks at an opened model. No tensor is decoded.
pub fn inspect(model: &Model) -> Inspection {
    let n = model.tensors().len();
    let mut used: Vec<(&'static str, String)> = vec![(OTHER, "scale or unused".into()); n];
    let mut n_elements: Vec<u64> = model
        .tensors()
        .iter()
        .map(|t| t.n_elements() as u64)
        .collect();
    let c = model.config();
    let table = if c.tied {
        EMBEDDING_AND_HEAD
    } else {
        EMBEDDING
    };
    used[model.embedding] = (table, table.into());
    if let Some(head) = model.head {
        used[head] = (HEAD, HEAD.into());
    }
    for (norm, &index) in &model.norms {
        used[index] = (NORMS, norm.to_string());
    }
    if let Some(source) = &model.ternary_head {
        // Made from the embedding table where they are tied.
        if source.tensor != model.embedding {
            used[source.tensor] = (HEAD, format!("{HEAD}, ternary"));
            n_elements[source.tensor] = (source.n * source.k) as u64;
        }
    }
    for id in model.linear_ids() {
        let (_, source) = model.ternary_info(id);
        if source.packing == Packing::Kept {
            used[source.tensor] = (KEPT, projection_name(id, source));
            continue;
        }
        used[source.tensor] = (PROJECTIONS, projection_name(id, source));
        // A packed tensor counts bytes, not weights.
        n_elements[source.tensor] = (source.n * source.k) as u64;
    }
    let mut tensors = Vec::new();
    let mut uses: Vec<Use> = Vec::new();
    for ((t, (purpose, used_as)), n_elements) in model.tensors().iter().zip(used).zip(n_elements) {
        let bytes = t.n_bytes() as u64;
        let entry = match uses.iter_mut().find(|u| u.purpose == purpose) {
            Some(entry) => entry,
            None => {
                uses.push(Use {
                    purpose,
                    n_tensors: 0,
                    n_elements: 0,
                    bytes: 0,
                    types: String::new(),
                });
                uses.last_mut()
                    .unwrap_or_else(|| unreachable!("just pushed"))
            }
        };
        entry.n_tensors += 1;
        entry.n_elements += n_elements;
        entry.bytes += bytes;
        if !entry.types.split(' ').any(|name| name == t.dtype.name()) {
            entry.types = format!("{} {}", entry.types, t.dtype).trim().to_string();
        }
        tensors.push(Row {
            name: t.name.clone(),
            used_as,
            shape: t.shape(),
            dtype: t.dtype.to_string(),
            bytes,
            offset: t.bytes.start as u64,
            file: t.file,
        });
    }
    let file_bytes = model.file_bytes();
    let rest = file_bytes - uses.iter().map(|u| u.bytes).sum::<u64>();
    let n_parameters = uses
        .iter()
        .filter(|u| u.purpose != OTHER)
        .map(|u| u.n_elements)
        .sum();
    uses.push(Use {
        purpose: REST,
        n_tensors: 0,
        n_elements: 0,
        bytes: rest,
        types: String::new(),
    });
    uses.sort_by_key(|u| std::cmp::Reverse(u.bytes));
    let keys = match model.tokenizer_source() {
        TokenizerSource::Gguf(m) => m
            .keys()
            .map(|(k, _)| (k.to_string(), m.display(k).unwrap_or_default()))
            .collect(),
        TokenizerSource::Folder(_) => Vec::new(),
    };
    Inspection {
        path: model.path().to_string(),
        format: model.format().to_string(),
        name: c.name.clone(),
        config: config(model),
        head_form: match &model.ternary_head {
            Some(_) => None,
            None => Some(HeadForm::suiting(&model.head())),
        },
        uses,
        n_parameters,
        file_bytes,
        tensors,
        keys,
        notes: model.notes().to_vec(),
    }
}

fn projection_name(id: TensorId, source: &TernarySource) -> String {
    let mut text = format!("{id}");
    match &source.packing {
        Packing::I2S { block } => write!(text, ", blocks of {block}"),
        Packing::Tiled(_, tiles) => write!(text, ", tiles {tiles}"),
        Packing::Floats(how) => write!(text, ", {how:?}"),
        Packing::Kept => write!(text, ", kept in float"),
        Packing::Plain(_) => Ok(()),
    }
    .unwrap_or_else(|e| unreachable!("writing to a string: {e}"));
    if source.factor != 1.0 {
        text += &format!(", times {}", source.factor);
    }
    if source.order != RowOrder::Neutral {
        text += ", rows interleaved";
    }
    text
}

fn config(model: &Model) -> BTreeMap<&'static str, Value> {
    let c = model.config();
    // Shortest decimal text, so that 1e-5 is not shown with the digits of an f64.
    let number = |v: f32| Value::from(v.to_string().parse::<f64>().unwrap_or(v as f64));
    BTreeMap::from([
        ("acts", c.acts.name().into()),
        ("activation", c.activation.to_string().into()),
        ("architecture", c.architecture.to_string().into()),
        ("context", c.context_len.into()),
        ("ffn", c.ffn.into()),
        ("head_dim", c.head_dim.into()),
        ("head_norms", c.architecture.head_norms().into()),
        ("heads", c.n_heads.into()),
        ("hidden", c.hidden.into()),
        (
            "input_norm_eps",
            c.input_norm_eps.map_or(Value::Null, number),
        ),
        ("kv_heads", c.n_kv_heads.into()),
        ("layers", c.n_layers.into()),
        ("norm_eps", number(c.norm_eps)),
        (
            "rope_factors",
            c.rope.factors.as_ref().map_or(0, Vec::len).into(),
        ),
        ("rope_linear", number(c.rope.linear)),
        ("rope_theta", number(c.rope.theta)),
        (
            "rope_yarn",
            c.rope.yarn.map_or(Value::Null, |yarn| number(yarn.factor)),
        ),
        ("sub_norms", c.sub_norms().into()),
        ("ternary_head", model.ternary_head.is_some().into()),
        ("tied", c.tied.into()),
        ("vocab", c.vocab.into()),
    ])
}

/// A number of bytes for people.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if value < 10.0 {
        2
    } else if value < 100.0 {
        1
    } else {
        0
    };
    format!("{value:.digits$} {}", UNITS[unit])
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} ({}, {})",
            self.path,
            self.format,
            human_bytes(self.file_bytes)
        )?;
        writeln!(f, "name           {}", self.name)?;
        for (key, value) in &self.config {
            match value {
                Value::String(text) => writeln!(f, "{key:<14} {text}")?,
                value => writeln!(f, "{key:<14} {value}")?,
            }
        }
        match self.head_form {
            Some(form) => writeln!(
                f,
                "head           {form} (unless --head asks for another form)"
            )?,
            None => writeln!(f, "head           ternary, a product like the projections")?,
        }
        writeln!(f, "parameters     {:.3} G", self.n_parameters as f64 / 1e9)?;
        self.notes
            .iter()
            .try_for_each(|note| writeln!(f, "note           {note}"))?;
        writeln!(
            f,
            "\n{:<26} {:>7} {:>14} {:>10} {:>6}  types",
            "bytes are for", "tensors", "weights", "bytes", "bits"
        )?;
        for u in &self.uses {
            let bits = match u.n_elements {
                0 => String::new(),
                n => format!("{:.2}", 8.0 * u.bytes as f64 / n as f64),
            };
            let bytes = human_bytes(u.bytes);
            writeln!(
                f,
                "{:<26} {:>7} {:>14} {bytes:>10} {bits:>6}  {}",
                u.purpose, u.n_tensors, u.n_elements, u.types
            )?;
        }
        if !self.keys.is_empty() {
            writeln!(f, "\nkeys")?;
        }
        self.keys
            .iter()
            .try_for_each(|(key, value)| writeln!(f, "{key:<42} {value}"))?;
        let width = self.tensors.iter().map(|t| t.name.len()).max().unwrap_or(0);
        writeln!(f, "\ntensors")?;
        for t in &self.tensors {
            let bytes = human_bytes(t.bytes);
            writeln!(
                f,
                "{:<width$} {:>7} {:>14} {bytes:>10}  {}",
                t.name, t.dtype, t.shape, t.used_as
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{OpenOptions, open};

    #[test]
    fn every_byte_is_accounted_for() {
        for name in ["tiny/tiny_b158.gguf", "tiny/tiny_llama_hf"] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../tests/data")
                .join(name);
            let model = open(&path, &OpenOptions::default()).unwrap();
            let seen = inspect(&model);
            assert_eq!(
                seen.uses.iter().map(|u| u.bytes).sum::<u64>(),
                seen.file_bytes,
                "{name}"
            );
            assert!(
                seen.tensors
                    .iter()
                    .all(|t| t.used_as.starts_with("scale") == t.name.ends_with("_scale")),
                "{name}"
            );
            let linear: u64 = model
                .linear_ids()
                .map(|id| model.config().linear_shape(id.projection))
                .map(|(n, k)| (n * k) as u64)
                .sum();
            let projections = seen.uses.iter().find(|u| u.purpose == PROJECTIONS).unwrap();
            assert_eq!(
                (projections.n_tensors, projections.n_elements),
                (14, linear),
                "{name}"
            );
            let text = seen.to_string();
            assert!(
                text.contains("ternary projections") && text.contains("hidden         128"),
                "{text}"
            );
            assert!(
                serde_json::to_string(&seen)
                    .unwrap()
                    .contains("\"purpose\":\"embedding"),
                "{name}"
            );
        }
    }

    #[test]
    fn sizes_are_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (182_464, "182 kB"),
            (1_187_801_280, "1.19 GB"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
    }
}
