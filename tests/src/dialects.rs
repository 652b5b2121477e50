//! Small models in dialects that the repository does not ship as files: written from the fixtures and the demo model.

use bitnet_codegen::Scales;
use bitnet_runtime::format::dtype::TernaryType;
use bitnet_runtime::format::float::FloatType;
use bitnet_runtime::format::ternary::pack::pack;
use bitnet_runtime::format::{self, GgufWriter, OpenOptions};
use bitnet_runtime::format::{FloatTensor, Model};
use bitnet_runtime::graph::{Norm, TensorId, Weight};
use safetensors::{Dtype, tensor::TensorView};
use std::fs;
use std::path::{Path, PathBuf};

/// Every dialect, written below `dir`; the paths to open.
///
/// # Panics
/// When a file cannot be written.
pub fn write_all(dir: &Path) -> Vec<PathBuf> {
    vec![master_folder(dir), tq2_0_file(dir)]
}

fn linears(model: &Model) -> Vec<TensorId> {
    model.linear_ids().collect()
}

fn norms(model: &Model) -> Vec<Norm> {
    let norm = |weight| match weight {
        Weight::Norm(norm) => Some(norm),
        _ => None,
    };
    model.config().weights().filter_map(norm).collect()
}

/// The demo model with TQ2_0 projections: its K are multiples of 256, as that type wants.
fn tq2_0_file(dir: &Path) -> PathBuf {
    let path = dir.join("demo-tq2_0.gguf");
    let model = bitnet_runtime::demo::open(&OpenOptions::default()).expect("the demo model");
    let c = model.config();
    let mut w = GgufWriter::default();
    let arch = c.architecture.name;
    let key = |k: &str| format!("{arch}.{k}");
    w.str("general.architecture", arch);
    w.u32(&key("context_length"), c.context_len);
    w.u32(&key("embedding_length"), c.hidden);
    w.u32(&key("block_count"), c.n_layers);
    w.u32(&key("feed_forward_length"), c.ffn);
    w.u32(&key("attention.head_count"), c.n_heads);
    w.u32(&key("attention.head_count_kv"), c.n_kv_heads);
    w.u32(&key("vocab_size"), c.vocab);
    w.f32(&key("attention.layer_norm_rms_epsilon"), c.norm_eps);
    w.f32(&key("rope.freq_base"), c.rope.theta);
    let table: FloatTensor<'_> = model.embedding();
    let mut parts: Vec<(String, Vec<usize>, u32, Vec<u8>)> = vec![(
        "token_embd.weight".into(),
        vec![table.rows, table.cols],
        table.dtype.ggml_id(),
        table.bytes.to_vec(),
    )];
    for n in norms(&model) {
        let v = model.norm(n).expect("a norm");
        let bytes = v.iter().flat_map(|x| x.to_le_bytes()).collect();
        parts.push((
            format!("{n}.weight"),
            vec![v.len()],
            FloatType::F32.ggml_id(),
            bytes,
        ));
    }
    for id in linears(&model) {
        let m = model.ternary(id).expect("a projection");
        let type_id = TernaryType::TQ2_0.ggml_id().expect("a GGUF type");
        parts.push((
            format!("{id}.weight"),
            vec![m.n(), m.k()],
            type_id,
            pack(TernaryType::TQ2_0, &m, 128, None),
        ));
    }
    for (name, dims, type_id, bytes) in &parts {
        w.tensor(name, dims, *type_id, bytes.len());
    }
    let mut file = w.create(&path).expect("created");
    for (_, _, _, bytes) in &parts {
        file.tensor(|out| out.write_all(bytes)).expect("written");
    }
    file.finish().expect("finished");
    path
}

/// The tiny BitNet fixture as float master weights, to be quantised on load.
fn master_folder(dir: &Path) -> PathBuf {
    let tiny = crate::data().join("tiny/tiny_b158_hf");
    let folder = dir.join("tiny-master");
    fs::create_dir(&folder).expect("made");
    let config = fs::read_to_string(tiny.join("config.json")).expect("config.json");
    assert!(
        config.contains("offline"),
        "the fixture is quantised: {config}"
    );
    fs::write(
        folder.join("config.json"),
        config.replace("offline", "online"),
    )
    .expect("written");
    let model = format::open(&tiny, &OpenOptions::default()).expect("the fixture opens");
    let hf = |weight| {
        let mut names = model.config().architecture.hf(weight);
        names.next().expect("a name") + ".weight"
    };
    let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    for id in linears(&model) {
        let m = model.ternary(id).expect("a projection");
        let Scales::Tensor(scale) = *m.scales() else {
            panic!("one scale")
        };
        let values = (0..m.n() * m.k())
            .map(|i| f32::from(m.trit(i / m.k(), i % m.k())) * scale)
            .collect();
        tensors.push((hf(Weight::Projection(id)), vec![m.n(), m.k()], values));
    }
    for n in norms(&model) {
        let v = model.norm(n).expect("a norm");
        tensors.push((hf(Weight::Norm(n)), vec![v.len()], v));
    }
    let table = model.embedding();
    let mut values = vec![0f32; table.rows * table.cols];
    for (r, row) in values.chunks_exact_mut(table.cols).enumerate() {
        table.row_to_f32(r, row);
    }
    tensors.push((hf(Weight::Embedding), vec![table.rows, table.cols], values));
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(n, s, v)| (n, s, v.iter().flat_map(|x| x.to_le_bytes()).collect()))
        .collect();
    let views = bytes.iter().map(|(n, s, b)| {
        (
            n.clone(),
            TensorView::new(Dtype::F32, s.clone(), b).expect("bytes of the shape"),
        )
    });
    safetensors::serialize_to_file(views, None, &folder.join("model.safetensors"))
        .expect("written");
    folder
}
