//! A safetensors file and its config.json: the header and the configuration as trees, the data as bytes.

use super::draw::Draw;
use super::gguf::use_model;
use super::json::spoil;
use super::readable;
use super::seeds::{Sizes, floats, packed};
use super::text::damage;
use bitnet_runtime::format::dtype::TernaryType;
use bitnet_runtime::format::{self, OpenOptions};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

/// A folder in pieces.
#[derive(Clone)]
struct Pieces {
    config: Value,
    header: Value,
    data: Vec<u8>,
}

fn hf_name(gguf: &str) -> &'static str {
    match gguf {
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        _ => "mlp.down_proj",
    }
}

impl Pieces {
    /// A right folder: packed as BitNet's, or with float masters.
    fn new(sub_norms: bool, is_packed: bool) -> Self {
        let sizes = Sizes::SMALL;
        let mut this = Self {
            config: config(sizes, sub_norms, is_packed),
            header: Value::Object(Map::new()),
            data: Vec::new(),
        };
        this.tensor(
            "model.embed_tokens.weight",
            "F32",
            &[sizes.vocab, sizes.hidden],
            floats(sizes.vocab * sizes.hidden),
        );
        this.tensor(
            "model.norm.weight",
            "F32",
            &[sizes.hidden],
            vec![1.0; sizes.hidden],
        );
        let mut norms = vec![
            ("input_layernorm", sizes.hidden),
            ("post_attention_layernorm", sizes.hidden),
        ];
        if sub_norms {
            norms.extend([
                ("self_attn.attn_sub_norm", sizes.heads * sizes.head_dim),
                ("mlp.ffn_sub_norm", sizes.ffn),
            ]);
        }
        for (name, n) in norms {
            this.tensor(
                &format!("model.layers.0.{name}.weight"),
                "F32",
                &[n],
                vec![1.0; n],
            );
        }
        for (name, n, k) in sizes.projections() {
            let name = format!("model.layers.0.{}", hf_name(name));
            if is_packed {
                this.bytes(
                    &format!("{name}.weight"),
                    "U8",
                    &[n / 4, k],
                    &packed(TernaryType::HfPacked, n, k)[..n / 4 * k],
                );
                this.tensor(&format!("{name}.weight_scale"), "F32", &[1], vec![1.5]);
            } else {
                this.tensor(&format!("{name}.weight"), "F32", &[n, k], floats(n * k));
            }
        }
        this
    }

    fn bytes(&mut self, name: &str, dtype: &str, shape: &[usize], bytes: &[u8]) {
        let at = self.data.len();
        self.data.extend(bytes);
        self.header[name] =
            json!({"dtype": dtype, "shape": shape, "data_offsets": [at, self.data.len()]});
    }

    fn tensor(&mut self, name: &str, dtype: &str, shape: &[usize], values: Vec<f32>) {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.bytes(name, dtype, shape, &bytes);
    }
}

fn config(sizes: Sizes, sub_norms: bool, is_packed: bool) -> Value {
    let (class, kind, act) = match sub_norms {
        true => ("BitNetForCausalLM", "bitnet", "relu2"),
        false => ("LlamaForCausalLM", "llama", "silu"),
    };
    json!({
        "architectures": [class], "model_type": kind, "hidden_act": act,
        "hidden_size": sizes.hidden, "intermediate_size": sizes.ffn, "num_hidden_layers": 1,
        "num_attention_heads": sizes.heads, "num_key_value_heads": sizes.kv_heads, "head_dim": sizes.head_dim,
        "vocab_size": sizes.vocab, "max_position_embeddings": 64, "rope_theta": 10000.0, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": [2], "torch_dtype": "bfloat16",
        "rope_scaling": null,
        "quantization_config": {
            "quant_method": "bitnet", "linear_class": "autobitlinear", "modules_to_not_convert": ["lm_head"],
            "quantization_mode": if is_packed { "offline" } else { "online" },
        },
    })
}

fn right() -> &'static [Pieces] {
    static RIGHT: OnceLock<Vec<Pieces>> = OnceLock::new();
    RIGHT.get_or_init(|| {
        [(true, true), (true, false), (false, true), (false, false)]
            .map(|(sub_norms, is_packed)| Pieces::new(sub_norms, is_packed))
            .to_vec()
    })
}

/// Keys and texts that mean something in the two documents.
const KNOWN: &[&str] = &[
    "F16",
    "F32",
    "BF16",
    "U8",
    "I64",
    "F8_E4M3",
    "BOOL",
    "dtype",
    "shape",
    "data_offsets",
    "__metadata__",
    "lm_head.weight",
    "model.layers.0.self_attn.q_proj.weight_scale",
    "model.layers.1.mlp.up_proj.weight",
    "model.layers.0.self_attn.q_proj.bias",
    "model.layers.0.self_attn.q_proj.rms_norm.weight",
    "rope_scaling",
    "rope_type",
    "type",
    "factor",
    "llama3",
    "yarn",
    "linear",
    "dynamic",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
    "rope_parameters",
    "quantization_config",
    "quant_method",
    "linear_class",
    "bitlinear",
    "autobitlinear",
    "online",
    "offline",
    "use_rms_norm",
    "modules_to_not_convert",
    "model.layers.0",
    "self_attn",
    "lm_head",
    "Qwen3ForCausalLM",
    "qwen3",
    "MistralForCausalLM",
    "silu",
    "gelu",
    "relu2",
    "attention_bias",
    "mlp_bias",
    "sliding_window",
    "tie_word_embeddings",
    "head_dim",
    "pretraining_tp",
];

/// The folder of this process, in memory where the system has such a place.
fn own_folder() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let within = if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    };
    within.join(format!("bitnet-fuzz-{}", std::process::id()))
}

/// A place in the folder of this process.
pub(super) fn scratch(name: &str) -> PathBuf {
    own_folder().join(name)
}

/// Removes what the executions of this process wrote, and nothing of any other.
pub fn clean() {
    let _ = fs::remove_dir_all(own_folder());
}

/// Where a model is written anew for every execution.
fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = scratch("model");
        fs::create_dir_all(&folder).expect("a folder for the files");
        folder
    })
}

/// One execution.
///
/// # Errors
/// What was found.
pub fn run(draw: &mut Draw) -> Result<(), String> {
    let mut pieces = draw.pick(right()).clone();
    for _ in 0..1 + draw.below(3) {
        match draw.below(5) {
            0 | 1 => spoil(draw, &mut pieces.config, KNOWN),
            2 | 3 => spoil(draw, &mut pieces.header, KNOWN),
            _ => {
                let len = pieces.data.len();
                damage(draw, &mut pieces.data, len);
            }
        }
    }
    let header = pieces.header.to_string();
    let length = match draw.one_in(30) {
        true => draw.number(),
        false => header.len() as u64,
    };
    let mut file = length.to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(&pieces.data);
    let mut config = pieces.config.to_string().into_bytes();
    if draw.one_in(8) {
        let head = config.len();
        damage(draw, &mut config, head);
    }
    let folder = folder();
    fs::write(folder.join("model.safetensors"), file).map_err(|e| e.to_string())?;
    fs::write(folder.join("config.json"), config).map_err(|e| e.to_string())?;
    let options = OpenOptions {
        absmean: draw.one_in(3),
        ..OpenOptions::default()
    };
    match format::open(folder, &options) {
        Err(e) => readable(&e),
        Ok(model) => use_model(draw, &model),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaning_removes_the_folder_of_this_process_alone() {
        let parent = own_folder().parent().expect("a parent").to_owned();
        let beside = tempfile::tempdir_in(parent).expect("a folder");
        fs::create_dir_all(scratch("something")).expect("a folder");
        clean();
        assert!(!own_folder().exists());
        assert!(beside.path().exists(), "what another process wrote is gone");
    }
}
