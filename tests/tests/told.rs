//! What is told, and how: no file makes a message act on the terminal or run on for pages, and every message names what
//! it is about.

use bitnet_runtime::format::GgufWriter;
use bitnet_tests::{assert_fails, command, data, run, stdout};
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::os::fd::FromRawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::{Output, Stdio};

/// Renames the window, clears the screen, turns the direction of the text.
const ACTIVE: &str = "x\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}y";

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[track_caller]
fn is_harmless(output: &Output) {
    for bytes in [&output.stdout, &output.stderr] {
        let said = String::from_utf8_lossy(bytes);
        let active = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!said.contains(active), "{said:?}");
    }
}

/// A GGUF file of an architecture called `name`, and nothing else.
fn model_called(name: &str, path: &Path) {
    let mut w = GgufWriter::default();
    w.str("general.architecture", name);
    w.create(path)
        .and_then(|file| file.finish())
        .expect("written");
}

#[test]
fn names_from_files_do_nothing_to_the_terminal() {
    let dir = tempfile::tempdir().expect("a folder");
    let model = dir.path().join("m.gguf");
    model_called(ACTIVE, &model);
    let told = run("bitnet-run", &["inspect", "-m", text(&model)]);
    assert_fails(&told, 1, &["owned"]);
    is_harmless(&told);
    let profile = dir.path().join("p.toml");
    let quoted = serde_json::to_string(ACTIVE).expect("JSON");
    let lines = format!("version = 1\ngenerator = {quoted}\n[host]\ncpu = {quoted}\n");
    fs::write(&profile, lines).expect("written");
    for args in [
        &["show", text(&profile)][..],
        &["show", text(&profile), "--json"],
        &["check", text(&profile)],
    ] {
        let told = run("bitnet-tune", args);
        assert!(stdout(&told).contains("owned"), "{told:?}");
        is_harmless(&told);
    }
    let mut args = vec!["generate", "-p", "Once", "-n", "1"];
    args.extend(["--profile", text(&profile)]);
    let told = run("bitnet-run", &args);
    assert!(told.status.success());
    assert!(String::from_utf8_lossy(&told.stderr).contains("owned"));
    is_harmless(&told);
}

#[test]
fn a_name_of_many_pages_is_cut() {
    let dir = tempfile::tempdir().expect("a folder");
    let model = dir.path().join("m.gguf");
    model_called(&"long".repeat(20_000), &model);
    let told = run("bitnet-run", &["inspect", "-m", text(&model)]);
    assert_fails(&told, 1, &["m.gguf", "longlong", "characters"]);
    assert!(told.stderr.len() < 2000, "{} bytes", told.stderr.len());
}

#[test]
fn messages_name_what_they_are_about() {
    let prompt = std::ffi::OsString::from_vec(b"a\xff".to_vec());
    let told = command("bitnet-run")
        .args(["generate", "-n", "1", "-p"])
        .arg(prompt)
        .output()
        .expect("starts");
    assert_fails(&told, 1, &["error: the prompt (-p) is not valid UTF-8"]);
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("file");
    fs::write(&file, b"\xff").expect("written");
    let told = run("bitnet-run", &["generate", "-n", "1", "-f", text(&file)]);
    assert_fails(
        &told,
        1,
        &[&format!("error: {} is not valid UTF-8", text(&file))],
    );
    fs::write(&file, "one two three four five six").expect("written");
    let told = run(
        "bitnet-run",
        &["perplexity", "-f", text(&file), "--ctx", "1"],
    );
    assert_fails(&told, 1, &["--ctx 1", "at least 4"]);
    let said = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(!said.contains("at most"), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn an_output_that_is_full_is_named() {
    for (binary, args) in [
        ("bitnet-run", &["tokenize", "-p", "Once"][..]),
        ("bitnet-run", &["inspect", "--json"]),
        ("bitnet-run", &["generate", "-p", "Once", "-n", "2"]),
        (
            "bitnet-tune",
            &["list", "--n", "64", "--k", "256", "--defaults"],
        ),
    ] {
        let full = fs::File::options().write(true).open("/dev/full");
        let told = command(binary)
            .args(args)
            .stdin(Stdio::null())
            .stdout(full.expect("a device"))
            .output()
            .expect("starts");
        assert_fails(&told, 1, &["cannot write", "No space left"]);
    }
}

#[test]
fn an_empty_variable_is_not_set() {
    let args = ["generate", "-p", "Once", "-n", "1", "--temp", "0"];
    let unset = run("bitnet-run", &args);
    let empty = command("bitnet-run")
        .args(args)
        .env("BITNET_PROFILE", "")
        .stdin(Stdio::null())
        .output()
        .expect("starts");
    let notes = |o: &Output| -> Vec<String> {
        let said = String::from_utf8_lossy(&o.stderr).into_owned();
        said.lines()
            .filter(|l| l.starts_with("note"))
            .map(str::to_owned)
            .collect()
    };
    assert!(empty.status.success());
    assert_eq!(notes(&empty), notes(&unset));
}

#[test]
fn logits_tell_what_was_written() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("l.npy");
    let tiny = data().join("tiny/tiny_b158.gguf");
    let mut args = vec!["logits", "-m", text(&tiny), "--tokens", "1,2,3"];
    args.extend(["-o", text(&out)]);
    let plain = stdout(&run("bitnet-run", &args));
    assert_eq!(plain, format!("{}: f32 [3, 272]\n", text(&out)));
    args.push("--json");
    let told: Value = serde_json::from_str(&stdout(&run("bitnet-run", &args))).expect("JSON");
    assert_eq!(told["path"], text(&out));
    assert_eq!(told["shape"], serde_json::json!([3, 272]));
    assert_eq!(told["dtype"], "f32");
}

/// The prompt comes through a pipe, asked for or not; an empty pipe is nobody's prompt.
#[test]
fn a_prompt_can_come_through_a_pipe() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("prompt");
    let base = ["generate", "-n", "8", "--temp", "0"];
    let piped = |text: &str, more: &[&str]| {
        fs::write(&file, text).expect("written");
        let told = command("bitnet-run")
            .args(base)
            .args(more)
            .stdin(fs::File::open(&file).expect("there"))
            .output();
        told.expect("starts")
    };
    let want = stdout(&run(
        "bitnet-run",
        &[&base[..], &["-p", "Once upon"]].concat(),
    ));
    assert_eq!(stdout(&piped("Once upon", &[])), want);
    assert_eq!(stdout(&piped("Once upon", &["-p", "-"])), want);
    assert_eq!(stdout(&piped("ignored", &["-p", "Once upon"])), want);
    let nothing = stdout(&run("bitnet-run", &base));
    assert_eq!(stdout(&piped("", &[])), nothing);
    assert_fails(&piped("", &["-p", "-"]), 1, &["the prompt is empty"]);
}

#[test]
fn a_text_ends_where_it_is_told_to() {
    let base = [
        "generate",
        "-p",
        "Once upon a time",
        "-n",
        "64",
        "--temp",
        "0",
        "--no-echo",
    ];
    let whole = stdout(&run("bitnet-run", &base));
    let stop = whole.split('.').next().expect("a sentence");
    let (before, word) = stop.rsplit_once(' ').expect("two words");
    let told = run(
        "bitnet-run",
        &[&base[..], &["--stop", "never said", "--stop", word]].concat(),
    );
    let said = stdout(&told);
    assert_eq!(said.trim_end(), before, "of {whole:?}");
    assert!(String::from_utf8_lossy(&told.stderr).contains("a stop string came"));
    let none = run("bitnet-run", &[&base[..], &["--stop", ""]].concat());
    assert_fails(&none, 2, &["--stop"]);
}

/// A pair of a terminal's two ends: the one that a person sits at, and the one that a program writes to.
fn terminal() -> (fs::File, fs::File) {
    let (mut person, mut program) = (0, 0);
    let none = std::ptr::null_mut();
    #[expect(unsafe_code, reason = "the standard library opens no terminals")]
    // SAFETY: two local integers are written; the null pointers ask for defaults.
    let opened =
        unsafe { libc::openpty(&mut person, &mut program, none, none.cast(), none.cast()) };
    assert_eq!(opened, 0, "{}", std::io::Error::last_os_error());
    let own = |fd| {
        #[expect(unsafe_code, reason = "what was opened above is nobody else's")]
        // SAFETY: a descriptor that was just opened and is handed over once.
        unsafe {
            fs::File::from_raw_fd(fd)
        }
    };
    (own(person), own(program))
}

/// A model can be made to say anything; the text to continue stands for what it says, as both go the same way.
#[test]
fn a_text_is_raw_in_a_pipe_and_harmless_on_a_terminal() {
    let args = ["generate", "-p", ACTIVE, "-n", "1", "--temp", "0"];
    let piped = stdout(&run("bitnet-run", &args));
    assert!(piped.starts_with(ACTIVE), "{piped:?}");
    let (mut person, program) = terminal();
    let mut child = command("bitnet-run")
        .args(args)
        .stdin(Stdio::null())
        .stdout(program)
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    // It fits the terminal's buffer, so that nobody has to read meanwhile.
    assert!(child.wait().expect("ends").success());
    let mut seen = vec![0u8; 4096];
    let length = person.read(&mut seen).expect("what was written");
    let seen = String::from_utf8_lossy(&seen[..length]).into_owned();
    assert!(seen.contains("x\\u{1b}]0;owned"), "{seen:?}");
    // A terminal ends a line with both characters.
    let active = |c: char| c.is_control() && c != '\n' && c != '\r';
    assert!(!seen.contains(active), "{seen:?}");
}
