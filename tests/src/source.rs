//! Rust sources as tokens: which names and paths a file uses outside of its tests, so that rules about who knows whom
//! read what the compiler reads, and not comments, strings or lines that happen to look alike.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// One source file of a crate.
pub struct Source {
    /// Its path below the workspace, with `/`.
    pub name: String,
    /// Its module within its crate: `["format", "gguf"]` for `format/gguf.rs`, nothing for `lib.rs`.
    module: Vec<String>,
    /// What it says apart from items under `#[cfg(test)]`.
    tokens: Vec<TokenTree>,
}

impl Source {
    /// Reads `text`, the file `name` of the crate whose sources lie in the folder `src`.
    ///
    /// # Panics
    /// When it is no Rust.
    pub fn new(src: &str, name: &str, text: &str) -> Self {
        let tokens: TokenStream = text
            .parse()
            .unwrap_or_else(|e| panic!("{name} is no Rust: {e}"));
        let below = name.strip_prefix(src).unwrap_or(name).trim_matches('/');
        let mut module: Vec<String> = below
            .trim_end_matches(".rs")
            .split('/')
            .map(str::to_owned)
            .collect();
        if module
            .last()
            .is_some_and(|m| ["mod", "lib", "main"].contains(&m.as_str()))
        {
            module.pop();
        }
        Self {
            name: name.to_owned(),
            module,
            tokens: without_tests(tokens),
        }
    }

    /// Every name that stands anywhere in it, macros and attributes included.
    pub fn names(&self) -> BTreeSet<String> {
        fn walk(tokens: &[TokenTree], out: &mut BTreeSet<String>) {
            for token in tokens {
                match token {
                    TokenTree::Ident(i) => {
                        out.insert(i.to_string());
                    }
                    TokenTree::Group(g) => walk(&g.stream().into_iter().collect::<Vec<_>>(), out),
                    _ => {}
                }
            }
        }
        let mut out = BTreeSet::new();
        walk(&self.tokens, &mut out);
        out
    }

    /// Whether it has code that is unsafe, or allows itself to: blocks, functions, traits and their implementations; not
    /// the mere type of a function that is unsafe to call.
    pub fn is_unsafe(&self) -> bool {
        self.names().contains("unsafe_code") || has_unsafe(&self.tokens)
    }

    /// Every path of two or more names, from its root: `crate::` and a crate's name as they are written, `super::` and
    /// `self::` resolved to `crate::`. The braces of a `use` are spread out.
    pub fn paths(&self) -> BTreeSet<String> {
        let mut found = Vec::new();
        paths(&self.tokens, &[], &mut found);
        let found = found.into_iter().filter(|p| p.len() > 1);
        found.map(|p| self.absolute(p).join("::")).collect()
    }

    fn absolute(&self, path: Vec<String>) -> Vec<String> {
        let ups = path.iter().take_while(|p| *p == "super").count();
        let own = usize::from(ups == 0 && path[0] == "self");
        if ups + own == 0 {
            return path;
        }
        let base = &self.module[..self.module.len().saturating_sub(ups)];
        let root = std::iter::once("crate".to_owned());
        root.chain(base.iter().cloned())
            .chain(path.into_iter().skip(ups + own))
            .collect()
    }
}

fn has_unsafe(tokens: &[TokenTree]) -> bool {
    let word = |at: usize| match tokens.get(at) {
        Some(TokenTree::Ident(i)) => i.to_string(),
        _ => String::new(),
    };
    tokens.iter().enumerate().any(|(at, token)| match token {
        TokenTree::Group(g) => has_unsafe(&g.stream().into_iter().collect::<Vec<_>>()),
        TokenTree::Ident(i) if i == "unsafe" => {
            // A type names no function: what follows its `fn` are the arguments.
            let fn_at = (at + 1..tokens.len().min(at + 4)).find(|&at| word(at) == "fn");
            fn_at.is_none_or(|at| !word(at + 1).is_empty())
        }
        _ => false,
    })
}

/// Leaves out each item with `#[cfg(test)]` before it.
fn without_tests(tokens: TokenStream) -> Vec<TokenTree> {
    let mut out = Vec::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let hash = matches!(&token, TokenTree::Punct(p) if p.as_char() == '#');
        let test = hash
            && tokens
                .peek()
                .is_some_and(|t| t.to_string().replace(' ', "") == "[cfg(test)]");
        if !test {
            out.push(token);
            continue;
        }
        // Up to the braces or the semicolon that end the item.
        for token in tokens.by_ref() {
            let ends = match &token {
                TokenTree::Group(g) => g.delimiter() == Delimiter::Brace,
                TokenTree::Punct(p) => p.as_char() == ';',
                _ => false,
            };
            if ends {
                break;
            }
        }
    }
    out
}

/// Collects the paths of `tokens`; those of a brace that follows `prefix::` begin with it.
fn paths(tokens: &[TokenTree], prefix: &[String], out: &mut Vec<Vec<String>>) {
    let separates = |at: usize| {
        let colon =
            |i: usize| matches!(tokens.get(i), Some(TokenTree::Punct(p)) if p.as_char() == ':');
        colon(at) && colon(at + 1)
    };
    let mut at = 0;
    // Within the braces of a `use`, a path begins behind each comma; what follows it is not a path of the prefix.
    let mut begins = true;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Ident(first) => {
                let mut path = if begins { prefix.to_vec() } else { Vec::new() };
                path.push(first.to_string());
                at += 1;
                while separates(at) {
                    match tokens.get(at + 2) {
                        Some(TokenTree::Ident(next)) => path.push(next.to_string()),
                        Some(TokenTree::Group(g)) if g.delimiter() == Delimiter::Brace => {
                            let inner: Vec<TokenTree> = g.stream().into_iter().collect();
                            paths(&inner, &path, out);
                        }
                        _ => {
                            at += 2;
                            break;
                        }
                    }
                    at += 3;
                }
                out.push(path);
                begins = false;
            }
            TokenTree::Group(g) => {
                let inner: Vec<TokenTree> = g.stream().into_iter().collect();
                paths(&inner, &[], out);
                at += 1;
            }
            TokenTree::Punct(p) => {
                begins = p.as_char() == ',';
                at += 1;
            }
            TokenTree::Literal(_) => at += 1,
        }
    }
}

/// Every `.rs` file below `folder`, build outputs and data aside, in order.
///
/// # Panics
/// When the folder cannot be read.
pub fn rust_files(folder: &Path) -> Vec<PathBuf> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        let entries = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() {
                if name != "target" && name != ".git" && name != "data" {
                    walk(&path, out);
                }
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    let mut out = Vec::new();
    walk(folder, &mut out);
    out.sort();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_compiler_reads_is_read_and_nothing_else() {
        let text = r#"
            //! crate::doc::comment
            use crate::a::{B, c::{self, D}, e as f};
            use super::g::H;
            // crate::comment::X
            const TEXT: &str = "crate::string::X";
            fn run() -> serde_json::Value { assert!(crate::in_macro::f(self::x(1, two::three))); }
            #[cfg(test)]
            mod tests { use crate::in_tests::X; }
            #[cfg(test)]
            pub(crate) mod scripted;
            use crate::after::Tests;
        "#;
        let source = Source::new("runtime/src", "runtime/src/format/gguf.rs", text);
        let paths: Vec<String> = source.paths().into_iter().collect();
        assert_eq!(
            paths,
            [
                "crate::a",
                "crate::a::B",
                "crate::a::c",
                "crate::a::c::D",
                "crate::a::c::self",
                "crate::a::e",
                "crate::after::Tests",
                "crate::format::g::H",
                "crate::format::gguf::x",
                "crate::in_macro::f",
                "serde_json::Value",
                "two::three",
            ]
        );
        let names = source.names();
        assert!(names.contains("serde_json") && !names.contains("in_tests"));
        let root = Source::new("x/src", "x/src/lib.rs", "mod a; use self::a::B;");
        assert!(root.paths().contains("crate::a::B"));
    }
}
