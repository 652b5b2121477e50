//! GGUF files taken apart, spoiled and put together again.

use super::draw::Draw;
use super::seeds::{Sizes, floats, packed};
use super::text::{damage, text};
use super::{readable, tokenizer};
use bitnet_runtime::format::dtype::TernaryType;
use bitnet_runtime::format::{self, LoadError, Model, OpenOptions};
use bitnet_runtime::tokenizer::Tokenizer;
use std::sync::OnceLock;

/// A tensor of a file to be; dimensions as the file has them, innermost first.
#[derive(Clone)]
struct Tensor {
    name: String,
    dims: Vec<u64>,
    kind: u32,
    offset: u64,
    bytes: Vec<u8>,
}

/// A file in pieces. Keys hold their type and raw value.
#[derive(Clone)]
struct Pieces {
    version: u32,
    keys: Vec<(String, u32, Vec<u8>)>,
    tensors: Vec<Tensor>,
    alignment: usize,
}

const U32: u32 = 4;
const F32: u32 = 6;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

fn string(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes(), value.as_bytes()].concat()
}

fn strings(values: &[String]) -> Vec<u8> {
    let mut raw = STRING.to_le_bytes().to_vec();
    raw.extend((values.len() as u64).to_le_bytes());
    values.iter().for_each(|v| raw.extend(string(v)));
    raw
}

impl Pieces {
    /// A right file of `arch` with projections of type `kind`, 1 for F16 masters.
    fn new(arch: &str, kind: Option<TernaryType>, sizes: Sizes) -> Self {
        let mut this = Self {
            version: 3,
            keys: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
        };
        this.describe(arch, sizes);
        let half = |v: &[f32]| {
            v.iter()
                .flat_map(|&x| half::f16::from_f32(x).to_le_bytes())
                .collect()
        };
        let single = |v: &[f32]| v.iter().flat_map(|x| x.to_le_bytes()).collect();
        let table: Vec<u8> = half(&floats(sizes.vocab * sizes.hidden));
        this.tensor(
            "token_embd.weight",
            &[sizes.hidden, sizes.vocab],
            1,
            table.clone(),
        );
        this.tensor(
            "output_norm.weight",
            &[sizes.hidden],
            0,
            single(&vec![1.0; sizes.hidden]),
        );
        let mut norms = vec![("attn_norm", sizes.hidden), ("ffn_norm", sizes.hidden)];
        if arch == "llama" {
            this.tensor("output.weight", &[sizes.hidden, sizes.vocab], 1, table);
        } else {
            norms.extend([
                ("attn_sub_norm", sizes.heads * sizes.head_dim),
                ("ffn_sub_norm", sizes.ffn),
            ]);
        }
        for (name, n) in norms {
            this.tensor(
                &format!("blk.0.{name}.weight"),
                &[n],
                0,
                single(&vec![1.0; n]),
            );
        }
        for (name, n, k) in sizes.projections() {
            let (id, bytes) = match kind {
                Some(kind) => (kind.ggml_id().expect("a GGUF type"), packed(kind, n, k)),
                None => (1, half(&floats(n * k))),
            };
            this.tensor(&format!("blk.0.{name}.weight"), &[k, n], id, bytes);
        }
        this
    }

    fn describe(&mut self, arch: &str, sizes: Sizes) {
        let mut key =
            |name: &str, kind: u32, value: Vec<u8>| self.keys.push((name.into(), kind, value));
        key("general.architecture", STRING, string(arch));
        for (name, value) in [
            ("vocab_size", sizes.vocab),
            ("context_length", 64),
            ("embedding_length", sizes.hidden),
            ("block_count", 1),
            ("feed_forward_length", sizes.ffn),
            ("rope.dimension_count", sizes.head_dim),
            ("attention.head_count", sizes.heads),
            ("attention.head_count_kv", sizes.kv_heads),
            ("attention.key_length", sizes.head_dim),
        ] {
            key(
                &format!("{arch}.{name}"),
                U32,
                (value as u32).to_le_bytes().to_vec(),
            );
        }
        key(
            &format!("{arch}.attention.layer_norm_rms_epsilon"),
            F32,
            1e-5f32.to_le_bytes().to_vec(),
        );
        key(
            &format!("{arch}.rope.freq_base"),
            F32,
            1e4f32.to_le_bytes().to_vec(),
        );
        let tokens: Vec<String> = (0..sizes.vocab)
            .map(|i| ["a", "b", "ab", "Ġ", "<s>", "▁", "h", "t"][i % 8].repeat(1 + i / 8))
            .collect();
        key("tokenizer.ggml.model", STRING, string("gpt2"));
        key("tokenizer.ggml.pre", STRING, string("llama-bpe"));
        key("tokenizer.ggml.tokens", ARRAY, strings(&tokens));
        key(
            "tokenizer.ggml.merges",
            ARRAY,
            strings(&["a b".into(), "Ġ a".into()]),
        );
        key(
            "tokenizer.ggml.bos_token_id",
            U32,
            4u32.to_le_bytes().to_vec(),
        );
        key(
            "tokenizer.chat_template",
            STRING,
            string("{% for m in messages %}{{ m.content }}{% endfor %}"),
        );
    }

    fn tensor(&mut self, name: &str, dims: &[usize], kind: u32, bytes: Vec<u8>) {
        let offset = self.tensors.last().map_or(0, |t| {
            (t.offset + t.bytes.len() as u64).next_multiple_of(32)
        });
        let dims = dims.iter().map(|&d| d as u64).collect();
        self.tensors.push(Tensor {
            name: name.into(),
            dims,
            kind,
            offset,
            bytes,
        });
    }

    fn emit(&self, n_tensors: u64, n_keys: u64) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(n_tensors.to_le_bytes());
        out.extend(n_keys.to_le_bytes());
        for (name, kind, value) in &self.keys {
            out.extend(string(name));
            out.extend(kind.to_le_bytes());
            out.extend(value);
        }
        for t in &self.tensors {
            out.extend(string(&t.name));
            out.extend((t.dims.len() as u32).to_le_bytes());
            t.dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(t.kind.to_le_bytes());
            out.extend(t.offset.to_le_bytes());
        }
        for t in &self.tensors {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
            out.extend(&t.bytes);
        }
        out
    }
}

/// Every right file that a mutation begins with.
fn right() -> &'static [Pieces] {
    static RIGHT: OnceLock<Vec<Pieces>> = OnceLock::new();
    RIGHT.get_or_init(|| {
        use TernaryType::{I2S, IQ1BN, IQ2BN, IQ2BNR4, Q2_0};
        let mut all = Vec::new();
        for arch in ["bitnet-b1.58", "bitnet", "llama"] {
            all.push(Pieces::new(arch, Some(I2S), Sizes::SMALL));
            all.push(Pieces::new(arch, None, Sizes::SMALL));
            all.extend(
                [IQ1BN, IQ2BN, IQ2BNR4, Q2_0]
                    .map(|kind| Pieces::new(arch, Some(kind), Sizes::WIDE)),
            );
        }
        all
    })
}

/// Keys and names that a reader looks for.
const NAMES: &[&str] = &[
    "general.alignment",
    "general.file_type",
    "general.name",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.huggingface.json",
    "llama.rope.scaling.type",
    "llama.rope.scaling.factor",
    "bitnet.attention.value_length",
    "rope_freqs.weight",
    "blk.0.attn_q.scale",
    "blk.1.attn_q.weight",
    "blk.0.attn_q_norm_in.weight",
    "blk.18446744073709551615.attn_q.weight",
    "output.weight",
];

fn spoil(draw: &mut Draw, file: &mut Pieces) {
    match draw.below(3) {
        0 => spoil_key(draw, file),
        _ => spoil_tensor(draw, file),
    }
}

fn spoil_key(draw: &mut Draw, file: &mut Pieces) {
    let at = draw.below(file.keys.len());
    match draw.below(9) {
        0 => drop(file.keys.remove(at)),
        1 => file.keys.insert(at, file.keys[at].clone()),
        2 => file.keys[at].0 = (*draw.pick(NAMES)).to_owned(),
        3 => file.keys[at].0 = text(draw),
        4 => {
            let value = string(&text(draw));
            file.keys[at].1 = STRING;
            file.keys[at].2 = value;
        }
        5 => {
            file.keys[at].1 = *draw.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 255]);
            file.keys[at].2 = draw.number().to_le_bytes()[..*draw.pick(&[1, 2, 4, 8])].to_vec();
        }
        6 => {
            let values: Vec<String> = (0..draw.below(40)).map(|_| text(draw)).collect();
            file.keys[at].1 = ARRAY;
            file.keys[at].2 = strings(&values);
        }
        7 => {
            let mut raw = (*draw.pick(&[0u32, 4, 6, 8, 9, 12])).to_le_bytes().to_vec();
            raw.extend(draw.number().to_le_bytes());
            raw.extend((0..draw.below(64)).map(|_| draw.byte()));
            file.keys[at].1 = ARRAY;
            file.keys[at].2 = raw;
        }
        _ => {
            let len = file.keys[at].2.len();
            damage(draw, &mut file.keys[at].2, len);
        }
    }
}

fn spoil_tensor(draw: &mut Draw, file: &mut Pieces) {
    let at = draw.below(file.tensors.len());
    let other = draw.below(file.tensors.len());
    match draw.below(10) {
        0 => drop(file.tensors.remove(at)),
        1 => file.tensors.insert(at, file.tensors[at].clone()),
        2 => file.tensors[at].name = (*draw.pick(NAMES)).to_owned(),
        3 => file.tensors[at].name = text(draw),
        4 => {
            file.tensors[at].kind = *draw.pick(&[
                0, 1, 2, 3, 6, 8, 12, 14, 20, 23, 30, 34, 35, 36, 38, 39, 41, 42, 134, 135, 142,
                143, 335, 999,
            ])
        }
        5 => file.tensors[at].offset = draw.number(),
        6 => {
            let dims = &mut file.tensors[at].dims;
            match draw.below(3) {
                0 => dims.push(draw.number()),
                1 => drop(dims.pop()),
                _ => dims
                    .iter_mut()
                    .for_each(|d| *d = d.wrapping_mul(draw.below(4) as u64)),
            }
        }
        7 => {
            let number = draw.number();
            if let Some(d) = file.tensors[at].dims.first_mut() {
                *d = number;
            }
        }
        8 => file.tensors.swap(at, other),
        _ => {
            let len = file.tensors[at].bytes.len();
            damage(draw, &mut file.tensors[at].bytes, len);
        }
    }
}

/// One execution.
///
/// # Errors
/// What was found.
pub fn run(draw: &mut Draw) -> Result<(), String> {
    let mut file = draw.pick(right()).clone();
    for _ in 0..1 + draw.below(3) {
        if !file.keys.is_empty() && !file.tensors.is_empty() {
            spoil(draw, &mut file);
        }
    }
    if draw.one_in(40) {
        file.version = draw.number() as u32;
    }
    let mut counts = [file.tensors.len() as u64, file.keys.len() as u64];
    if draw.one_in(20) {
        counts[draw.below(2)] = draw.number();
    }
    let mut bytes = file.emit(counts[0], counts[1]);
    if draw.one_in(4) {
        let head = if draw.one_in(2) { 1500 } else { bytes.len() };
        damage(draw, &mut bytes, head);
    }
    let options = OpenOptions {
        absmean: draw.one_in(3),
        ..OpenOptions::default()
    };
    match format::open_bytes("m.gguf", bytes, &options) {
        Err(e) => readable(&e),
        Ok(model) => use_model(draw, &model),
    }
}

/// Everything that a user's command would ask of the model.
pub(super) fn use_model(draw: &mut Draw, model: &Model) -> Result<(), String> {
    let decode = || -> Result<(), LoadError> {
        for id in model.linear_ids() {
            model.ternary(id)?;
        }
        model.ternary_head()?;
        Ok(())
    };
    if let Err(e) = decode() {
        readable(&e)?;
    }
    let config = model.config();
    let mut row = vec![0f32; config.hidden];
    model.embed(0, &mut row);
    model.embed(config.vocab - 1, &mut row);
    if model.ternary_head_shape().is_none() {
        model.head().row_to_f32(config.vocab - 1, &mut row);
    }
    if bitnet_runtime::inspect::inspect(model)
        .to_string()
        .is_empty()
    {
        return Err("nothing was inspected".into());
    }
    let vocabulary = match model.vocabulary() {
        Err(e) => return readable(&e),
        Ok(vocabulary) => vocabulary,
    };
    match Tokenizer::of(&vocabulary, config.vocab, None) {
        Err(e) => readable(&e),
        Ok(tokenizer) => tokenizer::use_tokenizer(draw, &tokenizer),
    }
}
