//! Models with the shape of real ones and random weights, for measuring without downloading.
//!
//! Weights are a function of the seed, the tensor and the position: fewer layers give the same
//! first layers. Scales and norms are chosen so that activations keep unit variance through the
//! depth and logits spread by a few units, as in a trained model; a text of such a model is
//! noise, but not one token repeated.

use std::io::{self, Write};
use std::path::Path;

use bitnet_codegen::layout::scales::{GroupScales, Stored};
use half::f16;
use thiserror::Error;

use crate::format::dtype::TernaryType;
use crate::format::float::FloatType;
use crate::format::{GgufWriter, WriteError, gguf_config};
use crate::graph::{ModelConfig, Product, Projection, ScaleShape, Weight, products};

mod shapes;
mod table;
mod words;

#[cfg(test)]
pub(crate) use shapes::shape;
pub use shapes::{SHAPES, Shape};
pub use table::TableOptions;

/// Why a model was not written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SynthError {
    /// No shape has this name.
    #[error("unknown shape {name:?}: known are {known}")]
    UnknownShape {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The number of layers is not one the shape can be cut to.
    #[error("{layers} layers of {shape}: expected 1 to {max}")]
    Layers {
        /// What was asked for.
        layers: usize,
        /// The shape.
        shape: &'static str,
        /// Its depth.
        max: usize,
    },
    /// The embedding cannot be stored as asked.
    #[error(
        "embedding and head as {dtype} in rows of {hidden}: expected F16, or Q6_K for a multiple of 256"
    )]
    Table {
        /// What was asked for.
        dtype: &'static str,
        /// The shape's width.
        hidden: usize,
    },
    /// The file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The caller asked to stop; nothing was written.
    #[error("stopped; nothing was written")]
    Stopped,
}

impl Shape {
    /// The shape of this name.
    ///
    /// # Errors
    /// [`SynthError::UnknownShape`], listing the known ones.
    pub fn find(name: &str) -> Result<&'static Shape, SynthError> {
        SHAPES
            .iter()
            .find(|s| s.name == name)
            .ok_or_else(|| SynthError::UnknownShape {
                name: name.to_string(),
                known: SHAPES.iter().map(|s| s.name).collect::<Vec<_>>().join(" "),
            })
    }
}

impl Shape {
    /// Every ternary product of such a model.
    pub fn products(&self) -> Vec<Product> {
        let config = &self.config;
        if !config.weight_only {
            return products::products(config, |_| ScaleShape::Rows(Stored::F32));
        }
        let scales = ScaleShape::Groups(GroupScales {
            k: GROUP_K,
            stored: Stored::F16,
        });
        let mut all = products::products(config, |_| scales);
        all.extend(products::of_head(config, scales));
        all
    }
}

/// Writes a model. `layers` cuts the depth, `table` makes embedding and head; `progress(done, total)` is told bytes and answers
/// whether to go on.
///
/// # Errors
/// [`SynthError`].
pub fn write(
    path: &Path,
    shape: &Shape,
    seed: u64,
    layers: Option<usize>,
    table: TableOptions,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<(), SynthError> {
    let depth = shape.config.n_layers;
    let n_layers = layers.unwrap_or(depth);
    if n_layers == 0 || n_layers > depth {
        return Err(SynthError::Layers {
            layers: n_layers,
            shape: shape.name,
            max: depth,
        });
    }
    table.check(shape.config.hidden)?;
    let (writer, tensors) = header(shape, seed, n_layers, table);
    let (total, mut done) = (writer.data_bytes(), 0);
    let mut file = writer.create(path)?;
    for (i, t) in tensors.iter().enumerate() {
        let noise = Noise {
            key: mix(seed ^ mix(i as u64 + 1)),
        };
        file.tensor(|sink| t.fill(noise, sink))?;
        done += t.n_bytes() as u64;
        if !progress(done, total) {
            return Err(SynthError::Stopped);
        }
    }
    Ok(file.finish()?)
}

/// What a tensor is filled with.
enum Fill {
    /// Around one.
    Norm,
    /// Normal (or as good as), with this deviation.
    Table(TableOptions, f32),
    /// Trits, with this scale.
    Trits(f32),
    /// Trits with a scale for each [`GROUP_K`] columns, around this one.
    Groups(f32),
}

/// Columns that share a scale in the blocks of [`GROUP_TYPE`].
const GROUP_K: usize = 128;

/// How group-scaled matrices are stored.
const GROUP_TYPE: TernaryType = TernaryType::PQ2_0;

struct Tensor {
    name: String,
    dims: Vec<usize>,
    fill: Fill,
}

/// Keys and tensors of the file, cut to `n_layers`.
fn header(
    shape: &Shape,
    seed: u64,
    n_layers: usize,
    table: TableOptions,
) -> (GgufWriter, Vec<Tensor>) {
    let config = ModelConfig {
        name: format!("synth {} seed {seed}", shape.name),
        n_layers,
        ..shape.config.clone()
    };
    let mut writer = GgufWriter::default();
    gguf_config::write(&mut writer, &config);
    gguf_config::write_file_type(&mut writer);
    words::tokenizer_keys(&mut writer, config.vocab);
    let tensors: Vec<Tensor> = config
        .weights()
        .map(|weight| Tensor {
            name: format!("{}.weight", config.architecture.gguf(weight)),
            dims: config.dims(weight),
            fill: fill(&shape.config, weight, table),
        })
        .collect();
    for t in &tensors {
        writer.tensor(&t.name, &t.dims, t.type_id(), t.n_bytes());
    }
    (writer, tensors)
}

/// What a weight of a whole model is filled with.
fn fill(config: &ModelConfig, weight: Weight, table: TableOptions) -> Fill {
    let groups = config.architecture.weight_only;
    match weight {
        // Rows of the same length, of trits of which half are zero.
        Weight::Embedding | Weight::Head if groups => {
            Fill::Groups(2.0 / (config.hidden as f32 / 2.0).sqrt())
        }
        // Logits of a few units: rows of length about 2, against a hidden state of length √hidden.
        Weight::Embedding | Weight::Head => Fill::Table(table, 2.0 / (config.hidden as f32).sqrt()),
        Weight::Norm(_) => Fill::Norm,
        Weight::Projection(id) => {
            let (_, k) = config.linear_shape(id.projection);
            // Half of the trits are zero: k of them sum to a variance of k/2.
            let unit = (2.0 / k as f32).sqrt();
            // What is added to the residual stream 2·layers times must sum to one unit.
            let scale = match id.projection {
                Projection::AttnOut | Projection::FfnDown => {
                    unit / (2.0 * config.n_layers as f32).sqrt()
                }
                _ => unit,
            };
            if groups {
                Fill::Groups(scale)
            } else {
                Fill::Trits(scale)
            }
        }
    }
}

/// A random number for every position, in any order: the sequence of splitmix64 from a key.
#[derive(Clone, Copy)]
struct Noise {
    key: u64,
}

/// The output function of splitmix64 (Steele, Lea and Flood 2014).
fn mix(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

impl Noise {
    fn at(self, i: u64) -> u64 {
        mix(self
            .key
            .wrapping_add((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }
}

/// Bytes made between two writes.
const CHUNK_BYTES: usize = 1 << 16;

impl Tensor {
    fn type_id(&self) -> u32 {
        let id = |kind: TernaryType| {
            let id = kind.ggml_id();
            id.unwrap_or_else(|| panic!("{} has an id", kind.name()))
        };
        match self.fill {
            Fill::Norm => FloatType::F32.ggml_id(),
            Fill::Table(table, _) => table.dtype.ggml_id(),
            Fill::Trits(_) => id(TernaryType::I2S),
            Fill::Groups(_) => id(GROUP_TYPE),
        }
    }

    fn n_bytes(&self) -> usize {
        let n: usize = self.dims.iter().product();
        match self.fill {
            Fill::Norm => 4 * n,
            Fill::Table(table, _) => table.dtype.row_bytes(n),
            Fill::Trits(_) => n / 4 + 32,
            Fill::Groups(_) => n / GROUP_K * (2 + GROUP_K / 4),
        }
    }

    fn fill(&self, noise: Noise, sink: &mut dyn Write) -> io::Result<()> {
        let n: usize = self.dims.iter().product();
        match self.fill {
            Fill::Norm => {
                // 0.75 to 1.25 in steps that every float type holds.
                let value = |i| (48 + noise.at(i) % 33) as f32 / 64.0;
                (0..n as u64).try_for_each(|i| sink.write_all(&value(i).to_le_bytes()))
            }
            Fill::Table(table, deviation) => {
                table.fill((self.dims[0], n / self.dims[0]), deviation, noise, sink)
            }
            Fill::Trits(scale) => {
                chunks(n / 4, sink, |i| trits(noise.at(i)).to_le_bytes())?;
                sink.write_all(&crate::format::ternary::pack::i2s_tail(scale))
            }
            Fill::Groups(scale) => chunks(self.n_bytes(), sink, |i| {
                let words = 5 * i;
                // Half to one and a half times the scale.
                let part = (64 + noise.at(words) % 129) as f32 / 128.0;
                let mut block = [0u8; 2 + GROUP_K / 4];
                block[..2].copy_from_slice(&f16::from_f32(scale * part).to_le_bytes());
                for (j, codes) in block[2..].chunks_exact_mut(8).enumerate() {
                    let word = trits(noise.at(words + 1 + j as u64));
                    codes.copy_from_slice(&word.to_le_bytes());
                }
                block
            }),
        }
    }
}

/// 32 codes from 64 random bits: −1 and 1 a quarter of the time each, else 0. Code 3 becomes 1.
fn trits(x: u64) -> u64 {
    let threes = x & x >> 1 & 0x5555_5555_5555_5555;
    x & !(threes << 1)
}

/// The sum of four bytes is nearly normal: values by that sum, mean 0.
fn normal_table(deviation: f32) -> Vec<f16> {
    let byte_variance = (256.0f32 * 256.0 - 1.0) / 12.0;
    let unit = (4.0 * byte_variance).sqrt();
    (0..=4 * 255)
        .map(|sum| f16::from_f32((sum as f32 - 2.0 * 255.0) / unit * deviation))
        .collect()
}

/// Writes `n_bytes` bytes, `B` at a time from a running index.
fn chunks<const B: usize>(
    n_bytes: usize,
    sink: &mut dyn Write,
    at: impl Fn(u64) -> [u8; B],
) -> io::Result<()> {
    let mut buffer = vec![0u8; (CHUNK_BYTES / B * B).min(n_bytes.next_multiple_of(B))];
    let mut i = 0u64;
    let mut left = n_bytes;
    while left > 0 {
        let now = left.min(buffer.len());
        for out in buffer[..now.next_multiple_of(B)].as_chunks_mut::<B>().0 {
            *out = at(i);
            i += 1;
        }
        sink.write_all(&buffer[..now])?;
        left -= now;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{OpenOptions, open};

    #[test]
    fn a_model_is_written_read_and_does_not_depend_on_its_depth() {
        let dir = tempfile::tempdir().unwrap();
        let shape = Shape::find("tiny").unwrap();
        let models: Vec<_> = [None, Some(1)]
            .map(|layers| {
                let path = dir.path().join(format!("{layers:?}.gguf"));
                write(
                    &path,
                    shape,
                    7,
                    layers,
                    TableOptions::default(),
                    &mut |_, _| true,
                )
                .unwrap();
                open(&path, &OpenOptions::default()).unwrap()
            })
            .into();
        let (deep, shallow) = (&models[0], &models[1]);
        assert_eq!((deep.config().n_layers, shallow.config().n_layers), (2, 1));
        for id in shallow.linear_ids() {
            let m = deep.ternary(id).unwrap();
            assert_eq!(m, shallow.ternary(id).unwrap(), "{id}");
            let zeros = (0..m.k()).filter(|&c| m.trit(0, c) == 0).count();
            assert!(
                (m.k() / 3..m.k() * 2 / 3).contains(&zeros),
                "{zeros} of {} trits are 0 in {id}",
                m.k()
            );
        }
        let table = shallow.embedding();
        let mut row = vec![0f32; table.cols];
        table.row_to_f32(5, &mut row);
        let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        assert!(
            (1.7..2.3).contains(&length),
            "rows have a length about 2, not {length}"
        );
        let tokenizer = crate::setup::tokenizer(shallow, None).unwrap();
        assert_eq!(tokenizer.n_vocab(), 512);
    }

    #[test]
    fn every_shape_is_one_the_reader_accepts() {
        // The data is a hole in the file: reading it in would need the memory of a real model.
        let dir = tempfile::tempdir().unwrap();
        for shape in SHAPES {
            let (writer, _) = header(shape, 1, 2, TableOptions::default());
            let path = dir.path().join(shape.name);
            let header = writer.header();
            std::fs::write(&path, &header).unwrap();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_len(header.len() as u64 + writer.data_bytes())
                .unwrap();
            let model = open(&path, &OpenOptions::default())
                .unwrap_or_else(|e| panic!("{}: {e}", shape.name));
            let want = ModelConfig {
                name: format!("synth {} seed 1", shape.name),
                n_layers: 2,
                ..shape.config.clone()
            };
            assert_eq!(*model.config(), want);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_the_way_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real.gguf"), dir.path().join("link.gguf"));
        std::fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let shape = Shape::find("tiny").unwrap();
        write(
            &link,
            shape,
            1,
            Some(1),
            TableOptions::default(),
            &mut |_, _| true,
        )
        .unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(open(&real, &OpenOptions::default()).is_ok());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn bad_requests_are_named_and_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        let shape = Shape::find("tiny").unwrap();
        let mut go = |_, _| true;
        assert!(matches!(
            Shape::find("2b"),
            Err(SynthError::UnknownShape { .. })
        ));
        for layers in [0, 3] {
            assert!(matches!(
                write(
                    &path,
                    shape,
                    1,
                    Some(layers),
                    TableOptions::default(),
                    &mut go
                ),
                Err(SynthError::Layers { .. })
            ));
        }
        assert!(matches!(
            write(
                &path,
                shape,
                1,
                None,
                TableOptions::default(),
                &mut |_, _| false
            ),
            Err(SynthError::Stopped)
        ));
        let nowhere = dir.path().join("no/such/folder/m.gguf");
        assert!(matches!(
            write(&nowhere, shape, 1, None, TableOptions::default(), &mut go),
            Err(SynthError::Write(_))
        ));
        if cfg!(target_os = "linux") {
            let e = write(
                Path::new("/dev/full"),
                shape,
                1,
                None,
                TableOptions::default(),
                &mut go,
            )
            .unwrap_err();
            assert!(e.to_string().contains("No space left"), "{e}");
            assert!(
                !std::fs::metadata("/dev/full").unwrap().is_file(),
                "/dev/full is still a device"
            );
        }
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            0,
            "nothing is left behind"
        );
    }
}
