//! Profiles cannot hurt: whatever stands in one, the text stays the same, and another machine's is told from this one's
//! by the tools and by whoever loads a model alike.

use bitnet_codegen::Features;
use bitnet_runtime::decoder::Decoder as _;
use bitnet_runtime::profile::{self, GENERATOR, HostRecord, Machine, Profile, SHIPPED, State};
use bitnet_runtime::setup::Setup;
use bitnet_tests::{run, stdout};
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
