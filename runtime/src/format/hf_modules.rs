//! `modules_to_not_convert` of `config.json`: which layers of a quantised folder stay float.
//!
//! A name keeps a module as in transformers: where it is the module's name up to a boundary, a regular expression
//! that matches so, or the end of the name. Without a list the head stays float; a list that does not name it
//! quantises it.

use fancy_regex::Regex;

use super::error::{LoadErrorKind, bad};

/// More names than any model has layers.
const MAX_NAMES: usize = 10_000;
/// Expressions are compiled, which costs more than comparing names.
const MAX_EXPRESSIONS: usize = 256;
const FIELD: &str = "quantization_config.modules_to_not_convert in config.json";

/// The modules that stay float.
pub(super) struct KeptModules {
    patterns: Vec<Pattern>,
}

enum Pattern {
    /// Letters, digits, `_` and `-`, and dots, which stand for any character.
    Name(String),
    Expression {
        text: String,
        start: Box<Regex>,
    },
}

impl KeptModules {
    /// From the list in the file, or from the names that the head may have.
    pub(super) fn new(
        list: Option<&[String]>,
        heads: impl Iterator<Item = String>,
    ) -> Result<Self, LoadErrorKind> {
        let Some(list) = list else {
            return Ok(Self {
                patterns: heads.map(Pattern::Name).collect(),
            });
        };
        let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.');
        let expressions = list.iter().filter(|n| !n.bytes().all(plain)).count();
        if list.len() > MAX_NAMES || expressions > MAX_EXPRESSIONS {
            let most = format!("at most {MAX_NAMES} names, {MAX_EXPRESSIONS} of them expressions");
            return Err(bad(
                FIELD,
                most,
                format!("{} and {expressions}", list.len()),
            ));
        }
        let pattern = |text: &String| {
            if text.bytes().all(plain) {
                return Ok(Pattern::Name(text.clone()));
            }
            let whole = format!(r"\A(?:{text})(?:(?<=\.)|(?=\.|\z))");
            let start = Regex::new(&whole).map_err(|e| {
                bad(
                    FIELD,
                    "names and regular expressions",
                    format!("{text:?} ({e})"),
                )
            })?;
            Ok(Pattern::Expression {
                text: text.clone(),
                start: Box::new(start),
            })
        };
        Ok(Self {
            patterns: list.iter().map(pattern).collect::<Result<_, _>>()?,
        })
    }

    /// Whether the module of this full name stays float.
    pub(super) fn keeps(&self, module: &str) -> Result<bool, LoadErrorKind> {
        for pattern in &self.patterns {
            let hit = match pattern {
                Pattern::Name(name) => starts(module, name) || module.ends_with(name.as_str()),
                Pattern::Expression { text, start } => {
                    let found = start.is_match(module).map_err(|e| {
                        bad(FIELD, "expressions that end", format!("{text:?} ({e})"))
                    })?;
                    found || module.ends_with(text.as_str())
                }
            };
            if hit {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether `module` begins with `name`, up to a boundary between modules.
fn starts(module: &str, name: &str) -> bool {
    let (module, name) = (module.as_bytes(), name.as_bytes());
    if module.len() < name.len() {
        return false;
    }
    let (head, rest) = module.split_at(name.len());
    let same = head.iter().zip(name).all(|(m, n)| m == n || *n == b'.');
    same && (rest.first().is_none_or(|&c| c == b'.') || head.last() == Some(&b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeps(list: &[&str], module: &str) -> bool {
        let list: Vec<String> = list.iter().map(|s| (*s).to_owned()).collect();
        let kept = KeptModules::new(Some(&list), ["lm_head".to_owned()].into_iter());
        kept.expect("a list").keeps(module).expect("an answer")
    }

    #[test]
    fn names_are_matched_as_transformers_does() {
        let module = "model.layers.11.mlp.gate_proj";
        // (pattern, kept): the examples of `should_convert_module`.
        for (pattern, want) in [
            ("model.layers.1", false),
            ("model.layers.11", true),
            ("model.layers.", true),
            ("model.layers.*", true),
            (r"model\.layers\.\d+\.mlp", true),
            ("model.layers.11.mlp.gate", false),
            (r"model\.layers\.1.mlp\.(?:gate|up)", false),
            ("gate_proj", true),
            ("layers.11", false),
            ("proj", true),
            ("", true),
            ("model.layers.11.mlp.gate_proj.weight", false),
        ] {
            assert_eq!(keeps(&[pattern], module), want, "{pattern:?}");
        }
        assert!(!keeps(&[], "lm_head"), "an empty list keeps nothing");
        let default = KeptModules::new(None, ["lm_head".to_owned()].into_iter()).expect("a list");
        assert!(default.keeps("lm_head").expect("an answer"));
        assert!(!default.keeps(module).expect("an answer"));
    }

    #[test]
    fn bad_expressions_are_named() {
        let list = ["(".to_owned()];
        let error = KeptModules::new(Some(&list), std::iter::empty())
            .err()
            .expect("refused");
        assert!(
            error.to_string().contains("modules_to_not_convert"),
            "{error}"
        );
        let many: Vec<String> = (0..300).map(|i| format!("a{i}+")).collect();
        assert!(KeptModules::new(Some(&many), std::iter::empty()).is_err());
        let slow = ["(a+)+b".to_owned()];
        let kept = KeptModules::new(Some(&slow), std::iter::empty()).expect("it compiles");
        let _ = kept.keeps(&"a".repeat(60));
    }
}
