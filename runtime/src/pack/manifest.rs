//! What a pack says of itself: a TOML text, so that `strings` and a person can read what is in it.
//!
//! `[[kernel]]` is the table that a reader wants: which kernel serves which product and how many tokens, and where its
//! code lies. `[[code]]` is what the loader goes by: each piece under the key of its program.

use super::Refusal;
use bitnet_codegen::abi::ABI;
use bitnet_codegen::isa::{Arch, Feature};
use bitnet_codegen::kernel::library::{ALIGN, Function};
use bitnet_codegen::{Features, Key};
use serde::{Deserialize, Serialize};

/// Pieces and rows beyond this are no pack but an attack on memory.
const MAX_ROWS: usize = 100_000;

/// What is in a pack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The processor family, as in target triples.
    pub target: String,
    /// The convention of calls.
    pub abi: String,
    /// Version of the generator that made the code.
    pub generator: String,
    /// What the code needs of the CPU, all pieces together.
    pub features: Vec<String>,
    /// Numbers of threads that kernels were chosen for.
    pub threads: Vec<usize>,
    /// Which kernel serves what.
    #[serde(default, rename = "kernel")]
    pub kernels: Vec<Row>,
    /// The pieces of code.
    #[serde(default, rename = "code")]
    pub codes: Vec<Code>,
}

/// One choice: a kernel for a product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Output features that it was chosen for; the code serves any number.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// The fewest tokens.
    pub m_from: usize,
    /// The most tokens; absent where there is no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub m_to: Option<usize>,
    /// Threads that it was chosen for; absent where they do not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// The kernel.
    pub spec: String,
    /// Where the choice comes from.
    pub origin: String,
    /// Where the code of the kernel begins, from the beginning of the code on.
    pub offset: usize,
    /// Bytes up to the end of its last piece.
    pub length: usize,
    /// The offset is a multiple of this.
    pub alignment: usize,
}

/// One piece of code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Code {
    /// What it computes, in short.
    pub name: String,
    /// What it computes, exactly: [`Key`].
    pub key: String,
    /// What it needs of the CPU.
    pub features: Vec<String>,
    /// Where it begins, from the beginning of the code on.
    pub offset: usize,
    /// Its bytes.
    pub length: usize,
}

fn bad(why: String) -> Refusal {
    let part = "manifest";
    Refusal::Part { part, why }
}

/// The set of `names`.
fn features(names: &[String]) -> Result<Features, Refusal> {
    let known = |name: &String| {
        Feature::by_name(name)
            .ok_or_else(|| bad(format!("this build knows no CPU feature {name:?}")))
    };
    names.iter().map(known).collect()
}

/// The names of `features`.
pub(super) fn names(features: Features) -> Vec<String> {
    features.iter().map(|f| f.name().to_owned()).collect()
}

impl Manifest {
    /// The manifest in `text`, of a pack with `code_bytes` of code.
    pub(super) fn parse(text: &str, code_bytes: usize) -> Result<Self, Refusal> {
        let this: Self = toml::from_str(text).map_err(|e| bad(e.message().to_owned()))?;
        let rows = this.kernels.len().max(this.codes.len());
        if rows > MAX_ROWS {
            return Err(bad(format!("{rows} rows, and no pack has {MAX_ROWS}")));
        }
        for code in &this.codes {
            let end = code.offset.checked_add(code.length);
            if end.is_none_or(|end| end > code_bytes) {
                let Code { offset, length, .. } = code;
                return Err(bad(format!(
                    "code of {length} bytes from {offset} on, and there are {code_bytes}"
                )));
            }
            code.key.parse::<Key>().map_err(|e| bad(e.to_string()))?;
        }
        Ok(this)
    }

    /// Its text.
    pub(super) fn render(&self) -> String {
        toml::to_string(self).expect("a manifest is TOML")
    }

    /// Whether its code may be called here, on a CPU with the features `cpu`.
    pub(super) fn fits(&self, cpu: Features) -> Result<&Self, Refusal> {
        if self.abi != ABI {
            let got = self.abi.clone();
            return Err(Refusal::Abi { got });
        }
        if self.target != Arch::HOST.name() {
            let got = self.target.clone();
            return Err(Refusal::Target { got });
        }
        let mut needs = features(&self.features)?;
        for code in &self.codes {
            needs = needs.and(features(&code.features)?);
        }
        let missing = needs.beyond(cpu);
        match missing == Features::NONE {
            true => Ok(self),
            false => Err(Refusal::Features { missing }),
        }
    }

    /// The pieces where they lie in the file, whose code begins at `code_at`. Names were looked at before.
    pub(super) fn functions(&self, code_at: usize) -> Vec<Function> {
        let function = |code: &Code| {
            Some(Function {
                key: code.key.parse().ok()?,
                features: features(&code.features).ok()?,
                at: code_at + code.offset..code_at + code.offset + code.length,
            })
        };
        self.codes.iter().filter_map(function).collect()
    }
}

impl Row {
    /// Tokens, as a person writes them: `1`, `2-3`, `128+`.
    pub fn tokens(&self) -> String {
        match self.m_to {
            Some(to) if to == self.m_from => to.to_string(),
            Some(to) => format!("{}-{to}", self.m_from),
            None => format!("{}+", self.m_from),
        }
    }
}

/// Where functions start.
pub(super) const CODE_ALIGN: usize = ALIGN;
