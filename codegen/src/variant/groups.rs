//! Group scales inside a kernel: what a family's i32 sums of one group of columns become.
//!
//! ```text
//! for group in K/G:                                       ascending
//!   acc[token][plane][v]  the family's sums over the group, codes as they are
//!   for token, v:  acc = Σ_p acc[token][p][v] · 256^(planes − 1 − p) − Σx[token][group]       exact, i32
//!                  out[token][v] += f32(acc) · (w_scale[v] · x_scale[token][group])
//! ```
//! Multiply and add stand apart and groups follow each other, so the f32 results are the same bits in every family,
//! width and tile. Results stay in memory from group to group: registers belong to the i32 tile.

use super::Unsupported;
use crate::layout::scales::{GroupScales, Stored, UP};
use crate::program::{Addr, Builder, Counter, Op, Operand, Promise, Value};
use crate::spec::KernelSpec;

/// Columns of a group are a multiple of this.
pub const GROUP_STEP: usize = 32;

/// Columns of the longest group: its sum of 16-bit codes is an exact f32.
pub const MAX_K: usize = 256;

/// Planes that a code of an activation may have: the sum of a group of three would be no exact f32.
pub const MAX_PLANES: usize = 2;

/// The knobs that say [`Groups`].
const KNOBS: [&str; 3] = ["g", "p", "s"];

/// A kernel that scales groups of columns itself: its result is f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Groups {
    /// The scales of the weights.
    pub scales: GroupScales,
    /// Planes of bytes that an activation's code is split into, the most significant first.
    pub planes: usize,
}

impl Groups {
    /// What the knobs of `spec` say: `g` columns share a scale (none: no groups), stored in `s` bits (16 or 32),
    /// codes of activations have `p` planes (1 or 2).
    ///
    /// # Errors
    /// Values that do not exist.
    pub fn of(spec: &KernelSpec) -> Result<Option<Self>, Unsupported> {
        let bad = |why: String| Err(Unsupported::new(spec, why));
        let k = match spec.knobs.get("g") {
            Some(&g) => g as usize,
            None => match KNOBS.iter().find(|k| spec.knobs.contains_key(**k)) {
                Some(k) => {
                    return bad(format!(
                        "knob {k} belongs to group scales, and there is no g"
                    ));
                }
                None => return Ok(None),
            },
        };
        if !k.is_multiple_of(GROUP_STEP) || !(GROUP_STEP..=MAX_K).contains(&k) {
            return bad(format!(
                "groups of {k} columns: {GROUP_STEP} to {MAX_K} in steps of {GROUP_STEP} exist"
            ));
        }
        let stored = match spec.knob("s", 16) {
            16 => Stored::F16,
            32 => Stored::F32,
            other => return bad(format!("scales of {other} bits: 16 and 32 exist")),
        };
        let planes = spec.knob("p", 1) as usize;
        if !(1..=MAX_PLANES).contains(&planes) {
            return bad(format!("{planes} planes: 1 and 2 exist"));
        }
        let scales = GroupScales { k, stored };
        Ok(Some(Self { scales, planes }))
    }

    /// `spec` with the knobs that say this.
    pub fn name(self, spec: KernelSpec) -> KernelSpec {
        let bits = if self.scales.stored == Stored::F16 {
            16
        } else {
            32
        };
        spec.with("g", self.scales.k as u32)
            .with("s", bits)
            .with("p", self.planes as u32)
    }

    /// `spec` without the knobs that [`Self::of`] reads.
    pub fn unname(mut spec: KernelSpec) -> KernelSpec {
        spec.knobs.retain(|name, _| !KNOBS.contains(&name.as_str()));
        spec
    }

    /// Groups of `k` columns.
    pub fn count(self, k: usize) -> usize {
        k.div_ceil(self.scales.k)
    }

    /// The scaling of a tile of `mr` tokens, NR rows and `k` columns.
    pub(super) fn scaling(self, mr: usize, nr: usize, k: usize) -> Scaling {
        Scaling {
            groups: self,
            mr,
            nr,
            k,
        }
    }
}

/// Rows of activations that a tile of `mr` tokens has.
pub(super) fn act_rows(groups: Option<Groups>, mr: usize) -> usize {
    mr * groups.map_or(1, |g| g.planes)
}

/// Where a group stands: the counter of the loop over groups, or a number of groups, and its columns.
/// The default is the start of a panel without groups.
#[derive(Clone, Copy, Default)]
pub(super) struct GroupAt {
    counter: Option<Counter>,
    first: usize,
    /// Columns of the group.
    pub k: usize,
}

impl GroupAt {
    /// `addr` of the first group moved to this one; `bytes` a group.
    pub fn of(self, addr: Addr, bytes: usize) -> Addr {
        let addr = addr.plus(self.first * bytes);
        match self.counter {
            Some(c) => addr.step(c, bytes),
            None => addr,
        }
    }
}

/// The scaling of one tile.
#[derive(Clone, Copy)]
pub(super) struct Scaling {
    groups: Groups,
    mr: usize,
    nr: usize,
    k: usize,
}

/// Where the scales of a vector of rows are.
enum WeightScale {
    Register(Value),
    Memory(Addr),
}

impl Scaling {
    /// Declares sums, scales and the result, and sets the result to zero.
    pub fn begin(&self, b: &mut Builder) {
        let all = self.mr * self.groups.count(self.k) * 4;
        // A code of two planes is at most 128·257.
        let most = 128 * 257 * self.groups.scales.k as i32;
        b.operand(Operand::Sums, all, Promise::I32(-most, most));
        b.operand(Operand::Scales, all, Promise::Bits);
        b.operand(Operand::Out, self.mr * self.nr * 4, Promise::Bits);
        let (zero, w) = (b.zero(), b.width_bytes());
        for at in (0..self.mr * self.nr * 4).step_by(w) {
            b.store(Addr::new(Operand::Out, at), zero);
        }
    }

    /// Runs `body` for every group, in ascending order.
    pub fn each(&self, b: &mut Builder, mut body: impl FnMut(&mut Builder, GroupAt)) {
        let k = self.groups.scales.k;
        let (full, rest) = (self.k / k, self.k % k);
        b.repeat(full, &[], |b, c, _| {
            let counter = Some(c);
            body(
                b,
                GroupAt {
                    counter,
                    first: 0,
                    k,
                },
            );
            vec![]
        });
        if rest > 0 {
            let last = GroupAt {
                counter: None,
                first: full,
                k: rest,
            };
            body(b, last);
        }
    }

    /// Adds a group to the result. `accs[row][vector]`: the sums of `Σ code·x` of each row of activations;
    /// `scales`: where the group's scales begin.
    pub fn add(&self, b: &mut Builder, at: GroupAt, scales: Addr, accs: &[Value]) {
        let w = b.width_bytes();
        let vectors = self.nr * 4 / w;
        let planes = self.groups.planes;
        let weights = self.weight_scales(b, scales, vectors);
        let of_token =
            |operand, t: usize| at.of(Addr::new(operand, 4 * t * self.groups.count(self.k)), 4);
        for t in 0..self.mr {
            let sum = b.op(Op::LoadBcast32(of_token(Operand::Sums, t)));
            let x = b.op(Op::LoadBcast32(of_token(Operand::Scales, t)));
            for (v, weight) in weights.iter().enumerate() {
                let mut acc = accs[t * planes * vectors + v];
                for p in 1..planes {
                    let high = b.op(Op::Shl32(acc, 8));
                    acc = b.op(Op::Add32(high, accs[(t * planes + p) * vectors + v]));
                }
                let exact = b.op(Op::Sub32(acc, sum));
                let float = b.op(Op::F32(exact));
                let weight = match weight {
                    WeightScale::Register(v) => *v,
                    WeightScale::Memory(addr) => b.op(Op::Load(addr.clone())),
                };
                let scale = b.op(Op::MulF32(x, weight));
                let part = b.op(Op::MulF32(float, scale));
                let out = Addr::new(Operand::Out, (t * vectors + v) * w);
                let before = b.op(Op::Load(out.clone()));
                let after = b.op(Op::AddF32(part, before));
                b.store(out, after);
            }
        }
    }

    /// The scales of each vector of rows: halves become singles in registers.
    fn weight_scales(&self, b: &mut Builder, at: Addr, vectors: usize) -> Vec<WeightScale> {
        match self.groups.scales.stored {
            Stored::F32 => (0..vectors)
                .map(|v| WeightScale::Memory(at.clone().plus(v * b.width_bytes())))
                .collect(),
            Stored::F16 => singles(b, &at, vectors, self.nr)
                .into_iter()
                .map(WeightScale::Register)
                .collect(),
        }
    }
}

/// The halves at `at` as singles, a vector of rows each.
pub(super) fn singles(b: &mut Builder, at: &Addr, vectors: usize, nr: usize) -> Vec<Value> {
    let w = b.width_bytes();
    let low = Stored::F16.dwords(nr) * 4 / w;
    let mask = b.op(Op::Splat32(0x7FFF << 13));
    let up = b.op(Op::Splat32(UP.to_bits() as i32));
    (0..vectors)
        .map(|v| {
            let pair = b.op(Op::Load(at.clone().plus(v % low * w)));
            let bits = match v < low {
                true => b.op(Op::Shl32(pair, 13)),
                false => b.op(Op::Shr32(pair, 3)),
            };
            let bits = b.op(Op::And(bits, mask));
            b.op(Op::MulF32(bits, up))
        })
        .collect()
}
