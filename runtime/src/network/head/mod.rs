//! [`Head`]: from the last hidden state to logits, all of them or the likeliest, in one of four forms that choose the
//! same tokens.
//!
//! ```text
//! exact    every row as it is stored, by f32 dot products in a fixed order
//! native   the stored codes of a block-quantised table as an integer product: 16-bit activations are the only error
//! i8       an 8-bit copy with the error of each row known
//! i4       a 4-bit copy with random rounding: half the bytes, and a bound that holds but for one time in 10¹⁸ rows
//! ```
//! The last three screen: each logit comes with a proven bound on its distance from the exact one (`bound.rs`), and
//! rows that can be among the likeliest within it are computed again exactly. So greedy, top-k, and min-p and top-p
//! within top-k, choose what the exact head chooses, ties included. Whoever needs all logits gets them from the
//! table as it is stored, whatever the form.

mod bound;
mod codes;
mod copies;
mod exact;
mod loops;
mod screen;
mod table;

#[cfg(test)]
mod tests;

use super::kernels::Kernels;
use crate::format::float::FloatType;
use crate::format::{FloatTensor, Model};
use crate::logits::{Candidate, Top};
use crate::network::packed_cache::{PackedCache, Sections};
use crate::pool::Pool;
use bitnet_codegen::KernelSpec;
use bitnet_codegen::coded::{CodedKernel, Form};
use bitnet_codegen::kernel::CodeFrom;
use exact::Exact;
pub(super) use exact::{CHUNK_BYTES, ROWS, TOKENS, logits_of};
use half::f16;
use serde::Serialize;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use table::Coded;

/// Below this a table stays in the caches: the exact form is as fast, and needs no second copy.
const SCREEN_FROM_BYTES: usize = 4 << 20;

/// How a head works out the likeliest tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HeadForm {
    /// Every row as it is stored.
    Exact,
    /// The stored integer codes.
    Native,
    /// An 8-bit copy.
    I8,
    /// A 4-bit copy with random rounding.
    I4,
}

impl HeadForm {
    /// All of them.
    pub const ALL: [HeadForm; 4] = [Self::Exact, Self::Native, Self::I8, Self::I4];

    /// What suits a table: its own codes, else 8 bits, and exact where it is small.
    pub fn suiting(table: &FloatTensor<'_>) -> Self {
        match codes::Native::of(table.dtype) {
            _ if table.bytes.len() < SCREEN_FROM_BYTES => Self::Exact,
            Some(_) => Self::Native,
            None => Self::I8,
        }
    }

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Native => "native",
            Self::I8 => "i8",
            Self::I4 => "i4",
        }
    }
}

impl fmt::Display for HeadForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Text that is no [`HeadForm`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown head form {0:?}: expected exact, native, i8 or i4")]
pub struct UnknownHeadForm(pub String);

impl FromStr for HeadForm {
    type Err = UnknownHeadForm;

    fn from_str(text: &str) -> Result<Self, UnknownHeadForm> {
        let form = Self::ALL.into_iter().find(|f| f.name() == text);
        form.ok_or_else(|| UnknownHeadForm(text.to_owned()))
    }
}

/// A form that was asked for and does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// The table has no integer codes that a kernel reads.
    #[error(
        "the head is stored as {dtype}, which has no integer codes to multiply: ask for i8, i4 or exact"
    )]
    NoCodes {
        /// How it is stored.
        dtype: &'static str,
    },
    /// This CPU has no kernel for the codes.
    #[error(
        "no kernel of this CPU multiplies the head's codes in form {form} with {hidden} columns: ask for exact"
    )]
    NoKernel {
        /// The form.
        form: HeadForm,
        /// Columns of the table.
        hidden: usize,
    },
    /// A head of trits has no other form.
    #[error(
        "the head is ternary, which its kernels multiply exactly: there is no form {form}, ask for exact"
    )]
    Ternary {
        /// The form.
        form: HeadForm,
    },
}

/// One row of a table as codes and the floats that they are units of.
struct CodedRow {
    /// `[k_padded]`.
    codes: Vec<u8>,
    /// Of each sub-block.
    scales: Vec<i8>,
    /// Of each sub-block, where the form has minimums.
    mins: Vec<i8>,
    /// Halves of each block.
    units: Vec<u16>,
    /// Halves of each block that minimums, or one, multiply.
    lows: Vec<u16>,
    /// Of the row, where blocks have no units.
    scale: f32,
}

impl CodedRow {
    fn new(form: &Form, k: usize) -> Self {
        let padded = form.k_padded(k);
        let subs = form.sub.map_or(0, |s| padded / s.cols);
        Self {
            codes: vec![0; padded],
            scales: vec![0; subs],
            mins: vec![0; if form.has_mins() { subs } else { 0 }],
            units: vec![0; form.blocks(k)],
            lows: vec![0; form.blocks(k)],
            scale: 0.0,
        }
    }

    /// `Σ (|unit · scale · code| + |low · min|)²` of a row with lows.
    fn gross_squared(&self, native: &codes::Native) -> f64 {
        let cols = self.codes.len() / self.units.len();
        let blocks = self.codes.chunks_exact(cols).enumerate();
        let squares = blocks.map(|(b, codes)| {
            let float = |v: &[u16]| f16::from_bits(v[b]).to_f64().abs();
            let (unit, low) = (float(&self.units), float(&self.lows));
            let subs = (self.scales.len() / self.units.len()).max(1);
            let runs = codes.chunks_exact(cols / subs).enumerate();
            let sum = runs.map(|(s, codes)| {
                let of = |v: &[i8]| v.get(b * subs + s).map_or(1.0, |&s| f64::from(s).abs());
                let (unit, low) = (unit * of(&self.scales), low * of(&self.mins));
                let value = |&c: &u8| unit * f64::from((i32::from(c) - native.zero).abs()) + low;
                codes.iter().map(|c| value(c) * value(c)).sum::<f64>()
            });
            sum.sum::<f64>()
        });
        squares.sum()
    }
}

/// Memory of a head's calls; made once, so that tokens allocate nothing.
#[derive(Default)]
pub struct HeadWork {
    screen: Option<screen::Work>,
}

impl HeadWork {
    /// What the last [`Head::top`] found, in rising order of ids.
    pub fn found(&self) -> &[Candidate] {
        self.screen.as_ref().map_or(&[], |s| &s.found)
    }
}

/// The output projection.
pub struct Head {
    exact: Exact,
    coded: Option<(HeadForm, Coded)>,
}

impl Head {
    /// The head of `model` in `form`; without one, in the form that suits the table.
    ///
    /// # Errors
    /// [`HeadError`], only when a form was asked for.
    pub fn new(
        pool: &Pool,
        kernels: &mut Kernels,
        model: &Arc<Model>,
        form: Option<HeadForm>,
        cache: Option<&PackedCache>,
    ) -> Result<Self, HeadError> {
        let source = model.head();
        let wanted = form.unwrap_or(HeadForm::suiting(&source));
        let coded = match wanted {
            HeadForm::Exact => None,
            HeadForm::Native if codes::Native::of(source.dtype).is_none() => {
                let dtype = source.dtype.name();
                return Err(HeadError::NoCodes { dtype });
            }
            screened => Coded::new(pool, kernels, source, screened, cache),
        };
        if coded.is_none() && form.is_some_and(|f| f != HeadForm::Exact) {
            return Err(HeadError::NoKernel {
                form: wanted,
                hidden: source.cols,
            });
        }
        Ok(Self {
            exact: Exact::new(pool, model, coded.is_none()),
            coded: coded.map(|coded| (wanted, coded)),
        })
    }

    /// Adds what is packed to `sections`.
    pub(super) fn sections<'n>(&'n self, sections: &mut Sections<'n>) {
        if let Some((_, coded)) = &self.coded {
            sections.extend(coded.sections());
        }
    }

    /// The form.
    pub fn form(&self) -> HeadForm {
        self.coded.as_ref().map_or(HeadForm::Exact, |(f, _)| *f)
    }

    /// The kernel, where the form is not exact.
    pub fn kernel(&self) -> Option<&KernelSpec> {
        self.coded.as_ref().map(|(_, coded)| coded.spec())
    }

    /// Where the code of that kernel comes from.
    pub fn code_from(&self) -> Option<CodeFrom> {
        self.coded.as_ref().map(|(_, coded)| coded.code_from())
    }

    /// The kernel that a head of `table` would run in `form`, or in the form that suits it; none where it is exact or
    /// there is none.
    pub fn kernel_for(
        kernels: &mut Kernels,
        table: &FloatTensor<'_>,
        form: Option<HeadForm>,
    ) -> Option<CodedKernel> {
        let form = form.unwrap_or(HeadForm::suiting(table));
        table::kernel(kernels, table, form)
    }

    /// Bytes read for each token whose likeliest successors are asked for, without rows that are computed again.
    pub fn table_bytes(&self) -> usize {
        let coded = self.coded.as_ref();
        coded.map_or_else(|| self.exact.table_bytes(), |(_, coded)| coded.bytes())
    }

    /// How rows are stored.
    pub fn dtype(&self) -> FloatType {
        self.exact.dtype()
    }

    /// Memory for [`Self::top`].
    pub fn work(&self, pool: &Pool) -> HeadWork {
        let screen = |(_, coded): &(HeadForm, Coded)| screen::Work::new(coded.work(pool));
        HeadWork {
            screen: self.coded.as_ref().map(screen),
        }
    }

    /// All logits of `m` tokens, exactly.
    ///
    /// # Shapes
    /// `x`: `[m, hidden]`; `logits`: `[m, vocab]`.
    pub fn forward(&self, pool: &Pool, x: &[f32], logits: &mut [f32]) {
        self.exact.forward(pool, x, logits);
    }

    /// The exact logits of what `top` asks for after one token, left in [`HeadWork::found`]; `false` where they must
    /// come from [`Self::forward`]: the form is exact, no bound holds, or most of the rows are asked for.
    ///
    /// # Shapes
    /// `x`: `[hidden]`.
    pub fn top(&self, pool: &Pool, x: &[f32], top: &Top<'_>, work: &mut HeadWork) -> bool {
        match (&self.coded, &mut work.screen) {
            (Some((_, coded)), Some(work)) => screen::top(pool, (&self.exact, coded), x, top, work),
            _ => false,
        }
    }
}
