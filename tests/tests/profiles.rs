//! Profiles cannot hurt: whatever stands in one, the text stays the same, and another machine's is told from this one's
//! by the tools and by whoever loads a model alike.

use bitnet_codegen::{Feature, Features, Isa};
use bitnet_runtime::decoder::Decoder as _;
use bitnet_runtime::profile::{self, GENERATOR, HostRecord, Machine, Profile, SHIPPED, State};
use bitnet_runtime::setup::Setup;
use bitnet_tests::{assert_fails, run, stdout, workspace};
use bitnet_tune::described::Described;
use std::fs;
use std::path::Path;

/// The bits of all logits of a short prompt and of some tokens after it, under the profile at `path`.
fn logits(path: &Path) -> Vec<u32> {
    let setup = Setup {
        threads: Some(2),
        profile: Some(path.to_owned()),
        ..Setup::default()
    };
    let model = setup.open_model().expect("the demo model");
    let mut engine = setup.ready(model).expect("ready").engine;
    let prompt: Vec<u32> = (0..37).map(|i| i * 7 % 200).collect();
    let mut bits: Vec<u32> = Vec::new();
    bits.extend(
        engine
            .prefill(&prompt)
            .expect("runs")
            .iter()
            .map(|v| v.to_bits()),
    );
    for token in [3, 5] {
        bits.extend(
            engine
                .decode(token)
                .expect("runs")
                .iter()
                .map(|v| v.to_bits()),
        );
    }
    bits
}

#[test]
fn one_flipped_byte_never_changes_the_text() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("p.toml");
    let text = SHIPPED[0].text.as_bytes();
    fs::write(&path, text).expect("written");
    let want = logits(&path);
    // Digits of the kernels that the demo model takes are where a flip may matter; the rest is sampled.
    let whole = SHIPPED[0].text;
    let specs = whole
        .match_indices("spec = ")
        .take(16)
        .map(|(at, _)| at + 22);
    let sampled = (0..16).map(|i| (i * 7919 + 13) % text.len());
    let mut read = 0;
    for (turn, at) in specs.chain(sampled).enumerate() {
        let mut damaged = text.to_vec();
        damaged[at] ^= 1 << (turn % 7);
        fs::write(&path, &damaged).expect("written");
        read += usize::from(profile::read(&path).is_ok());
        let around =
            String::from_utf8_lossy(&damaged[at.saturating_sub(20)..(at + 20).min(text.len())]);
        assert!(logits(&path) == want, "byte {at}: {around:?}");
    }
    assert!(read > 0, "some damage is read as another profile");
}

/// Every file of `profiles/` with its name.
fn shipped_files() -> Vec<(String, Profile)> {
    let folder = workspace().join("profiles");
    let files = fs::read_dir(&folder).expect("the folder").flatten();
    let mut all: Vec<(String, Profile)> = files
        .filter(|f| f.path().extension().is_some_and(|e| e == "toml"))
        .map(|f| {
            let name = f.file_name().to_string_lossy().into_owned();
            let profile = profile::read(&f.path()).unwrap_or_else(|e| panic!("{name}: {e}"));
            (name, profile)
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[test]
fn every_profile_is_shipped_sound_and_says_whether_it_was_measured() {
    let files = shipped_files();
    let mut shipped: Vec<&str> = SHIPPED.iter().map(|s| s.name).collect();
    shipped.sort_unstable();
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, shipped, "profiles/ and SHIPPED");
    for (name, p) in &files {
        assert!(p.unknown.is_empty() && !p.entries.is_empty(), "{name}");
        assert!(!p.date.is_empty() && !p.host.features.is_empty(), "{name}");
        assert_eq!(p.is_estimate, name.ends_with("-estimate.toml"), "{name}");
        for e in &p.entries {
            let v = &e.evidence;
            assert_eq!(v.samples == 0, p.is_estimate, "{name}: {}", e.spec);
            assert!(
                v.median_ns > 0.0 && v.roofline_fraction > 0.0,
                "{name}: {e:?}"
            );
            assert!(e.spec.isa != Isa::Interp, "{name}: {}", e.spec);
        }
    }
    assert!(files.iter().filter(|(_, p)| p.is_estimate).count() >= 4);
}

/// Whatever CPU a profile is for, the programs of its kernels are exact: by the interpreter, here.
#[test]
fn every_kernel_of_every_profile_is_exact() {
    for (name, p) in shipped_files() {
        let path = workspace().join("profiles").join(&name);
        let args = [
            "verify",
            "--interpret",
            path.to_str().expect("UTF-8"),
            "--json",
        ];
        let told: serde_json::Value =
            serde_json::from_str(&stdout(&run("bitnet-tune", &args))).expect("JSON");
        let rows = told.as_array().expect("a list");
        assert_eq!(rows.len(), p.entries.len(), "{name}");
        let exact = |r: &&serde_json::Value| r["exact"] == true;
        assert!(rows.iter().all(|r| exact(&r)), "{name}: {told}");
    }
}

/// Each description is one, and what is shipped of it is what it describes.
#[test]
fn every_described_machine_has_its_estimate() {
    let folder = workspace().join("profiles/machines");
    let files = fs::read_dir(&folder).expect("the folder").flatten();
    let estimates: Vec<(String, Profile)> = shipped_files()
        .into_iter()
        .filter(|(_, p)| p.is_estimate)
        .collect();
    let mut described = 0;
    for file in files {
        let name = file
            .file_name()
            .to_string_lossy()
            .replace(".toml", "-estimate.toml");
        let text = fs::read_to_string(file.path()).expect("read");
        let machine = Described::parse(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (_, p) = estimates.iter().find(|(n, _)| *n == name).expect(&name);
        assert_eq!(p.host, machine.record(), "{name}");
        assert_eq!(p.costs, machine.named_costs(), "{name}");
        described += 1;
    }
    assert_eq!(described, estimates.len());
}

#[test]
fn a_machine_that_is_not_here_is_estimated_and_a_bad_description_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("p.toml");
    let out = out.to_str().expect("UTF-8");
    let board = workspace().join("profiles/machines/cortex-a76-board.toml");
    let of = |machine: &Path| {
        let machine = machine.to_str().expect("UTF-8").to_owned();
        let args = ["tune", "--for", &machine, "--m", "1", "-t", "4", "-o", out];
        run("bitnet-tune", &args)
    };
    assert!(stdout(&of(&board)).contains("nothing was measured"));
    let p = profile::read(Path::new(out)).expect("a profile");
    assert!(p.is_estimate && !p.entries.is_empty());
    for e in &p.entries {
        assert!([Isa::Neon, Isa::Sdot].contains(&e.spec.isa), "{}", e.spec);
        assert_eq!((e.bucket.first, e.evidence.threads), (1, 4));
    }
    let text = fs::read_to_string(&board).expect("read");
    let bad = dir.path().join("bad.toml");
    fs::write(&bad, text.replace("ghz = 2.4", "ghz = 0")).expect("written");
    assert_fails(&of(&bad), 1, &["bad.toml", "ghz", "expected"]);
    assert_fails(&of(Path::new("/dev/zero")), 1, &["/dev/zero", "bytes"]);
    let nowhere = ["tune", "--for", bad.to_str().expect("UTF-8")];
    assert_eq!(run("bitnet-tune", &nowhere).status.code(), Some(2));
}

#[test]
fn an_estimate_is_compatible_at_best_and_says_what_it_is() {
    let (_, p) = shipped_files()
        .into_iter()
        .find(|(name, _)| name.starts_with("avx2"))
        .expect("an AVX2 laptop");
    let features: Features = Feature::ALL
        .iter()
        .copied()
        .filter(|f| p.host.features.iter().any(|name| name == f.name()))
        .collect();
    let found = profile::find_shipped(&Machine::default(), features);
    assert_eq!(found.state, Some(State::Compatible), "{found:?}");
    let note = found.note.expect("said");
    assert!(note.contains("an estimate for AVX2 laptop"), "{note}");
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("p.toml");
    profile::save(&p, &path).expect("saved");
    let path = path.to_str().expect("UTF-8");
    for command in ["show", "explain"] {
        let told = stdout(&run("bitnet-tune", &[command, path]));
        assert!(told.contains("nothing was measured"), "{command}: {told}");
    }
}

/// A profile that was measured beside another process says so to whoever looks at it.
#[test]
fn a_burnt_core_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("p.toml");
    let mut p = forged(|_| ());
    p.conditions.other_load = 0.5;
    p.conditions.notes = vec!["other processes took 50 % of the CPUs".into()];
    profile::save(&p, &path).expect("saved");
    let path = path.to_str().expect("UTF-8");
    let told = stdout(&run("bitnet-tune", &["show", path]));
    assert!(told.contains("note: other processes took 50 %"), "{told}");
    let told = stdout(&run("bitnet-tune", &["show", path, "--json"]));
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(told["other_load"], 0.5);
}

/// A profile of this machine, changed.
fn forged(change: impl FnOnce(&mut Machine)) -> Profile {
    let mut machine = Machine::probe();
    change(&mut machine);
    Profile {
        generator: GENERATOR.into(),
        host: HostRecord {
            machine,
            features: Features::detect()
                .iter()
                .map(|f| f.name().to_owned())
                .collect(),
            ..HostRecord::default()
        },
        ..Profile::default()
    }
}

#[test]
fn check_and_the_runtime_say_the_same_of_every_forgery() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("p.toml");
    let up = |v: &mut Option<u32>| *v = Some(v.map_or(1, |v| v + 1));
    let forgeries = [
        (forged(|_| ()), State::Exact),
        (forged(|m| up(&mut m.family)), State::Foreign),
        (forged(|m| up(&mut m.model)), State::Foreign),
        (forged(|m| up(&mut m.stepping)), State::Compatible),
        (forged(|m| m.cpus += 62), State::Stale),
        (forged(|m| m.cpu += " II"), State::Foreign),
    ];
    for (profile, want) in forgeries {
        let kind = profile.host.machine.kind();
        // A machine that does not tell its family cannot be told from others by it.
        if Machine::probe().family.is_none() && want == State::Foreign && !kind.contains(" II") {
            continue;
        }
        profile::save(&profile, &path).expect("saved");
        let args = ["check", path.to_str().expect("UTF-8"), "--json"];
        let told: serde_json::Value =
            serde_json::from_str(&stdout(&run("bitnet-tune", &args))).expect("JSON");
        let found = profile::find(Some(&path), &Machine::probe(), Features::detect());
        assert_eq!(found.state, Some(want), "{kind}");
        assert_eq!(told["state"], want.name(), "{kind}: {told}");
        let note = found.note.unwrap_or_default();
        let why = told["why"].as_str().expect("a reason");
        assert!(
            want == State::Exact && note.is_empty() || note.contains(why),
            "{note}: {why}"
        );
    }
}
