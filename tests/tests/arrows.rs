//! Who may know whom: the arrows that are never drawn, and that none of them close a circle. The sources are read as
//! the compiler reads them, and each rule is shown a text that breaks it, so that it is seen to bite.

use bitnet_tests::packages::packages;
use bitnet_tests::source::{Source, rust_files};
use bitnet_tests::workspace;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Crates from the bottom up: none depends on a later one.
const ORDER: &[&str] = &[
    "bitnet-codegen",
    "bitnet-runtime",
    "bitnet-cli",
    "bitnet-tune",
    "bitnet-tests",
];

/// An arrow that is never drawn.
struct Never {
    /// Sources whose names begin so …
    from: &'static str,
    /// … but for these …
    but: &'static [&'static str],
    /// … name no path that is or begins with one of these.
    to: &'static [&'static str],
    why: &'static str,
}

const NEVER: &[Never] = &[
    Never {
        from: "codegen/src/",
        but: &[],
        to: &[
            "std::fs",
            "std::env",
            "std::thread",
            "std::time",
            "std::net",
            "std::process",
        ],
        why: "codegen is a function of its arguments",
    },
    Never {
        from: "codegen/src/kernel/",
        but: &["codegen/src/kernel/build.rs"],
        to: &[
            "crate::backend",
            "crate::ahead",
            "cranelift_codegen",
            "cranelift_module",
            "iced_x86",
        ],
        why: "calling a kernel needs no compiler",
    },
    Never {
        from: "codegen/src/abi.rs",
        but: &[],
        to: &["crate::backend", "crate::kernel", "crate::variant"],
        why: "who emits code and who calls it meet here, and are not known here",
    },
    Never {
        from: "codegen/src/backend/",
        but: &[],
        to: &["crate::kernel", "crate::variant", "crate::ahead"],
        why: "an emitter knows programs, not families and not who calls the code",
    },
    Never {
        from: "codegen/src/variant/",
        but: &[],
        to: &["crate::backend", "crate::kernel"],
        why: "a family describes its kernel and leaves code to others",
    },
    Never {
        from: "codegen/src/program/",
        but: &[],
        to: &[
            "crate::backend",
            "crate::kernel",
            "crate::variant",
            "crate::layout",
        ],
        why: "a program is data, whoever builds it and whoever runs it",
    },
    Never {
        from: "codegen/src/kernel/",
        but: &["codegen/src/kernel/build.rs"],
        to: &[
            "crate::backend",
            "cranelift_codegen",
            "cranelift_frontend",
            "iced_x86",
        ],
        why: "calling a kernel needs no compiler",
    },
    Never {
        from: "runtime/src/graph/",
        but: &[],
        to: &[
            "crate::format",
            "crate::tokenizer",
            "crate::network",
            "std::fs",
            "memmap2",
        ],
        why: "what a model computes is known without any file",
    },
    Never {
        from: "runtime/src/format/",
        but: &[],
        to: &[
            "crate::network",
            "crate::sequence",
            "crate::step",
            "crate::engine",
            "crate::tokenizer",
        ],
        why: "a file is read without knowing what runs it",
    },
    Never {
        from: "runtime/src/perplexity.rs",
        but: &[],
        to: &["crate::engine", "crate::network"],
        why: "it speaks to any decoder",
    },
    Never {
        from: "runtime/src/generate.rs",
        but: &[],
        to: &["crate::engine", "crate::network"],
        why: "it speaks to any decoder",
    },
    Never {
        from: "runtime/src/",
        but: &[],
        to: &[
            "std::io::stdout",
            "std::io::stderr",
            "std::io::stdin",
            "std::process::exit",
        ],
        why: "a library leaves the terminal and the process to its host",
    },
    Never {
        from: "tuner/src/",
        but: &["tuner/src/cli/"],
        to: &["clap", "bitnet_cli"],
        why: "the search is a library; its command line is tuner/src/cli",
    },
];

/// The rooms of a crate (files and folders in `src`) that must be free of circles.
const FREE_OF_CIRCLES: &[&str] = &["codegen/src", "runtime/src"];

fn sources(src: &str) -> Vec<Source> {
    let of = |path: &Path| {
        let name = path
            .strip_prefix(workspace())
            .expect("inside")
            .display()
            .to_string();
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{name}: {e}"));
        (!name.ends_with("tests.rs") && !name.contains("/tests/"))
            .then(|| Source::new(src, &name, &text))
    };
    rust_files(&workspace().join(src))
        .iter()
        .filter_map(|p| of(p))
        .collect()
}

/// What `source` names although `never` forbids it.
fn broken(never: &Never, source: &Source) -> Vec<String> {
    let spoken_of = source.name.starts_with(never.from)
        && !never.but.iter().any(|but| source.name.starts_with(but));
    if !spoken_of {
        return Vec::new();
    }
    let forbidden = |path: &String| {
        never.to.iter().any(|to| {
            let rest = path.strip_prefix(to);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        })
    };
    source.paths().into_iter().filter(forbidden).collect()
}

#[test]
fn the_arrows_that_are_never_drawn() {
    let all: Vec<Source> = ["codegen/src", "runtime/src", "tuner/src"]
        .iter()
        .flat_map(|src| sources(src))
        .collect();
    for never in NEVER {
        let concerned = all.iter().filter(|s| s.name.starts_with(never.from));
        assert!(concerned.count() > 0, "{}: nothing is there", never.from);
        for source in &all {
            let found = broken(never, source);
            assert!(
                found.is_empty(),
                "{} names {found:?}: {}",
                source.name,
                never.why
            );
        }
    }
}

#[test]
fn an_arrow_drawn_on_purpose_is_seen() {
    for never in NEVER {
        let file = if never.from.ends_with(".rs") {
            never.from.to_owned()
        } else {
            format!("{}drawn.rs", never.from)
        };
        for to in never.to {
            for text in [
                format!("use {to}::Thing;"),
                format!("fn f() {{ assert!({to}::g() == 1); }}"),
            ] {
                let drawn = Source::new("", &file, &text);
                assert_eq!(
                    broken(never, &drawn),
                    [format!(
                        "{to}::{}",
                        if text.starts_with("use") {
                            "Thing"
                        } else {
                            "g"
                        }
                    )]
                );
            }
            let aside = format!("// {to}::Thing\n#[cfg(test)]\nmod tests {{ use {to}::Thing; }}");
            assert!(broken(never, &Source::new("", &file, &aside)).is_empty());
        }
    }
    let drawn = Source::new(
        "runtime/src",
        "runtime/src/graph/config.rs",
        "use super::super::{format::{Model}, lanes};",
    );
    assert!(NEVER.iter().any(|never| !broken(never, &drawn).is_empty()));
}

/// Which rooms of a crate name which others, with a file that does.
fn rooms(sources: &[Source], src: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let room = |name: &str| {
        let below = name[src.len() + 1..].split('/').next().expect("a name");
        below.trim_end_matches(".rs").to_owned()
    };
    let all: BTreeSet<String> = sources.iter().map(|s| room(&s.name)).collect();
    let mut arrows: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for source in sources.iter().filter(|s| room(&s.name) != "lib") {
        let from = room(&source.name);
        for path in source.paths() {
            let Some(to) = path
                .strip_prefix("crate::")
                .and_then(|p| p.split("::").next())
            else {
                continue;
            };
            if to != from && all.contains(to) {
                let arrows = arrows.entry(from.clone()).or_default();
                arrows
                    .entry(to.to_owned())
                    .or_insert_with(|| source.name.clone());
            }
        }
    }
    arrows
}

/// A way from `at` back to the first of `way`, if there is one.
fn circle(
    arrows: &BTreeMap<String, BTreeMap<String, String>>,
    way: &mut Vec<String>,
    done: &mut BTreeSet<String>,
) -> Option<String> {
    let at = way.last().expect("a way has a start").clone();
    for (to, file) in arrows.get(&at).into_iter().flatten() {
        if let Some(start) = way.iter().position(|w| w == to) {
            return Some(format!("{} -> {to} (in {file})", way[start..].join(" -> ")));
        }
        if !done.contains(to) {
            way.push(to.clone());
            if let Some(found) = circle(arrows, way, done) {
                return Some(found);
            }
            way.pop();
        }
    }
    done.insert(at);
    None
}

fn circle_in(sources: &[Source], src: &str) -> Option<String> {
    let arrows = rooms(sources, src);
    let mut done = BTreeSet::new();
    arrows.keys().find_map(|start| {
        let fresh = !done.contains(start);
        fresh
            .then(|| circle(&arrows, &mut vec![start.clone()], &mut done))
            .flatten()
    })
}

#[test]
fn rooms_do_not_import_each_other_in_circles() {
    for src in FREE_OF_CIRCLES {
        let sources = sources(src);
        assert!(
            rooms(&sources, src).len() > 5,
            "{src}: the arrows were read"
        );
        let found = circle_in(&sources, src);
        assert!(found.is_none(), "{src}: {}", found.unwrap_or_default());
    }
    let drawn = [
        ("x/src/a/mod.rs", "use crate::b::B;"),
        ("x/src/b.rs", "use super::c::{C};"),
        ("x/src/c/d.rs", "fn f() -> crate::a::A {}"),
        ("x/src/e.rs", "use crate::a::A;"),
    ]
    .map(|(name, text)| Source::new("x/src", name, text));
    let found = circle_in(&drawn, "x/src").expect("a circle");
    assert!(found.contains("a -> b -> c -> a"), "{found}");
    assert_eq!(circle_in(&drawn[1..], "x/src"), None);
}

#[test]
fn crates_depend_in_one_direction() {
    let place = |name: &str| ORDER.iter().position(|o| *o == name);
    let packages = packages();
    assert_eq!(
        packages.len(),
        ORDER.len(),
        "a new crate has its place in ORDER"
    );
    for package in packages {
        let own = place(&package.name).expect("a place in ORDER");
        for dependency in package.dependencies {
            assert!(
                place(&dependency).is_none_or(|other| other < own),
                "{} must not depend on {dependency}",
                package.name
            );
        }
    }
}
