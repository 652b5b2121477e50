//! How a conversation is written down and answered is the caller's choice: the template, its variables, texts that end
//! an answer, and how likely each token was.

use bitnet_tests::{assert_fails, command, run, stdout};
use serde_json::Value;
use std::io::Write;
use std::process::{Output, Stdio};

const GREEDY: [&str; 4] = ["--temp", "0", "-n", "12"];

/// What the demo model answers to one question.
fn ask(args: &[&str], question: &str) -> Output {
    let mut child = command("bitnet-run")
        .args(["chat", "--json"])
        .args(GREEDY)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    // Who refuses its arguments listens to nobody.
    stdin.write_all(question.as_bytes()).ok();
    drop(stdin);
    child.wait_with_output().expect("ends")
}

fn turn(args: &[&str], question: &str) -> Value {
    let output = ask(args, question);
    let turns: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    turns[0].clone()
}

fn generated(args: &[&str]) -> Value {
    let output = run(
        "bitnet-run",
        &[&["generate", "--json"][..], &GREEDY, args].concat(),
    );
    serde_json::from_str(&stdout(&output)).expect("JSON")
}

#[test]
fn a_conversation_is_written_down_as_asked() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("t.jinja");
    let path = file.to_str().expect("UTF-8");
    let template = "{{ bos_token }}{{ begin }} {{ messages[-1].content }}{% for tool in tools or [] %} {{ tool.name }}{% endfor %}";
    std::fs::write(&file, template).expect("written");
    let begin = [
        "--chat-template",
        path,
        "--template-arg",
        "begin=\"Once upon\"",
    ];
    let tools = [
        &begin[..],
        &["--template-arg", "tools=[{\"name\": \"and\"}]"],
    ]
    .concat();
    for (args, question, prompt) in [
        (&begin[..], "a time", "Once upon a time"),
        (&tools, "a time", "Once upon a time and"),
    ] {
        let (got, want) = (turn(args, question), generated(&["-p", prompt]));
        assert_eq!(got["ids"], want["ids"], "{args:?}");
        assert_eq!(got["prompt_tokens"], want["prompt_tokens"], "{args:?}");
    }
    let usual = turn(&[], "a time");
    assert_ne!(
        usual["prompt_tokens"],
        turn(&begin, "a time")["prompt_tokens"]
    );
}

#[test]
fn templates_and_variables_that_make_no_sense_are_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("t.jinja");
    let path = file.to_str().expect("UTF-8");
    let with = ["--chat-template", path];
    assert_fails(&ask(&with, "Hi"), 1, &[path]);
    std::fs::write(&file, "{% for %}").expect("written");
    assert_fails(&ask(&with, "Hi"), 1, &[path, "cannot be read"]);
    for (arg, code, words) in [
        ("enable_thinking", 2, "expected KEY=JSON"),
        ("=1", 2, "expected KEY=JSON"),
        ("a=no", 2, "double quotes"),
        ("messages=[]", 1, "\"messages\" is set by the conversation"),
    ] {
        assert_fails(&ask(&["--template-arg", arg], "Hi"), code, &[words]);
    }
}

#[test]
fn a_text_ends_an_answer_and_is_not_part_of_it() {
    let whole = generated(&["-p", "Once upon a time"]);
    let text = whole["text"].as_str().expect("a text");
    let stop = text.split_whitespace().nth(3).expect("some words");
    let before = text.split(stop).next().expect("what comes before");
    let cut = generated(&["-p", "Once upon a time", "--stop", stop]);
    assert_eq!(cut["text"], before);
    assert_eq!(cut["finish"], "stop-string");
    let answer = turn(&[], "Hi");
    let text = answer["text"].as_str().expect("a text");
    let stop = text.split_whitespace().nth(2).expect("some words");
    let cut = turn(&["--stop", "never said", "--stop", stop], "Hi");
    assert_eq!(cut["text"], text.split(stop).next().expect("a beginning"));
    assert_eq!(cut["finish"], "stop-string");
    assert_fails(&ask(&["--stop", ""], "Hi"), 2, &["empty text"]);
}

#[test]
fn tokens_come_with_their_likelihoods() {
    let plain = generated(&["-p", "Once upon a time"]);
    let noted = generated(&["-p", "Once upon a time", "--logprobs", "3"]);
    assert_eq!(plain["ids"], noted["ids"]);
    assert!(plain.get("logprobs").is_none());
    let logprobs = noted["logprobs"].as_array().expect("a list");
    let ids = noted["ids"].as_array().expect("a list");
    assert_eq!(logprobs.len(), ids.len());
    let mut text = String::new();
    for (token, id) in logprobs.iter().zip(ids) {
        let top = token["top"].as_array().expect("a list");
        assert_eq!((&token["id"], top.len()), (id, 3));
        // Greedy: the chosen one is the likeliest.
        assert_eq!((&top[0]["id"], &top[0]["logprob"]), (id, &token["logprob"]));
        let p = |t: &Value| t["logprob"].as_f64().expect("a number").exp();
        assert!(top.is_sorted_by(|a, b| p(a) >= p(b)), "{token}");
        let sum: f64 = top.iter().map(p).sum();
        assert!(sum > 0.0 && sum <= 1.0 + 1e-9, "{token}");
        text += token["token"].as_str().expect("a text");
    }
    assert_eq!(noted["text"], text);
    let answer = turn(&["--logprobs", "0"], "Hi");
    let none = &answer["logprobs"][0]["top"];
    assert_eq!(none.as_array().map(Vec::len), Some(0));
    let refused = run("bitnet-run", &["generate", "-p", "Hi", "--logprobs", "1"]);
    assert_fails(&refused, 1, &["--logprobs", "--json"]);
}
