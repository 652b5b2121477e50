//! A model of a few kilobytes, in any storage type, that tests can take apart and spoil.

use bitnet_codegen::trit::TernaryMatrix;

use crate::format::GgufWriter;
use crate::format::dtype::TernaryType;
use crate::format::float::FloatType;
use crate::format::metadata::ValueType;
use crate::format::ternary::{RowOrder, Tiles, pack};
use crate::graph::architectures::Family;
use crate::graph::architectures::LLAMA;
use crate::graph::{Architecture, Norm, Projection, RotaryRows, TensorId, Weight};

/// Sizes and weights.
#[derive(Clone)]
pub(crate) struct Micro {
    pub(crate) arch: &'static Architecture,
    pub(crate) hidden: usize,
    pub(crate) ffn: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) layers: usize,
    pub(crate) vocab: usize,
    pub(crate) seed: u32,
}

/// A tensor of a file to be: dimensions outermost first.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dims: Vec<usize>,
    pub(crate) type_id: u32,
    pub(crate) bytes: Vec<u8>,
}

/// A GGUF file in pieces. Keys hold type id and value.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) keys: Vec<(String, Vec<u8>)>,
    pub(crate) tensors: Vec<Tensor>,
}

impl Micro {
    /// About four kilobytes in I2_S.
    pub(crate) fn new(arch: &'static Architecture) -> Self {
        Self {
            arch,
            hidden: 32,
            ffn: 64,
            heads: 2,
            kv_heads: 1,
            head_dim: 16,
            layers: 1,
            vocab: 24,
            seed: 3,
        }
    }

    /// Rows of whole blocks for every storage type.
    pub(crate) fn wide(arch: &'static Architecture) -> Self {
        Self {
            hidden: 256,
            ffn: 512,
            heads: 4,
            kv_heads: 2,
            head_dim: 64,
            ..Self::new(arch)
        }
    }

    fn random(&self, tag: usize) -> impl FnMut() -> u32 {
        let seed = self.seed.wrapping_mul(77).wrapping_add(tag as u32);
        let mut noise = bitnet_codegen::noise::Noise::new(seed);
        move || noise.next().expect("without end") >> 16
    }

    pub(crate) fn shape(&self, projection: Projection) -> (usize, usize) {
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        match projection {
            Projection::AttnQ => (q, self.hidden),
            Projection::AttnK | Projection::AttnV => (kv, self.hidden),
            Projection::AttnOut => (self.hidden, q),
            Projection::FfnGate | Projection::FfnUp => (self.ffn, self.hidden),
            Projection::FfnDown => (self.hidden, self.ffn),
        }
    }

    /// The projection's weights; the scale is a power of two or three quarters of one.
    pub(crate) fn matrix(&self, id: TensorId) -> TernaryMatrix {
        let (n, k) = self.shape(id.projection);
        let mut next = self.random(1000 + id.layer * 7 + id.projection as usize);
        let trits: Vec<i8> = (0..n * k).map(|_| (next() % 3) as i8 - 1).collect();
        let scale = [0.5, 0.75, 0.125, 0.09375][id.projection as usize % 4];
        TernaryMatrix::from_trits(n, k, &trits, scale).unwrap()
    }

    pub(crate) fn norm(&self, norm: Norm, n: usize) -> Vec<f32> {
        let mut next = self.random(norm.to_string().bytes().map(usize::from).sum());
        (0..n).map(|_| (48 + next() % 33) as f32 / 64.0).collect()
    }

    pub(crate) fn table(&self, tag: usize) -> Vec<f32> {
        let mut next = self.random(tag);
        (0..self.vocab * self.hidden)
            .map(|_| (next() % 129) as f32 / 64.0 - 1.0)
            .collect()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = TensorId> + use<> {
        (0..self.layers)
            .flat_map(|layer| Projection::ALL.map(|projection| TensorId { layer, projection }))
    }

    pub(crate) fn norms(&self) -> Vec<(Norm, usize)> {
        let mut out = vec![(Norm::Output, self.hidden)];
        for l in 0..self.layers {
            out.extend([(Norm::Attn(l), self.hidden), (Norm::Ffn(l), self.hidden)]);
            if self.arch.head_norms() {
                out.extend([
                    (Norm::Query(l), self.head_dim),
                    (Norm::Key(l), self.head_dim),
                ]);
            }
            if self.arch.post_norms() {
                out.extend([
                    (Norm::AttnPost(l), self.hidden),
                    (Norm::FfnPost(l), self.hidden),
                ]);
            }
            if self.arch.sub_norms() {
                out.extend([
                    (Norm::AttnSub(l), self.heads * self.head_dim),
                    (Norm::FfnSub(l), self.ffn),
                ]);
            }
        }
        out
    }

    fn named(&self, weight: Weight) -> String {
        self.arch.gguf(weight) + ".weight"
    }

    /// The stored form of a projection: rows in the file's order, packed, with its type id.
    fn stored(&self, id: TensorId, kind: TernaryType, tiles: Option<Tiles>) -> Tensor {
        let m = self.matrix(id);
        let rotated = matches!(id.projection, Projection::AttnQ | Projection::AttnK);
        let m = if rotated && self.arch.gguf_rotary == RotaryRows::Pairs {
            let order = RowOrder::Interleaved {
                head_dim: self.head_dim,
            };
            let mut rows = vec![0; m.n()];
            (0..m.n()).for_each(|r| rows[order.stored(r)] = r);
            m.permute_rows(&rows)
        } else {
            m
        };
        let bytes = pack::pack(kind, &m, 128, tiles);
        Tensor {
            name: self.named(Weight::Projection(id)),
            dims: vec![m.n(), m.k()],
            type_id: kind.ggml_id().unwrap(),
            bytes,
        }
    }

    /// The file with every projection in one storage type.
    pub(crate) fn gguf(
        &self,
        kind: TernaryType,
        tiles: impl Fn(usize, usize) -> Option<Tiles>,
    ) -> Parts {
        let f32s = |v: &[f32]| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let table = |weight, tag| {
            let bytes = self
                .table(tag)
                .iter()
                .flat_map(|&x| half::f16::from_f32(x).to_le_bytes())
                .collect();
            let dims = vec![self.vocab, self.hidden];
            Tensor {
                name: self.named(weight),
                dims,
                type_id: FloatType::F16.ggml_id(),
                bytes,
            }
        };
        let mut tensors = vec![table(Weight::Embedding, 1)];
        if self.arch == LLAMA {
            tensors.push(table(Weight::Head, 2));
        }
        for (norm, n) in self.norms() {
            let bytes = f32s(&self.norm(norm, n));
            tensors.push(Tensor {
                name: self.named(Weight::Norm(norm)),
                dims: vec![n],
                type_id: 0,
                bytes,
            });
        }
        for id in self.ids() {
            let (n, k) = self.shape(id.projection);
            tensors.push(self.stored(id, kind, tiles(n, k)));
        }
        let mut parts = Parts {
            keys: Vec::new(),
            tensors,
        };
        self.keys(&mut parts);
        parts
    }

    fn keys(&self, parts: &mut Parts) {
        let a = self.arch.name;
        parts.str("general.architecture", a);
        for (name, value) in [
            ("vocab_size", self.vocab),
            ("context_length", 64),
            ("embedding_length", self.hidden),
            ("block_count", self.layers),
            ("feed_forward_length", self.ffn),
            ("rope.dimension_count", self.head_dim),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
        ] {
            parts.u32(&format!("{a}.{name}"), value as u32);
        }
        parts.f32(&format!("{a}.attention.layer_norm_rms_epsilon"), 1e-5);
        parts.f32(&format!("{a}.rope.freq_base"), 10_000.0);
        if self.arch.family == Family::Mup {
            for name in ["embedding_scale", "residual_scale", "logit_scale"] {
                parts.f32(&format!("{a}.{name}"), 2.0);
            }
        }
        parts.str("tokenizer.ggml.model", "gpt2");
        let tokens: Vec<String> = (0..self.vocab).map(|i| format!("t{i}")).collect();
        parts.strings("tokenizer.ggml.tokens", &tokens);
    }
}

impl Parts {
    /// Sets or replaces a key by its raw form.
    pub(crate) fn set(&mut self, key: &str, kind: ValueType, value: &[u8]) {
        let raw = [&kind.id().to_le_bytes(), value].concat();
        match self.keys.iter_mut().find(|(k, _)| k == key) {
            Some(entry) => entry.1 = raw,
            None => self.keys.push((key.to_string(), raw)),
        }
    }

    pub(crate) fn str(&mut self, key: &str, value: &str) {
        let raw = [&(value.len() as u64).to_le_bytes(), value.as_bytes()].concat();
        self.set(key, ValueType::String, &raw);
    }

    pub(crate) fn u32(&mut self, key: &str, value: u32) {
        self.set(key, ValueType::U32, &value.to_le_bytes());
    }

    pub(crate) fn f32(&mut self, key: &str, value: f32) {
        self.set(key, ValueType::F32, &value.to_le_bytes());
    }

    pub(crate) fn strings(&mut self, key: &str, values: &[String]) {
        let mut raw = ValueType::String.id().to_le_bytes().to_vec();
        raw.extend((values.len() as u64).to_le_bytes());
        for v in values {
            raw.extend((v.len() as u64).to_le_bytes());
            raw.extend(v.as_bytes());
        }
        self.set(key, ValueType::Array, &raw);
    }

    pub(crate) fn remove(&mut self, key: &str) {
        let before = self.keys.len();
        self.keys.retain(|(k, _)| k != key);
        assert_eq!(self.keys.len() + 1, before, "{key} was there");
    }

    pub(crate) fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors
            .iter_mut()
            .find(|t| t.name == name)
            .unwrap_or_else(|| panic!("{name} is there"))
    }

    pub(crate) fn push_f32(&mut self, name: &str, values: &[f32]) {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.tensors.push(Tensor {
            name: name.into(),
            dims: vec![values.len()],
            type_id: 0,
            bytes,
        });
    }

    pub(crate) fn drop_tensor(&mut self, name: &str) {
        let before = self.tensors.len();
        self.tensors.retain(|t| t.name != name);
        assert_eq!(self.tensors.len() + 1, before, "{name} was there");
    }

    /// The whole file.
    pub(crate) fn emit(&self) -> Vec<u8> {
        let mut w = GgufWriter::default();
        self.keys.iter().for_each(|(key, raw)| w.raw(key, raw));
        self.tensors
            .iter()
            .for_each(|t| w.tensor(&t.name, &t.dims, t.type_id, t.bytes.len()));
        let mut out = w.header();
        for t in &self.tensors {
            out.extend(&t.bytes);
            out.resize(out.len().next_multiple_of(32), 0);
        }
        out
    }
}
