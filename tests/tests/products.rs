//! What the tuner measures is what an engine runs: the same products, whatever the scales allow to be stacked.

use bitnet_codegen::{Features, Groups, Scales, TernaryMatrix};
use bitnet_runtime::engine::{Engine, EngineOptions};
use bitnet_runtime::format::dtype::TernaryType;
use bitnet_runtime::format::ternary::pack::pack;
use bitnet_runtime::format::{self, GgufWriter, Model, OpenOptions, TokenizerSource};
use bitnet_runtime::graph::{Product, Weight};
use bitnet_runtime::network::kernels::Kernels;
use bitnet_runtime::pool::Pool;
use bitnet_runtime::profile::Profile;
use bitnet_runtime::synth::{self, SHAPES, Shape, TableOptions};
use bitnet_tests::{assert_fails, data, stdout, workspace};
use bitnet_tune::shapes::Shapes;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The products that an engine of this model asks kernels for.
fn run(model: Model) -> BTreeSet<Product> {
    let pool = Arc::new(Pool::new(1).expect("one thread"));
    let mut kernels = Kernels::new(Features::detect(), Profile::default());
    let options = EngineOptions::default();
    let engine = Engine::new(Arc::new(model), pool, &mut kernels, &options).expect("an engine");
    let used = engine.kernels().iter();
    let groups = |spec| Groups::of(spec).expect("a kernel's own name");
    assert!(
        used.clone()
            .all(|((p, _), choice)| p.groups == groups(&choice.spec))
    );
    used.map(|((product, _), _)| *product).collect()
}

/// The fixture in Q2_0, where every 64 columns of a row have a scale of their own; `layers` says which layers.
fn group_scaled(dir: &Path, layers: &[usize]) -> PathBuf {
    let fixture = data().join("tiny/tiny_llama.gguf");
    let model = format::open(&fixture, &OpenOptions::default()).expect("the fixture opens");
    let c = model.config();
    let mut w = GgufWriter::default();
    let TokenizerSource::Gguf(metadata) = model.tokenizer_source() else {
        panic!("a GGUF file has keys")
    };
    assert_eq!(
        metadata.str("general.architecture").expect("a text"),
        Some("llama")
    );
    let key = |name: &str| format!("llama.{name}");
    w.str("general.architecture", "llama");
    w.u32(&key("context_length"), c.context_len);
    w.u32(&key("embedding_length"), c.hidden);
    w.u32(&key("block_count"), c.n_layers);
    w.u32(&key("feed_forward_length"), c.ffn);
    w.u32(&key("attention.head_count"), c.n_heads);
    w.u32(&key("attention.head_count_kv"), c.n_kv_heads);
    w.u32(&key("vocab_size"), c.vocab);
    w.f32(&key("attention.layer_norm_rms_epsilon"), c.norm_eps);
    let mut tensors = Vec::new();
    for weight in c.weights() {
        let (type_id, bytes) = match weight {
            Weight::Embedding => (
                model.embedding().dtype.ggml_id(),
                model.embedding().bytes.to_vec(),
            ),
            Weight::Head => (model.head().dtype.ggml_id(), model.head().bytes.to_vec()),
            Weight::Norm(norm) => {
                let values = model.norm(norm).expect("a norm");
                (0, values.iter().flat_map(|v| v.to_le_bytes()).collect())
            }
            Weight::Projection(id) => {
                let m = model.ternary(id).expect("a projection");
                let groups = m.n() * m.k().div_ceil(64);
                let scales = match layers.contains(&id.layer) {
                    true => Scales::Group {
                        group_k: 64,
                        scales: (0..groups).map(|g| [0.5, 0.25, 0.75][g % 3]).collect(),
                    },
                    false => m.scales().clone(),
                };
                let m = TernaryMatrix::from_rows(m.n(), m.k(), scales, |r, row| {
                    m.unpack_row(r, row);
                    Ok::<_, bitnet_codegen::trit::TritError>(())
                })
                .expect("trits");
                let id = TernaryType::Q2_0.ggml_id().expect("a GGUF type");
                (id, pack(TernaryType::Q2_0, &m, 128, None))
            }
        };
        let name = format!("{}.weight", c.architecture.gguf(weight));
        tensors.push((name, c.dims(weight), type_id, bytes));
    }
    for (name, dims, type_id, bytes) in &tensors {
        w.tensor(name, dims, *type_id, bytes.len());
    }
    let path = dir.join("groups.gguf");
    let mut file = w.create(&path).expect("created");
    for (.., bytes) in &tensors {
        file.tensor(|sink| sink.write_all(bytes)).expect("written");
    }
    file.finish().expect("finished");
    path
}

#[test]
fn the_tuner_measures_the_products_that_an_engine_runs() {
    let dir = tempfile::tempdir().expect("a folder");
    let tiny = data().join("tiny");
    let mut paths = vec![tiny.join("tiny_b158.gguf"), tiny.join("tiny_llama_hf")];
    for (i, layers) in [&[0usize, 1] as &[usize], &[1]].into_iter().enumerate() {
        let sub = dir.path().join(i.to_string());
        std::fs::create_dir(&sub).expect("made");
        paths.push(group_scaled(&sub, layers));
    }
    // A head and shards with products of their own, layers that have none.
    let parity = workspace().join("tests/parity/fixtures");
    paths.extend(["1-head-converted", "1-packed", "3-shards"].map(|name| parity.join(name)));
    let qwen3 = workspace().join("tests/parity/qwen3");
    paths.extend(["q2-g64", "pq2", "ptq1"].map(|name| qwen3.join(name).join("model.gguf")));
    paths.push(qwen3.join("floats"));
    let (mut split, mut grouped) = (0, 0);
    for path in paths {
        let model = format::open(&path, &OpenOptions::default()).expect("it opens");
        let shapes = Shapes::of_model(&model).expect("readable scales");
        let tuned: BTreeSet<_> = shapes.distinct.iter().copied().collect();
        let narrowest = model.config().hidden;
        grouped += usize::from(tuned.iter().any(|p| p.groups.is_some()));
        split += usize::from(tuned.iter().any(|p| p.k < narrowest));
        let ternary = model
            .linear_ids()
            .filter(|&id| model.float_projection(id).is_none());
        let weights: usize = ternary
            .map(|id| model.config().linear_shape(id.projection))
            .chain(model.ternary_head_shape())
            .map(|(n, k)| n * k)
            .sum();
        assert_eq!(shapes.weights, weights, "{}", path.display());
        assert_eq!(tuned, run(model), "{}", path.display());
    }
    assert_eq!(
        grouped, 6,
        "two models of one scale a block, and those of qwen3"
    );
    assert_eq!(
        split, 1,
        "one of the models has products of groups of columns, finer than kernels with groups take"
    );
}

/// The published shapes: what is tuned by name is what a model of that name runs, for each architecture.
#[test]
fn the_tuner_measures_the_products_of_a_shape() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut architectures = BTreeSet::new();
    for name in ["tiny", "large", "falcon-e-1b", "bonsai-1.7b"] {
        let shape = Shape::find(name).expect("a published shape");
        architectures.insert(shape.config.architecture.name);
        let path = dir.path().join(name);
        let table = TableOptions::default();
        synth::write(&path, shape, 0, Some(1), table, &mut |_, _| true).expect("written");
        let model = format::open(&path, &OpenOptions::default()).expect("it opens");
        let tuned = Shapes::of_shape(shape).distinct;
        let of_model = Shapes::of_model(&model).expect("readable scales").distinct;
        assert_eq!(tuned, of_model, "{name}");
        let tuned: BTreeSet<_> = tuned.into_iter().collect();
        assert_eq!(tuned, run(model), "{name}");
    }
    let published = SHAPES.iter().map(|s| s.config.architecture.name);
    assert_eq!(architectures, published.collect());
}

/// A model whose products all have groups, through the binaries: tuned, told, verified, and run as it was tuned.
#[test]
fn products_with_groups_are_tuned_as_they_run() {
    let dir = tempfile::tempdir().expect("a folder");
    let profile = dir.path().join("p.toml");
    let p = profile.to_str().expect("UTF-8");
    let path = workspace().join("tests/parity/qwen3/pq2/model.gguf");
    let model = path.to_str().expect("UTF-8");
    let tune = ["tune", "-m", model, "--m", "1,128", "-t", "1", "--budget"];
    stdout(&bitnet_tests::run(
        "bitnet-tune",
        &[&tune[..], &["6", "-o", p]].concat(),
    ));
    let tuned = bitnet_runtime::profile::read(&profile).expect("a profile");
    let products: BTreeSet<Product> = tuned.entries.iter().map(|e| e.product()).collect();
    let opened = format::open(&path, &OpenOptions::default()).expect("it opens");
    assert_eq!(products, run(opened));
    assert!(products.iter().all(|p| p.groups.is_some()));

    let json = |name, args: &[&str]| -> Value {
        let told = bitnet_tests::run(name, &[args, &["--json"]].concat());
        serde_json::from_str(&stdout(&told)).expect("JSON")
    };
    let verified = json("bitnet-tune", &["verify", p]);
    let verdicts = verified.as_array().expect("a list");
    assert!(verdicts.len() == tuned.entries.len() && verdicts.iter().all(|v| v["exact"] == true));
    let shown = json("bitnet-tune", &["show", p]);
    let group = products.iter().next().and_then(|p| p.groups);
    let group = group.expect("groups").scales.k;
    assert_eq!(shown["kernels"][0]["group"], group);
    let explained = stdout(&bitnet_tests::run("bitnet-tune", &["explain", p]));
    let scales = format!("a scale for each {group} columns");
    assert!(explained.contains(&scales), "{explained}");

    let bench = ["bench", "-m", model, "-p", "16", "-n", "4", "-r", "1"];
    let bench = [&bench[..], &["-t", "1", "--profile", p]].concat();
    let bench = json("bitnet-run", &bench);
    let kernels = bench[1]["kernels"].as_object().expect("kernels");
    let decode: BTreeSet<&str> = tuned
        .entries
        .iter()
        .filter(|e| e.bucket.first == 1)
        .map(|e| {
            kernels[&format!("{}x{}x1", e.n, e.k)]
                .as_str()
                .expect("a name")
        })
        .collect();
    let won = tuned.entries.iter().filter(|e| e.bucket.first == 1);
    let won: Vec<String> = won.map(|e| e.spec.to_string()).collect();
    assert_eq!(decode, won.iter().map(String::as_str).collect());
}

/// One product of groups on the command line, without a model.
#[test]
fn kernels_with_groups_are_listed_and_timed() {
    let shape = ["--n", "70", "--k", "256", "--group", "64", "--acts", "i8"];
    let listed = bitnet_tests::run("bitnet-tune", &[&["list"], &shape[..]].concat());
    let names = stdout(&listed);
    assert!(names.contains("-g64-") && names.contains("-p1-"), "{names}");
    let time = ["--hot", "-t", "1", "--samples", "3", "--budget", "1"];
    let timed = bitnet_tests::run("bitnet-tune", &[&["kernel"], &shape[..], &time].concat());
    let text = stdout(&timed);
    let name = text.lines().next().expect("a name");
    assert!(
        name.contains("-g64-") && text.contains("verified"),
        "{text}"
    );
    let one = [
        &["kernel", "--n", "70", "--k", "256", "--spec", name],
        &time[..5],
    ]
    .concat();
    assert!(stdout(&bitnet_tests::run("bitnet-tune", &one)).starts_with(name));
    for (args, words) in [
        (&["list", "--group", "100"][..], "groups of 100 columns"),
        (&["kernel", "--group", "32", "--spec", name], "other groups"),
    ] {
        assert_fails(&bitnet_tests::run("bitnet-tune", args), 1, &[words]);
    }
}
