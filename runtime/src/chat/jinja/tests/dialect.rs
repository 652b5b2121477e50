//! The same texts as Python's Jinja2, written down by `python_writes.py` beside this file.

use super::*;

/// What differs, and why it may.
const DIFFERENT: &[(&str, &str)] = &[
    ("{{ +3 }}", "the reader knows no sign but minus"),
    ("{{ d.items() }}", "a list here, and written as one"),
    ("{{ self is defined }}", "there is one template only"),
];

#[test]
fn everything_is_put_out_as_python_does() {
    let cases: Vec<(String, Option<String>)> =
        serde_json::from_str(include_str!("python_writes.json")).expect("the file is JSON");
    assert!(cases.len() > 400, "{}", cases.len());
    let mut wrong = Vec::new();
    for (source, want) in &cases {
        let got = put_out(source);
        let known = DIFFERENT.iter().any(|(known, _)| known == source);
        let same = got.as_ref().ok() == want.as_ref();
        if same == known {
            wrong.push(format!("{source:?}\n   want {want:?}\n   got  {got:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
