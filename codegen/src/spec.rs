//! [`KernelSpec`]: one complete answer to a problem. Its text name is its identity everywhere:
//! in profiles, on the command line, in profilers and in test failures.
//!
//! ```text
//! <variant>-<layout>-<MR>x<NR>c<KR>-<isa>[-<knob><value>…]     i2s-i2s-1x32c16-avx512vnni-f0-pf8-u2
//! ```

use crate::isa::Isa;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A kernel, completely described: build and emit read nothing else (but K).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KernelSpec {
    /// Family, a name in [`crate::variant::VARIANTS`].
    pub variant: String,
    /// Packed layout, a name in [`crate::layout::LAYOUTS`].
    pub layout: String,
    /// Tokens a tile.
    pub mr: usize,
    /// Output features (weight rows) a panel.
    pub nr: usize,
    /// Input features that one step of the layout covers.
    pub kr: usize,
    /// Instruction set.
    pub isa: Isa,
    /// The family's further tunables, by name.
    pub knobs: BTreeMap<String, u32>,
}

impl KernelSpec {
    /// A spec without knobs.
    pub fn new(variant: &str, layout: &str, mr: usize, nr: usize, kr: usize, isa: Isa) -> Self {
        Self {
            variant: variant.into(),
            layout: layout.into(),
            mr,
            nr,
            kr,
            isa,
            knobs: BTreeMap::new(),
        }
    }

    /// The same with `name` set to `value`.
    pub fn with(mut self, name: &str, value: u32) -> Self {
        self.knobs.insert(name.into(), value);
        self
    }

    /// The value of a knob; `default` if the name does not say.
    pub fn knob(&self, name: &str, default: u32) -> u32 {
        self.knobs.get(name).copied().unwrap_or(default)
    }
}

impl fmt::Display for KernelSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}-{}-{}x{}c{}-{}",
            self.variant, self.layout, self.mr, self.nr, self.kr, self.isa
        )?;
        for (name, value) in &self.knobs {
            write!(f, "-{name}{value}")?;
        }
        Ok(())
    }
}

/// Text that is not a spec's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "bad kernel name {text:?}: {why}; expected <variant>-<layout>-<MR>x<NR>c<KR>-<isa>[-<knob><value>...], as `bitnet-tune list` prints"
)]
pub struct SpecError {
    /// The whole text.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
}

impl FromStr for KernelSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let err = |why: String| SpecError {
            text: text.to_owned(),
            why,
        };
        let parts: Vec<&str> = text.split('-').collect();
        let [variant, layout, tile, isa, knobs @ ..] = &parts[..] else {
            return Err(err(format!("{} parts, at least 4 expected", parts.len())));
        };
        let plain = |s: &str| {
            !s.is_empty()
                && s.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        for name in [variant, layout] {
            if !plain(name) {
                return Err(err(format!(
                    "{name:?} is not a name of lower-case letters and digits"
                )));
            }
        }
        let (mr, nrkr) = tile
            .split_once('x')
            .ok_or_else(|| err(format!("tile {tile:?} has no 'x'")))?;
        let (nr, kr) = nrkr
            .split_once('c')
            .ok_or_else(|| err(format!("tile {tile:?} has no 'c'")))?;
        let number = |s: &str| match canonical(s) {
            Some(v) if (1..=1 << 16).contains(&v) => Ok(v as usize),
            _ => Err(err(format!("{s:?} is not a tile size from 1 to 65536"))),
        };
        let isa = isa.parse::<Isa>().map_err(|e| err(e.to_string()))?;
        let mut spec = KernelSpec::new(variant, layout, number(mr)?, number(nr)?, number(kr)?, isa);
        for knob in knobs {
            let at = knob
                .find(|c: char| c.is_ascii_digit())
                .unwrap_or(knob.len());
            let (name, value) = knob.split_at(at);
            let value =
                canonical(value).ok_or_else(|| err(format!("knob {knob:?} has no number")))?;
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase()) {
                return Err(err(format!("knob {knob:?} has no name")));
            }
            if spec.knobs.insert(name.to_owned(), value).is_some() {
                return Err(err(format!("knob {name:?} stands twice")));
            }
        }
        Ok(spec)
    }
}

/// A decimal number without sign or leading zeros, so that each spec has one text.
fn canonical(s: &str) -> Option<u32> {
    let ok = s.bytes().all(|b| b.is_ascii_digit()) && (s == "0" || !s.starts_with('0'));
    if ok { s.parse().ok() } else { None }
}

/// An ordinary answer: this spec does not exist, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is not supported: {why}")]
pub struct Unsupported {
    /// The spec, or the part of it.
    pub what: String,
    /// The reason.
    pub why: Reason,
}

impl Unsupported {
    /// `what` is not supported because of `why`.
    pub fn new(what: impl ToString, why: impl Into<Reason>) -> Self {
        Self {
            what: what.to_string(),
            why: why.into(),
        }
    }
}

/// Why something is not supported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The values of the spec do not fit together, or not to K.
    #[error("{0}")]
    Values(String),
    /// No family has the name.
    #[error("no such kernel family; known: {}", known.join(", "))]
    NoFamily {
        /// The names that exist.
        known: Vec<&'static str>,
    },
    /// The CPU does not have the instruction set.
    #[error("this CPU has no {0}")]
    Cpu(Isa),
    /// The instruction set lacks what the kernel needs.
    #[error("{0}")]
    Instructions(String),
    /// More vectors are live at once than the instruction set has registers.
    #[error("it needs {needed} vector registers, there are {have}")]
    VectorRegisters {
        /// Live vectors.
        needed: usize,
        /// Registers.
        have: usize,
    },
    /// More pointers, counters and indices are live at once than there are registers.
    #[error("it needs {needed} general registers, {free} are free")]
    GeneralRegisters {
        /// Live at once.
        needed: usize,
        /// Registers that hold nothing else.
        free: usize,
    },
    /// An address or a trip count does not fit the instructions' fields.
    #[error("{0}")]
    TooFar(String),
    /// The compiler behind a backend refuses.
    #[error("Cranelift: {0}")]
    Compiler(String),
}

impl From<String> for Reason {
    fn from(values: String) -> Self {
        Self::Values(values)
    }
}

impl From<&str> for Reason {
    fn from(values: &str) -> Self {
        Self::Values(values.to_owned())
    }
}

/// One tunable of a family: a name and the values that are worth trying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axis {
    /// `mr`, `nr`, or the name of a knob.
    pub name: &'static str,
    /// Candidate values; the first is the default.
    pub values: Vec<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn display_and_parse_round_trip(
            v in "[a-z][a-z0-9]{0,5}", l in "[a-z][a-z0-9]{0,5}", mr in 1usize..200, nr in 1usize..5000,
            kr in 1usize..300, isa in 0..Isa::ALL.len(),
            knobs in proptest::collection::btree_map("[a-z]{1,3}", 0u32..100_000, 0..4),
        ) {
            let mut spec = KernelSpec::new(&v, &l, mr, nr, kr, Isa::ALL[isa]);
            spec.knobs = knobs;
            prop_assert_eq!(spec.to_string().parse::<KernelSpec>().unwrap(), spec);
        }

        #[test]
        fn any_text_parses_or_says_why(text in "\\PC{0,60}") {
            if let Ok(spec) = text.parse::<KernelSpec>() {
                prop_assert_eq!(spec.to_string().parse::<KernelSpec>().unwrap(), spec);
            }
        }
    }

    #[test]
    fn bad_names_say_what_is_wrong() {
        for (text, want) in [
            ("i2s", "4"),
            ("i2s-i2s-1x32-avx2", "'c'"),
            ("i2s-i2s-1x32c16-sse9", "unknown instruction set"),
            ("i2s-i2s-0x32c16-avx2", "tile size"),
            ("i2s-i2s-1x32c16-avx2-u", "no number"),
            ("i2s-i2s-1x32c16-avx2-u2-u3", "twice"),
            ("i2s-i2s-01x32c16-avx2", "tile size"),
        ] {
            let e = text.parse::<KernelSpec>().unwrap_err().to_string();
            assert!(e.contains(want), "{text}: {e}");
        }
    }
}
