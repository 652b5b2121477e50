//! The page of a profile is one file: well-formed, nothing loaded from anywhere, whatever names stand in the profile.

use bitnet_runtime::profile::{self, Phase, SHIPPED};
use bitnet_tests::{run, stdout, workspace};
use roxmltree::{Document, Node, ParsingOptions};
use std::fs;
use std::path::Path;

/// What makes a browser fetch something.
const FETCHING: &[&str] = &[
    "script", "link", "img", "iframe", "object", "embed", "audio", "video", "source", "use",
    "image", "base", "form",
];

/// Attributes that hold an address.
const ADDRESSES: &[&str] = &[
    "src",
    "href",
    "srcset",
    "action",
    "poster",
    "data",
    "background",
    "cite",
    "ping",
];

fn show(profile: &Path, more: &[&str]) -> String {
    let out = profile.with_extension("html");
    let (from, to) = (
        profile.to_str().expect("UTF-8"),
        out.to_str().expect("UTF-8"),
    );
    let mut args = vec!["show", from, "--html", to];
    args.extend(more);
    assert!(stdout(&run("bitnet-tune", &args)).contains(to));
    fs::read_to_string(out).expect("written")
}

fn parse(page: &str) -> Document<'_> {
    let options = ParsingOptions {
        allow_dtd: true,
        ..ParsingOptions::default()
    };
    Document::parse_with_options(page, options).expect("well-formed")
}

fn count(document: &Document<'_>, name: &str) -> usize {
    let named = |n: &Node<'_, '_>| n.has_tag_name((n.tag_name().namespace().unwrap_or(""), name));
    document.descendants().filter(named).count()
}

#[track_caller]
fn loads_nothing(document: &Document<'_>) {
    for node in document.descendants().filter(Node::is_element) {
        let name = node.tag_name().name();
        assert!(!FETCHING.contains(&name), "<{name}> may fetch something");
        for attribute in node.attributes() {
            let (key, value) = (attribute.name(), attribute.value());
            assert!(!ADDRESSES.contains(&key), "{key}={value:?}");
            assert!(!key.starts_with("on"), "{key}={value:?}");
            assert!(!value.contains("url("), "{key}={value:?}");
        }
        if name == "style" {
            let style = node.text().expect("a style");
            assert!(
                !style.contains("url(") && !style.contains("@import"),
                "{style}"
            );
            assert!(style.contains("prefers-color-scheme: dark"), "{style}");
        }
    }
    assert_eq!(count(document, "style"), 1);
}

#[test]
fn a_page_of_a_profile_and_a_recording_shows_all_of_both() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("p.toml");
    let mut p = profile::parse(SHIPPED[0].text).expect("a profile");
    for e in &mut p.entries {
        let half = e.evidence.mad_ns;
        e.evidence.interval_ns = (e.evidence.median_ns - half, e.evidence.median_ns + half);
        e.evidence.predicted_ns = e.evidence.median_ns * 0.9;
    }
    p.phases.push(Phase {
        name: "decode".into(),
        threads: 2,
        batch: 1,
        chosen: "tuned".into(),
        tokens_per_s: [("tuned".to_owned(), 30.0), ("untuned".to_owned(), 20.0)].into(),
    });
    profile::save(&p, &path).expect("saved");
    let recording = workspace().join("tests/landscapes/zen4-m1-13824x2560-t1.toml");
    let recording = recording.to_str().expect("UTF-8");
    let page = show(&path, &["--recording", recording]);
    let document = parse(&page);
    loads_nothing(&document);
    // Roofline, one search, predicted against measured, threads, whole tokens, noise.
    assert_eq!(count(&document, "svg"), 6);
    let candidates = fs::read_to_string(recording).expect("read");
    let candidates = candidates.lines().skip_while(|l| *l != "[samples]").count() - 1;
    let dots = count(&document, "circle");
    assert!(dots >= 2 * candidates, "{dots} of {candidates} candidates");
    assert_eq!(count(&document, "tr"), p.entries.len() + 1);
    let alone = show(&path, &[]);
    let alone = parse(&alone);
    loads_nothing(&alone);
    assert_eq!(count(&alone, "svg"), 5);
}

#[test]
fn names_in_a_profile_are_no_markup() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("p.toml");
    let mut p = profile::parse(SHIPPED[0].text).expect("a profile");
    let evil = "</style><script src=\"http://example.com/x\"/>\u{1b}]0;x\u{7}&<";
    p.host.machine.cpu = evil.into();
    p.date = evil.into();
    p.generator = evil.into();
    p.conditions.notes = vec![evil.into()];
    p.phases.push(Phase {
        name: evil.into(),
        threads: usize::MAX,
        batch: 1,
        chosen: evil.into(),
        tokens_per_s: [(evil.to_owned(), 30.0), ("x".to_owned(), f64::INFINITY)].into(),
    });
    let e = &mut p.entries[0].evidence;
    (e.gb_per_s, e.gmac_per_s, e.roofline_fraction) = (0.0, f64::INFINITY, -1e300);
    (e.predicted_ns, e.interval_ns) = (f64::NAN, (f64::NEG_INFINITY, f64::INFINITY));
    p.host.read_gb_per_s.insert("1".into(), 0.0);
    profile::save(&p, &path).expect("saved");
    let page = show(&path, &[]);
    loads_nothing(&parse(&page));
}
