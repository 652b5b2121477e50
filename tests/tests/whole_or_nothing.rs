//! Whatever ends a command early (a place that cannot be written, a full disk, a closed pipe, Ctrl-C, a kill),
//! its output file is whole or absent, what was there before stays, and the end is a clean one.
//!
//! Longer than 500 lines: a list of ways to be cut short.

use bitnet_tests::{assert_fails, binary, command, data, run, stdout};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

fn tiny() -> String {
    data().join("tiny/tiny_b158.gguf").display().to_string()
}

/// Every command that writes a file, set to write `target`.
fn writers(target: &str) -> [(&'static str, Vec<String>); 4] {
    // 60 rows of 272 logits.
    let tokens = vec!["7"; 60].join(",");
    let line = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
    let (model, out) = (tiny(), ["-o", target]);
    [
        (
            "bitnet-run",
            line(&[&["convert", &model], &out[..]].concat()),
        ),
        (
            "bitnet-run",
            line(&[&["synth", "--shape", "tiny"], &out[..]].concat()),
        ),
        (
            "bitnet-run",
            line(&[&["logits", "-m", &model, "--tokens", &tokens], &out[..]].concat()),
        ),
        (
            "bitnet-tune",
            line(&[&["tune", "--budget", "1", "--m", "1"], &out[..]].concat()),
        ),
    ]
}

fn run_owned(binary: &str, args: &[String]) -> Output {
    run(binary, &args.iter().map(String::as_str).collect::<Vec<_>>())
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a folder").flatten();
    let mut names: Vec<String> = entries
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn paths_that_cannot_be_written_are_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("file");
    fs::write(&file, "not a folder").expect("written");
    let mut paths = vec![
        text(&dir.path().join("missing/x")).to_owned(),
        text(&file.join("x")).to_owned(),
        text(dir.path()).to_owned(),
        "/".to_owned(),
    ];
    if cfg!(target_os = "linux") {
        paths.push("/proc/x".to_owned());
    }
    for path in &paths {
        for (binary, args) in writers(path) {
            let output = run_owned(binary, &args);
            assert_fails(&output, 1, &[path]);
            // The name that was given, not the hidden one beside it.
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!told.contains(".part"), "{told}");
            assert_eq!(names(dir.path()), ["file"], "{args:?}");
        }
    }
    assert_eq!(fs::read(&file).expect("still there"), b"not a folder");
}

/// A device that is full: it is written as it is, never replaced by a file.
#[cfg(target_os = "linux")]
#[test]
fn a_full_device_is_named_and_stays_a_device() {
    use std::os::unix::fs::FileTypeExt;
    for (binary, args) in writers("/dev/full") {
        assert_fails(
            &run_owned(binary, &args),
            1,
            &["/dev/full", "No space left"],
        );
        let kind = fs::metadata("/dev/full").expect("it is there").file_type();
        assert!(kind.is_char_device(), "{args:?} replaced /dev/full");
    }
}

/// Files that may not grow beyond 512 or 1024 bytes (which of them the shell decides): what a full disk or a quota
/// does, for any user. The signal that would end the process is ignored, so that writing fails instead.
#[cfg(unix)]
#[test]
fn a_limit_on_the_size_of_files_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a folder");
    let target = dir.path().join("target");
    for there_before in [false, true] {
        for (name, args) in writers(text(&target)) {
            if there_before {
                fs::write(&target, "before").expect("written");
            }
            let output = Command::new("sh")
                .args(["-c", "trap '' XFSZ; ulimit -f 1 && exec \"$@\"", "sh"])
                .arg(binary(name))
                .args(&args)
                .env("XDG_CONFIG_HOME", "/nonexistent")
                .stdin(Stdio::null())
                .output()
                .expect("sh starts");
            assert_fails(&output, 1, &[text(&target), "File too large"]);
            if there_before {
                assert_eq!(names(dir.path()), ["target"], "{args:?}");
                assert_eq!(fs::read(&target).expect("still there"), b"before");
            } else {
                assert!(names(dir.path()).is_empty(), "{args:?}");
            }
        }
    }
}

/// A full disk: a small file system in memory where the machine lets us mount one.
#[test]
fn a_full_disk_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a folder");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
        .arg(dir.path())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success());
    if !mounted {
        println!(
            "SKIPPED: mounting a small tmpfs needs privileges that this user lacks; \
             a_limit_on_the_size_of_files_leaves_nothing_behind has run in its place"
        );
        return;
    }
    let (target, filler) = (dir.path().join("target"), dir.path().join("filler"));
    // Nothing but the names of two files fits.
    let filled = fs::write(&filler, vec![1u8; 1 << 20]);
    let done: Vec<_> = writers(text(&target))
        .into_iter()
        .map(|(binary, args)| (run_owned(binary, &args), names(dir.path())))
        .collect();
    let unmounted = Command::new("umount")
        .arg(dir.path())
        .status()
        .is_ok_and(|s| s.success());
    assert!(unmounted, "umount {}", dir.path().display());
    assert!(filled.is_err(), "1 MiB does not fit in 64 KiB");
    for (output, left) in done {
        assert_fails(&output, 1, &[text(&target), "No space left"]);
        assert_eq!(left, ["filler"]);
    }
}

/// Whoever closed our output has seen enough: that is no failure and worth no word.
#[test]
fn a_closed_pipe_ends_quietly() {
    for (binary, args) in [
        (
            "bitnet-run",
            &["generate", "-p", "Once upon a time", "-n", "200"][..],
        ),
        (
            "bitnet-run",
            &["generate", "-p", "Once", "-n", "3", "--json"],
        ),
        ("bitnet-run", &["inspect"]),
        ("bitnet-run", &["bench", "-p", "8", "-n", "2", "-r", "1"]),
        ("bitnet-run", &["tokenize", "-p", "Once"]),
        ("bitnet-tune", &["list", "--n", "320", "--k", "256"]),
        ("bitnet-tune", &["list", "--json"]),
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = command(binary)
            .args(args)
            .stdin(Stdio::null())
            .stdout(writer)
            .output()
            .expect("starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
        assert!(
            !stderr.contains("error") && !stderr.contains("panicked"),
            "{args:?}: {stderr}"
        );
    }
}

/// A command that hears every signal, whatever these tests were told to ignore (as what a shell starts in the
/// background is).
fn listening(binary: &str) -> Command {
    let mut command = command(binary);
    let default = || {
        for signal in 1..32 {
            // The answer is an error for the two that nothing can be done about.
            #[expect(unsafe_code, reason = "the standard library sets no signals")]
            // SAFETY: a plain system call, which may be made between fork and exec.
            unsafe {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
        Ok(())
    };
    #[expect(unsafe_code, reason = "what happens between fork and exec is unsafe")]
    // SAFETY: the closure makes system calls alone.
    unsafe {
        command.pre_exec(default);
    }
    command
}

fn start(binary: &str, args: &[&str]) -> Child {
    listening(binary)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts")
}

fn send(child: &Child, signal: i32) {
    #[expect(
        unsafe_code,
        reason = "there is no safe way to send a signal from the standard library"
    )]
    // SAFETY: a plain system call on a child that is still ours to wait for.
    let sent = unsafe { libc::kill(child.id() as i32, signal) };
    assert_eq!(sent, 0);
}

fn press_ctrl_c(child: &Child) {
    send(child, libc::SIGINT);
}

/// What asks a program to stop, with the exit code that tells of it.
const ASKING: [(i32, i32); 3] = [
    (libc::SIGINT, 130),
    (libc::SIGTERM, 143),
    (libc::SIGHUP, 129),
];

/// The rest of what a child prints, and how it ends.
fn rest(mut child: Child) -> (String, String, ExitStatus) {
    let (mut out, mut err) = (String::new(), String::new());
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_string(&mut out).expect("UTF-8");
    }
    if let Some(mut pipe) = child.stderr.take() {
        pipe.read_to_string(&mut err).expect("UTF-8");
    }
    let status = child.wait().expect("ends");
    assert!(!err.contains("panicked"), "{err}");
    (out, err, status)
}

/// The name of a kernel so slow that no text ends before Ctrl-C comes.
fn slow_kernel() -> String {
    let listed = run(
        "bitnet-tune",
        &["list", "--n", "320", "--k", "256", "--defaults", "--json"],
    );
    let listed: Value = serde_json::from_str(&stdout(&listed)).expect("JSON");
    let kernels = listed["kernels"].as_array().expect("a list");
    let interp = kernels
        .iter()
        .find(|k| k["backend"] == "interp" && k["runs"] == true);
    let spec = interp.expect("the interpreter runs everywhere")["spec"].as_str();
    spec.expect("a name").to_owned()
}

#[test]
fn a_signal_ends_a_text_between_two_tokens() {
    let kernel = slow_kernel();
    let prompt = "Once upon a time";
    let args = ["generate", "-p", prompt, "-n", "1000000", "--temp", "0"];
    let args = [&args[..], &["--ignore-eos", "--kernel", &kernel]].concat();
    for (signal, code) in ASKING {
        let mut child = start("bitnet-run", &args);
        // The prompt is repeated first; one byte more and the text has begun.
        let mut begun = vec![0u8; prompt.len() + 1];
        let mut pipe = child.stdout.take().expect("piped");
        pipe.read_exact(&mut begun).expect("a text");
        send(&child, signal);
        let mut more = String::new();
        pipe.read_to_string(&mut more).expect("UTF-8");
        let (_, err, status) = rest(child);
        assert_eq!(status.code(), Some(code), "{err}");
        assert!(err.contains("[cancelled]"), "{err}");
        assert!(more.ends_with('\n'), "the line is ended: {more:?}");
    }
}

/// What a pipe holds on Linux where nobody asks for more.
const PIPE_BYTES: usize = 65_536;

/// Where nothing looks for a signal, because a read, an opening or a write waits for somebody else, the first one ends
/// the program all the same.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_ends_a_program_that_waits() {
    let dir = tempfile::tempdir().expect("a folder");
    let fifo = dir.path().join("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status();
    assert!(made.expect("mkfifo starts").success());
    let fifo = text(&fifo);
    // Each waits in the end: for a line, for a writer, for a reader, for a reader that reads.
    let waits: [&[&str]; 5] = [
        &["chat"],
        &["generate", "-f", fifo],
        &["logits", "--tokens", "1", "-o", fifo],
        &["synth", "--shape", "tiny", "-o", fifo],
        &["generate", "-p", "Once upon a time"],
    ];
    let waiting = |args: &[&str]| {
        let mut command = listening("bitnet-run");
        command.args(args).stderr(Stdio::null());
        command.stdin(if args[0] == "chat" {
            Stdio::piped()
        } else {
            Stdio::null()
        });
        // The last one's output is a pipe that is full and that nobody reads.
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        writer
            .write_all(&[b'x'; PIPE_BYTES])
            .expect("as much as fits");
        let child = command.stdout(writer).spawn().expect("starts");
        (child, reader)
    };
    for args in waits {
        for (signal, code) in ASKING {
            let (mut child, _reader) = waiting(args);
            std::thread::sleep(Duration::from_millis(400));
            send(&child, signal);
            let started = Instant::now();
            let status = loop {
                if let Some(status) = child.try_wait().expect("a child") {
                    break status;
                }
                assert!(
                    started.elapsed() < Duration::from_secs(20),
                    "{args:?} goes on after signal {signal}"
                );
                std::thread::sleep(Duration::from_millis(5));
            };
            assert_eq!(status.code(), Some(code), "{args:?}");
        }
    }
}

/// In a conversation Ctrl-C stops an answer and no more; another signal ends it.
#[test]
fn a_conversation_outlives_ctrl_c_and_ends_with_sigterm() {
    let kernel = slow_kernel();
    let args = ["chat", "--temp", "0", "--json", "--kernel", &kernel];
    let mut child = listening("bitnet-run")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut input = child.stdin.take().expect("piped");
    writeln!(input, "Tell me a story.").expect("a question");
    std::thread::sleep(Duration::from_millis(700));
    press_ctrl_c(&child);
    // The next one is only read when the answer before it is over.
    writeln!(input, "/reset").expect("still there");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let reset = |l: std::io::Result<String>| l.expect("UTF-8").contains("a new conversation");
    assert!(lines.any(reset), "it ended");
    send(&child, libc::SIGTERM);
    let (out, _, status) = rest(child);
    assert_eq!(status.code(), Some(143));
    let turns: Value = serde_json::from_str(&out).expect("the turns that there were");
    assert_eq!(turns[0]["finish"], "cancelled", "{turns}");
}

#[test]
fn a_signal_ends_tuning_with_what_is_known() {
    let dir = tempfile::tempdir().expect("a folder");
    let profile = dir.path().join("p.toml");
    let args = ["tune", "-o", text(&profile), "--budget", "600"];
    // Before the first search has ended there is nothing to keep, after it there is.
    for (sign, (signal, code), kept) in [
        ("measuring", ASKING[0], false),
        ("searches left", ASKING[1], true),
    ] {
        let mut child = start("bitnet-tune", &args);
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let sees = |line: Option<std::io::Result<String>>| {
            let line = line.expect("it goes on").expect("UTF-8");
            line.contains(sign)
        };
        while !sees(lines.next()) {}
        send(&child, signal);
        let err: Vec<String> = lines.map(|l| l.expect("UTF-8")).collect();
        let (_, _, status) = rest(child);
        assert_eq!(status.code(), Some(code), "{sign}: {err:?}");
        let said = err.iter().any(|l| l.contains("stopped early"));
        assert_eq!(said, kept, "{sign}: {err:?}");
        if !kept {
            assert!(names(dir.path()).is_empty());
        }
    }
    assert_eq!(names(dir.path()), ["p.toml"]);
    let shown = run("bitnet-tune", &["show", text(&profile), "--json"]);
    let shown: Value = serde_json::from_str(&stdout(&shown)).expect("JSON");
    let kernels = shown["kernels"].as_array().expect("a list");
    assert!(!kernels.is_empty(), "{shown}");
}

/// Starts writing a model of a hundred megabytes and waits until its hidden file is there.
fn start_writing(args: &[&str], dir: &Path) -> Child {
    let mut child = start("bitnet-run", args);
    let hidden = |name: &String| name.starts_with(".bitnet-");
    while !names(dir).iter().any(hidden) && child.try_wait().expect("a child").is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

/// A program that writes a model, and how each signal that ends it is to be told from its exit.
#[test]
fn no_signal_leaves_a_part_of_a_model() {
    let dir = tempfile::tempdir().expect("a folder");
    let source = dir.path().join("source.gguf");
    let synth = ["synth", "--shape", "large", "--layers", "2", "-o"];
    stdout(&run("bitnet-run", &[&synth[..], &[text(&source)]].concat()));
    let out = tempfile::tempdir().expect("a folder");
    let target = out.path().join("m.gguf");
    let target = text(&target);
    let asking = ASKING.map(|(signal, code)| (signal, Some(code), None));
    let ending = [
        libc::SIGQUIT,
        libc::SIGXFSZ,
        libc::SIGXCPU,
        libc::SIGALRM,
        libc::SIGUSR1,
        libc::SIGABRT,
    ]
    .map(|signal| (signal, None, Some(signal)));
    for args in [
        &[&synth[..], &[target]].concat()[..],
        &["convert", text(&source), "-o", target],
    ] {
        for &(signal, code, by) in asking.iter().chain(&ending) {
            // A machine may be so busy that the model is complete before the signal comes: then again.
            let interrupted = (0..10).any(|_| {
                let child = start_writing(args, out.path());
                send(&child, signal);
                let (_, err, status) = rest(child);
                if status.success() {
                    fs::remove_file(target).expect("the whole model");
                    return false;
                }
                let left = names(out.path());
                assert!(left.is_empty(), "{args:?}, signal {signal}: {left:?}");
                assert_eq!((status.code(), status.signal()), (code, by), "{err}");
                true
            });
            assert!(interrupted, "{args:?} was never interrupted");
        }
    }
}

/// Nothing can tidy up after a kill: the hidden file stays until the next run, which is not disturbed by it.
#[test]
fn what_a_killed_writer_left_is_swept_by_the_next() {
    let dir = tempfile::tempdir().expect("a folder");
    let target = dir.path().join("m.gguf");
    let args = [
        "synth",
        "--shape",
        "large",
        "--layers",
        "1",
        "-o",
        text(&target),
    ];
    let mut child = start_writing(&args, dir.path());
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert!(!target.exists(), "a name is only given to a whole file");
    assert_eq!(names(dir.path()).len(), 1, "the hidden file");
    for _ in 0..2 {
        stdout(&run(
            "bitnet-run",
            &["convert", &tiny(), "-o", text(&target)],
        ));
        stdout(&run("bitnet-run", &["inspect", "-m", text(&target)]));
        assert_eq!(names(dir.path()), ["m.gguf"]);
    }
}

/// What can be written over is; what its owner made read-only is not; and a link stays one.
#[test]
fn a_file_that_is_replaced_keeps_what_it_was() {
    let dir = tempfile::tempdir().expect("a folder");
    let target = dir.path().join("target");
    let mode = |mode| fs::set_permissions(&target, fs::Permissions::from_mode(mode));
    for (name, args) in writers(text(&target)) {
        fs::write(&target, "before").expect("written");
        mode(0o600).expect("set");
        let done = run_owned(name, &args);
        stdout(&done);
        let kept = fs::metadata(&target).expect("there").permissions().mode();
        assert_eq!(kept & 0o777, 0o600, "{args:?}");
        fs::write(&target, "before").expect("written");
        mode(0o444).expect("set");
        assert_fails(&run_owned(name, &args), 1, &[text(&target)]);
        assert_eq!(fs::read(&target).expect("still there"), b"before");
        mode(0o644).expect("set");
        fs::remove_file(&target).expect("removed");
    }
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("target", &link).expect("linked");
    for (name, args) in writers(text(&link)) {
        stdout(&run_owned(name, &args));
        let kind = fs::symlink_metadata(&link).expect("there").file_type();
        assert!(kind.is_symlink() && target.exists(), "{args:?}");
        fs::remove_file(&target).expect("removed");
    }
}
