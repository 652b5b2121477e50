//! The demo model as its card describes it: perplexity, grammar, answers, and a golden text that no kernel changes.

use bitnet_codegen::variant::VARIANTS;
use bitnet_codegen::{Features, Isa, KernelSpec, space};
use bitnet_runtime::chat::{ChatTemplate, Conversation, Role};
use bitnet_runtime::decoder::Decoder;
use bitnet_runtime::generate::{Finish, GenerateParams, Generated, Session};
use bitnet_runtime::network::head::{Head, HeadForm};
use bitnet_runtime::perplexity::{PerplexityParams, perplexity};
use bitnet_runtime::sample::{Sampler, SamplerParams};
use bitnet_runtime::setup::{Ready, Setup};
use bitnet_runtime::tokenizer::{Specials, Tokenizer};
use bitnet_tests::workspace;
use serde_json::Value;
use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

static RUN: AtomicBool = AtomicBool::new(false);

fn asset(name: &str) -> PathBuf {
    workspace().join("runtime/assets/demo").join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(asset(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn heldout() -> Value {
    serde_json::from_str(&text("heldout.json")).expect("JSON")
}

fn load(setup: &Setup) -> (Tokenizer, Ready) {
    let model = setup.open_model().expect("the demo model opens");
    let tokenizer = setup.tokenizer(&model).expect("its tokenizer opens");
    (tokenizer, setup.ready(model).expect("it is ready"))
}

fn generate(
    tokenizer: &Tokenizer,
    ready: &mut Ready,
    prompt: &str,
    n: usize,
    params: SamplerParams,
) -> Generated {
    let ids = tokenizer.encode_prompt(prompt).expect("encodes");
    let mut sampler =
        Sampler::new(params, ready.engine.n_vocab()).expect("parameters are in range");
    Session::new(&mut ready.engine, tokenizer)
        .generate(
            &ids,
            &GenerateParams::new(n),
            &mut sampler,
            &RUN,
            &mut |_| Ok(()),
        )
        .unwrap_or_else(|e| panic!("{prompt:?}: {e}"))
}

fn warm(seed: u64) -> SamplerParams {
    SamplerParams {
        temperature: 0.7,
        seed: Some(seed),
        ..SamplerParams::default()
    }
}

/// The trainer's figure within half a percent, and at most a quarter above the float twin's.
#[test]
fn perplexity_is_the_trainers() {
    let expected = heldout();
    let (tokenizer, mut ready) = load(&Setup::default());
    let mut tokens = tokenizer
        .encode(&text("heldout.txt"), Specials::Parse)
        .expect("encodes");
    let bos = tokenizer.bos().filter(|_| tokenizer.add_bos());
    if bos.is_some() {
        tokenizer.put_bos_first(&mut tokens);
    }
    let params = PerplexityParams {
        n_ctx: 512,
        chunks: None,
        bos,
    };
    let got = perplexity(&mut ready.engine, &tokens, params, &mut |_, _| true).expect("measured");
    let number = |key: &str| {
        expected[key]
            .as_f64()
            .unwrap_or_else(|| panic!("{key} in heldout.json"))
    };
    let (trainer, twin) = (number("ternary_perplexity"), number("twin_perplexity"));
    println!(
        "perplexity {:.4}, trainer {trainer:.4}, float twin {twin:.4}",
        got.perplexity
    );
    assert_eq!(
        got.n_chunks,
        expected["chunks"].as_u64().expect("chunks") as usize
    );
    assert!(
        (got.perplexity / trainer - 1.0).abs() <= 0.005,
        "{} against {trainer}",
        got.perplexity
    );
    assert!(
        got.perplexity <= 1.25 * twin,
        "{} against the twin's {twin}",
        got.perplexity
    );
}

/// The default spec of each family on each instruction set that runs here, and the interpreter.
fn kernels() -> Vec<KernelSpec> {
    let cpu = Features::detect();
    let mut specs = Vec::new();
    for &family in VARIANTS {
        for &isa in Isa::ALL.iter().filter(|i| i.runs_on(cpu)) {
            for m in [1, 64] {
                let here = space::specs(family, isa, m).unwrap_or_default();
                specs.extend(here.into_iter().find(|s| builds(s, cpu)));
            }
        }
    }
    specs.dedup();
    specs
}

fn builds(spec: &KernelSpec, cpu: Features) -> bool {
    [256, 768].into_iter().all(|k| {
        bitnet_codegen::plan(spec, k)
            .is_ok_and(|p| bitnet_codegen::KernelSet::build(vec![p], cpu).is_ok())
    })
}

/// The first 64 greedy tokens, equal to the independent reference's, on every kernel and thread count.
#[test]
fn the_golden_text_is_the_same_on_every_kernel_and_thread_count() {
    let expected = heldout();
    let golden = &expected["golden"];
    let prompt = golden["prompt"].as_str().expect("a prompt");
    let want: Vec<u32> = golden["greedy_tokens"]
        .as_array()
        .expect("tokens")
        .iter()
        .map(|v| v.as_u64().expect("an id") as u32)
        .collect();
    assert_eq!(want.len(), 64);
    let specs = kernels();
    assert!(specs.len() > VARIANTS.len(), "{specs:?}");
    println!("{} kernels", specs.len());
    for (i, spec) in specs.iter().enumerate() {
        let threads = [1, 2, 3, 7][i % 4];
        let setup = Setup {
            kernel: Some(spec.clone()),
            threads: Some(threads),
            ..Setup::default()
        };
        let (tokenizer, mut ready) = load(&setup);
        let n = if spec.isa == Isa::Interp { 12 } else { 64 };
        let got = generate(&tokenizer, &mut ready, prompt, n, SamplerParams::greedy());
        assert_eq!(
            got.ids,
            want[..n],
            "rerun: bitnet-run generate -p {prompt:?} -n {n} --temp 0 -t {threads} --kernel {spec}"
        );
    }
    for threads in [1, 2, 3, 7] {
        let (tokenizer, mut ready) = load(&Setup {
            threads: Some(threads),
            ..Setup::default()
        });
        let got = generate(&tokenizer, &mut ready, prompt, 64, SamplerParams::greedy());
        assert_eq!(got.ids, want, "{threads} threads");
    }
}

/// Words as the corpus counts them: letters and inner apostrophes, lower case.
fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !(c.is_alphabetic() || c == '\''))
        .map(|w| w.trim_matches('\'').to_lowercase())
        .filter(|w| !w.is_empty())
}

#[test]
fn a_greedy_story_ends_by_itself() {
    let (tokenizer, mut ready) = load(&Setup::default());
    let story = generate(
        &tokenizer,
        &mut ready,
        "Once upon a time",
        300,
        SamplerParams::greedy(),
    );
    println!("Once upon a time{}", story.text);
    assert_eq!(story.finish, Finish::Stop);
    assert!(
        (40..=250).contains(&story.tokens),
        "{} tokens",
        story.tokens
    );
}

/// Held-out prompts, sampled: nearly every word is one of the corpus, nearly every story ends, and
/// nearly every story is about the people it began with: one, or one and a friend.
#[test]
fn sampled_stories_are_made_of_words() {
    let known: HashSet<String> = text("vocabulary.txt")
        .split_whitespace()
        .map(str::to_lowercase)
        .collect();
    let expected = heldout();
    let prompts: Vec<&str> = expected["prompts"]
        .as_array()
        .expect("prompts")
        .iter()
        .map(|p| p.as_str().expect("text"))
        .collect();
    assert!(prompts.len() >= 20, "{} held-out prompts", prompts.len());
    let names = expected["names"].as_array().expect("names");
    let names: HashSet<&str> = names.iter().map(|n| n.as_str().expect("text")).collect();
    let (tokenizer, mut ready) = load(&Setup::default());
    let (mut total, mut good, mut ended, mut same_people) = (0, 0, 0, 0);
    let mut strange = HashSet::new();
    for seed in 1..=100 {
        let prompt = prompts[seed as usize % prompts.len()];
        let story = generate(&tokenizer, &mut ready, prompt, 400, warm(seed));
        ended += usize::from(story.finish == Finish::Stop);
        let whole = format!("{prompt}{}", story.text);
        let people: HashSet<&str> = whole
            .split(|c: char| !c.is_alphabetic())
            .filter(|w| names.contains(w))
            .collect();
        same_people += usize::from((1..=2).contains(&people.len()));
        for word in words(&whole) {
            total += 1;
            if known.contains(&word) {
                good += 1;
            } else {
                strange.insert(word);
            }
        }
    }
    println!(
        "{good} of {total} words are the corpus'; of 100 stories {ended} ended, {same_people} kept to their people; strange: {strange:?}"
    );
    assert!(total > 5000, "{total} words in 100 stories");
    assert!(
        good * 100 >= total * 95,
        "{good} of {total} words: {strange:?}"
    );
    assert!(ended >= 95, "{ended} of 100 stories ended by themselves");
    assert!(
        same_people >= 90,
        "{same_people} of 100 stories kept to their people"
    );
}

/// Questions of the trained types with held-out combinations: at least 80 % right.
#[test]
fn questions_are_answered() {
    let (tokenizer, mut ready) = load(&Setup::default());
    let template = ChatTemplate::of(&tokenizer).expect("a template");
    assert_eq!(template.note(), None, "the model brings its own template");
    let (mut asked, mut right) = (0, 0);
    let mut by_type: std::collections::BTreeMap<String, (usize, usize)> = Default::default();
    for line in text("qa_heldout.jsonl").lines() {
        let item: Value = serde_json::from_str(line).expect("JSON");
        let of = |key: &str| {
            item[key]
                .as_str()
                .unwrap_or_else(|| panic!("{key} in {line}"))
                .to_owned()
        };
        let mut talk = Conversation::new(None);
        talk.push(Role::User, of("question"));
        let ids = template
            .encode(&tokenizer, talk.messages())
            .expect("encodes");
        let mut sampler =
            Sampler::new(SamplerParams::greedy(), ready.engine.n_vocab()).expect("greedy");
        let answer = Session::new(&mut ready.engine, &tokenizer)
            .generate(
                &ids,
                &GenerateParams::new(60),
                &mut sampler,
                &RUN,
                &mut |_| Ok(()),
            )
            .expect("an answer");
        let key: Vec<String> = keys(&of("key"));
        let said: HashSet<String> = keys(&answer.text).into_iter().collect();
        let correct = key.iter().all(|k| said.contains(k)) && answer.finish == Finish::Stop;
        let slot = by_type.entry(of("type")).or_default();
        slot.0 += usize::from(correct);
        slot.1 += 1;
        right += usize::from(correct);
        asked += 1;
    }
    println!("{right} of {asked} right; by type: {by_type:?}");
    assert!(asked >= 100);
    assert!(right * 100 >= asked * 80, "{right} of {asked}: {by_type:?}");
}

/// Words and numbers, lower case.
fn keys(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|w| !w.is_empty())
        .map(str::to_lowercase)
        .collect()
}

#[test]
fn the_model_is_small_and_used_in_place() {
    let bytes = bitnet_runtime::demo::bytes();
    assert_eq!(
        bytes,
        fs::read(asset("demo.gguf")).expect("the file"),
        "embedded as it lies in the repository"
    );
    assert!(bytes.len() <= 4 << 20, "{} bytes", bytes.len());
    assert_eq!(bytes.as_ptr() as usize % 64, 0, "aligned as a mapped file");
}

/// Whatever finds the likeliest tokens, greedy and drawn texts are the same.
#[test]
fn head_forms_choose_the_same_text() {
    let mut texts = Vec::new();
    for head in [HeadForm::Exact, HeadForm::I8, HeadForm::I4] {
        let setup = Setup {
            head: Some(head),
            ..Setup::default()
        };
        let (tokenizer, mut ready) = load(&setup);
        let form = ready.engine.head().map(Head::form);
        assert_eq!(form, Some(head));
        let few = SamplerParams {
            top_k: 8,
            repeat_penalty: 1.2,
            repeat_last_n: 10,
            ..warm(11)
        };
        let both = [SamplerParams::greedy(), few]
            .map(|params| generate(&tokenizer, &mut ready, "Once upon a time", 60, params).ids);
        texts.push(both);
    }
    assert!(texts[0].iter().all(|ids| ids.len() > 10));
    assert!(texts[1..].iter().all(|t| *t == texts[0]), "{texts:?}");
}
