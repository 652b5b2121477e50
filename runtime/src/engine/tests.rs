//! The reference fixtures (GGUF and Hugging Face), and bit-identity over kernels, threads and batches.
//!
//! Longer than 500 lines: a list of digests and of what must give them.

use super::*;
use crate::demo;
use crate::format::{self, OpenOptions};
use crate::graph::{Projection, TensorId};
use crate::logits::{Logits, Top, Wanted};
use crate::network::estimates::default_spec;
use crate::network::head::HeadForm;
use crate::profile::Profile;
use bitnet_codegen::backend;
use bitnet_codegen::variant::VARIANTS;
use bitnet_codegen::{Activations, Features, Groups, Isa, KernelSpec, plan};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Mutex;

mod grouped;

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/tiny");

fn open(name: &str) -> Arc<Model> {
    let path = Path::new(TINY).join(name);
    Arc::new(format::open(&path, &OpenOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}")))
}

/// With keys and values as they are computed, which all digests but [`LONG_DIGESTS`] are of.
fn engine(model: &Arc<Model>, threads: usize, kernels: &mut Kernels, batch: usize) -> Engine {
    let pool = Arc::new(Pool::new(threads).expect("threads"));
    let options = EngineOptions {
        batch: Some(batch),
        kv: KvType::F32,
        ..EngineOptions::default()
    };
    Engine::new(Arc::clone(model), pool, kernels, &options).expect("the fixture loads")
}

fn estimated() -> Kernels {
    Kernels::new(Features::detect(), Profile::default())
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

fn numbers(v: &Value) -> Vec<f64> {
    v.as_array()
        .expect("a list")
        .iter()
        .map(|x| x.as_f64().expect("a number"))
        .collect()
}

fn ids(v: &Value) -> Vec<u32> {
    numbers(v).into_iter().map(|x| x as u32).collect()
}

fn greedy(logits: &[f32]) -> u32 {
    (0..logits.len())
        .max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)))
        .expect("logits") as u32
}

/// Name, digest of the int8 input, digest of the i32 sums.
type Trace = Arc<Mutex<Vec<(String, String, String)>>>;

fn tracing(trace: &Trace) -> Tap {
    let trace = Arc::clone(trace);
    Box::new(move |id: TensorId, acts: &Activations, acc: &[i32]| {
        let q: Vec<u8> = (0..acts.m)
            .flat_map(|t| {
                acts.q[t * acts.k_padded..][..acts.k]
                    .iter()
                    .map(|&q| q as u8)
            })
            .collect();
        let acc: Vec<u8> = acc.iter().flat_map(|v| v.to_le_bytes()).collect();
        trace
            .lock()
            .expect("one listener")
            .push((id.to_string(), sha256(&q), sha256(&acc)));
    })
}

fn check_fixture(name: &str, expected: &Value) {
    let model = open(name);
    let mut engine = engine(&model, 2, &mut estimated(), BATCH);
    let trace = Trace::default();
    engine.set_tap(Some(tracing(&trace)));
    let prompt = ids(&expected["prompt"]);
    let mut sums = Vec::new();
    let mut last = Vec::new();
    engine
        .run(&prompt, 0, |_, logits| {
            sums.push(logits.iter().map(|&v| v as f64).sum::<f64>());
            last = logits.to_vec();
        })
        .expect("the prompt fits");
    engine.set_tap(None);
    let got = trace.lock().expect("one listener");
    let want = expected["int_trace"].as_array().expect("a trace");
    assert_eq!(got.len(), want.len(), "{name}: projections");
    for want in want {
        let tensor = want["name"].as_str().expect("a name");
        let got = got
            .iter()
            .find(|g| g.0 == tensor)
            .unwrap_or_else(|| panic!("{name}: no {tensor}"));
        assert_eq!(
            Some(got.1.as_str()),
            want["q_sha256"].as_str(),
            "{name}: int8 input of {tensor}"
        );
        assert_eq!(
            Some(got.2.as_str()),
            want["acc_sha256"].as_str(),
            "{name}: sums of {tensor}"
        );
    }
    let wanted = numbers(&expected["logits_last"]);
    assert_eq!(last.len(), wanted.len());
    for (i, (got, want)) in last.iter().zip(&wanted).enumerate() {
        assert!(
            (*got as f64 - want).abs() <= 1e-4,
            "{name}: logit {i} is {got}, not {want}"
        );
    }
    for (i, (got, want)) in sums
        .iter()
        .zip(numbers(&expected["logit_sums_per_pos"]))
        .enumerate()
    {
        assert!(
            (got - want).abs() <= 1e-4 * last.len() as f64,
            "{name}: sum at {i} is {got}, not {want}"
        );
    }
    let mut token = greedy(&last);
    let mut generated = vec![token];
    while generated.len() < 4 {
        token = greedy(engine.decode(token).expect("room"));
        generated.push(token);
    }
    assert_eq!(
        generated,
        ids(&expected["greedy4"]),
        "{name}: greedy tokens"
    );
}

fn expected() -> Value {
    let text =
        std::fs::read_to_string(Path::new(TINY).join("expected.json")).expect("expected.json");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn fixtures_are_reproduced_from_gguf_and_from_hugging_face() {
    let expected = expected();
    check_fixture("tiny_b158.gguf", &expected["b158"]);
    check_fixture("tiny_b158_hf", &expected["b158"]);
    check_fixture("tiny_llama.gguf", &expected["llama"]);
    check_fixture("tiny_llama_hf", &expected["llama"]);
}

/// The digest of all logits of 40 tokens, taken in runs of `run`.
fn digest(engine: &mut Engine, run: usize) -> String {
    digest_of(engine, 40, run)
}

/// The digest of all logits of `count` tokens, taken in runs of `run`.
fn digest_of(engine: &mut Engine, count: u32, run: usize) -> String {
    let vocab = engine.n_vocab() as u32;
    let tokens: Vec<u32> = (0..count).map(|i| (i * 97 + 13) % vocab).collect();
    let mut hash = Sha256::new();
    engine.reset();
    for tokens in tokens.chunks(run) {
        engine
            .run(tokens, 0, |_, logits| {
                hash.update(bytemuck::cast_slice::<f32, u8>(logits))
            })
            .expect("the tokens fit");
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// The digests of what the models answer. A change of these is a change of every logit that anyone has recorded.
const DIGESTS: [(&str, &str); 3] = [
    (
        "demo",
        "e4500cca7c2a97f0ebd40e8f707c2a09f6e881acdb40742d58c69b715c01f1ea",
    ),
    (
        "tiny_b158.gguf",
        "b8311b44adc0842cb363eb9ab9609977cc32ab23f783056144642b44f2005268",
    ),
    (
        "tiny_llama.gguf",
        "c5d18b1ef8524f3e0c64848251202896015af72ba27d868d23138b3a09c92616",
    ),
];

/// As [`DIGESTS`], of 300 tokens of the demo model with each type of keys and values: several pages, and attention
/// that is shared out.
const LONG_DIGESTS: [(KvType, &str); 3] = [
    (
        KvType::F32,
        "a6d14e7b482d1f4dcca652333fae9a7da57340560e4efb2dd44c3a99e02389f8",
    ),
    (
        KvType::F16,
        "8e3351c2d7324f70b9568e6bc939bd78b8af7d7dc30f26f0719a7963434790ed",
    ),
    (
        KvType::Q8_0,
        "d2ea4f95a8cb47e5adf5ba1fbd947141907f77778906f8ad29985a5a6ca58e12",
    ),
];

#[test]
fn long_contexts_give_the_recorded_bits_of_each_type_of_keys_and_values() {
    let (model, _) = recorded("demo");
    let mut wrong = Vec::new();
    for (kv, want) in LONG_DIGESTS {
        for (threads, batch, run) in [(1, 128, 300), (3, 128, 300), (2, 128, 1), (7, 17, 64)] {
            let pool = Arc::new(Pool::new(threads).expect("threads"));
            let options = EngineOptions {
                kv,
                batch: Some(batch),
                ..EngineOptions::default()
            };
            let mut engine = Engine::new(Arc::clone(&model), pool, &mut estimated(), &options)
                .expect("the demo model loads");
            let got = digest_of(&mut engine, 300, run);
            if got != want {
                wrong.push(format!(
                    "{kv}, {threads} threads, batches of {batch}, runs of {run}: {got}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn recorded(name: &str) -> (Arc<Model>, &'static str) {
    let (_, digest) = DIGESTS
        .iter()
        .find(|(n, _)| *n == name)
        .expect("a recorded digest");
    let model = match name {
        "demo" => Arc::new(demo::open(&OpenOptions::default()).expect("the demo model opens")),
        _ => open(name),
    };
    (model, digest)
}

/// One spec of every family, with group scales or without, on every instruction set of this CPU that has an emitter.
fn specs(groups: Option<Groups>) -> Vec<KernelSpec> {
    let cpu = Features::detect();
    let mut specs = Vec::new();
    for family in VARIANTS {
        for &isa in Isa::ALL {
            if !isa.runs_on(cpu) || backend::for_isa(isa).is_err() {
                println!(
                    "skipped: {} on {isa}, which this CPU or build lacks",
                    family.name()
                );
                continue;
            }
            for m in [1, 8] {
                match default_spec(*family, isa, 64, m, groups) {
                    Some(spec) if plan(&spec, 128).is_ok() => specs.push(spec),
                    _ => println!(
                        "skipped: {} on {isa} for {m} tokens: not offered",
                        family.name()
                    ),
                }
            }
        }
    }
    specs.sort();
    specs.dedup();
    specs
}

/// What of thread counts, batches and runs gives another digest than `want`.
fn other_digests(name: &str, model: &Arc<Model>, want: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for threads in [1, 2, 3, 7] {
        for (batch, run) in [(128, 40), (128, 1), (16, 40), (3, 7), (1, 40)] {
            let got = digest(&mut engine(model, threads, &mut estimated(), batch), run);
            if got != want {
                wrong.push(format!(
                    "{name}: {threads} threads, batches of {batch}, runs of {run}: {got}"
                ));
            }
        }
    }
    wrong
}

/// Forces each of `specs`, of which `least` must run, and compares the digests of its logits with `want`.
fn every_kernel_gives(
    name: &str,
    model: &Arc<Model>,
    specs: &[KernelSpec],
    least: usize,
    want: &str,
) {
    let mut ran = 0;
    for (i, spec) in specs.iter().enumerate() {
        let mut kernels = Kernels::forced(Features::detect(), spec.clone());
        let threads = [1, 2, 3, 7][i % 4];
        let pool = Arc::new(Pool::new(threads).expect("threads"));
        let options = EngineOptions {
            kv: KvType::F32,
            ..EngineOptions::default()
        };
        let mut engine = match Engine::new(Arc::clone(model), pool, &mut kernels, &options) {
            Ok(engine) => engine,
            // An emitter may refuse a family with a reason: an ordinary answer.
            Err(e) => {
                println!("skipped: {e}");
                continue;
            }
        };
        for run in [40, 1, 9] {
            assert_eq!(
                digest(&mut engine, run),
                want,
                "{name} --kernel {spec}, {threads} threads, runs of {run}"
            );
        }
        ran += 1;
    }
    println!("{name}: {ran} kernels gave {want}");
    assert!(ran >= least, "only {ran} kernels ran");
}

#[test]
fn logits_are_the_recorded_bits_for_every_thread_count_and_batch() {
    let all = DIGESTS.map(|(name, _)| {
        let (model, want) = recorded(name);
        other_digests(name, &model, want)
    });
    let wrong = all.concat();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Kernels that must have run on any CPU: the interpreter's, one for each family and form.
const LEAST_KERNELS: usize = 6;

#[test]
fn logits_are_the_recorded_bits_for_every_kernel() {
    for name in ["tiny_b158.gguf", "tiny_llama.gguf"] {
        let (model, want) = recorded(name);
        every_kernel_gives(name, &model, &specs(None), LEAST_KERNELS, want);
    }
}

#[test]
fn wrong_tokens_and_a_full_context_are_named_and_leave_the_engine_usable() {
    let model = open("tiny_b158.gguf");
    let pool = Arc::new(Pool::new(1).expect("a thread"));
    let options = EngineOptions {
        n_ctx: Some(8),
        ..EngineOptions::default()
    };
    let mut engine =
        Engine::new(Arc::clone(&model), pool, &mut estimated(), &options).expect("it loads");
    assert!(matches!(
        engine.run(&[], 0, |_, _| ()),
        Err(EngineError::Step(StepError::Empty))
    ));
    let e = engine
        .run(&[1, 272], 0, |_, _| ())
        .expect_err("out of range");
    assert!(
        e.to_string().contains("272") && e.to_string().contains("index 1"),
        "{e}"
    );
    engine.run(&[1, 2, 3, 4, 5, 6], 0, |_, _| ()).expect("room");
    let e = engine.run(&[7, 8, 9], 0, |_, _| ()).expect_err("full");
    assert!(
        matches!(
            e,
            EngineError::Step(StepError::Full {
                held: 6,
                more: 3,
                n_ctx: 8
            })
        ),
        "{e}"
    );
    engine.run(&[7, 8], 0, |_, _| ()).expect("room for two");
    engine.truncate(6);
    assert_eq!(engine.position(), 6);
    engine.decode(7).expect("room again");
    for n_ctx in [0, usize::MAX] {
        let pool = Arc::new(Pool::new(1).expect("a thread"));
        let options = EngineOptions {
            n_ctx: Some(n_ctx),
            ..EngineOptions::default()
        };
        let e = Engine::new(Arc::clone(&model), pool, &mut estimated(), &options)
            .err()
            .expect("refused");
        assert!(matches!(e, EngineError::Context(_)), "{e}");
    }
}

#[test]
fn a_truncated_context_continues_as_if_the_rest_had_never_been() {
    let model = open("tiny_llama.gguf");
    let mut engine = engine(&model, 2, &mut estimated(), BATCH);
    engine.prefill(&[5, 6, 7, 8, 9, 10]).expect("room");
    engine.truncate(3);
    let again = engine.prefill(&[11, 12]).expect("room").to_vec();
    engine.reset();
    assert_eq!(engine.prefill(&[5, 6, 7, 11, 12]).expect("room"), again);
}

#[test]
fn bytes_per_token_count_weights_head_and_cache() {
    let model = open("tiny_b158.gguf");
    let engine = engine(&model, 1, &mut estimated(), BATCH);
    let c = model.config();
    let ternary: usize = Projection::ALL
        .iter()
        .map(|r| c.linear_shape(*r))
        .map(|(n, k)| n * k)
        .sum();
    let per_token = engine.bytes_per_token(10) - engine.bytes_per_token(0);
    assert_eq!(per_token, 10 * 8 * c.n_layers * c.n_kv_heads * c.head_dim);
    assert!(
        engine.bytes_per_token(0)
            >= c.n_layers * ternary / 5 + engine.head().expect("a head of floats").table_bytes()
    );
    assert_eq!(
        engine.macs_per_token(),
        (c.n_layers * ternary + c.vocab * c.hidden) as u64
    );
}

#[test]
fn every_head_form_gives_the_likeliest_with_exact_logits() {
    let mut screened = 0;
    for name in ["tiny_b158.gguf", "tiny_llama.gguf"] {
        let model = open(name);
        for form in HeadForm::ALL {
            let kernels = Kernels::new(Features::detect(), Profile::default());
            let mut kernels = kernels.with_head(Some(form));
            let pool = Arc::new(Pool::new(2).expect("threads"));
            let options = EngineOptions {
                batch: Some(3),
                ..EngineOptions::default()
            };
            let made = Engine::new(Arc::clone(&model), pool, &mut kernels, &options);
            let mut engine = match made {
                Ok(engine) => engine,
                Err(EngineError::Build(BuildError::Head(why))) => {
                    println!("{name}: {why}");
                    continue;
                }
                Err(other) => panic!("{other}"),
            };
            let tokens: Vec<u32> = (1..24).map(|i| i * 11 % 250).collect();
            for tokens in tokens.chunks(7) {
                let held = engine.position();
                let all = engine.prefill(tokens).expect("room").to_vec();
                engine.truncate(held);
                let also = [5, 200];
                let top = Top {
                    k: 4,
                    among: all.len(),
                    also: &also,
                };
                match engine
                    .prefill_wanted(tokens, &Wanted::Top(top))
                    .expect("room")
                {
                    Logits::All(logits) => assert_eq!(logits, all, "{name} {form}"),
                    Logits::Some(some) => {
                        screened += 1;
                        let same = some
                            .iter()
                            .all(|c| c.logit.to_bits() == all[c.id as usize].to_bits());
                        assert!(same, "{name} {form}");
                        let has = |id: u32| some.iter().any(|c| c.id == id);
                        assert!(
                            also.iter().all(|&id| has(id)) && has(greedy(&all)),
                            "{name} {form}"
                        );
                    }
                }
                assert_eq!(engine.position(), held + tokens.len());
            }
        }
    }
    println!("{screened} answers of likeliest tokens alone");
}
