//! The program of a coded product: codes unpacked in registers and dotted with two planes of activations.
//!
//! ```text
//! for block:                                             W bytes = W/4 rows × 4 columns
//!   total[p][v] = 0
//!   for group, for sub-block s of four:
//!     acc[p][v] = −zero · Σx[p] over s                   once, from memory: codes are unsigned
//!     for step, for v:   (c0 … cn) = codes of the words
//!       acc[p][v] += dot4(ci, broadcast x[p][columns of ci])
//!     total[p][v] += acc[p][v] · scale[s][v]             total_min[t][v] += min[s][v] · Σx over s
//!   out[block][p][v] = total[p][v]                       256·hi + lo where that fits
//! ```
//! Without sub-blocks `acc` is the result. Six-bit codes lie three to three bytes, whose upper bit pairs are the
//! fourth code: two and three quarter operations a code, where nibbles and bit pairs apart take four. Where no
//! instruction multiplies an unsigned byte above 127, bytes go as two nibbles.
//!
//! Longer than 500 lines: one program, whose parts share registers.

use super::{Form, Packing};
use crate::acts::row_bytes;
use crate::isa::Isa;
use crate::program::{Addr, Builder, Counter, Op, Operand, Program, Promise, Value};
use crate::spec::KernelSpec;

/// Steps of four columns that rows without blocks are unrolled by.
const ROW_UNROLL_COLS: usize = super::ROW_QUANTUM;

/// How products are summed.
#[derive(Clone, Copy, PartialEq)]
enum Mac {
    /// Whole bytes by the dot product.
    Dot,
    /// Nibbles by the dot product, one accumulator each.
    DotNibbles,
    /// Whole codes by pairs into i16.
    Madd,
    /// Nibbles by pairs into i16.
    MaddNibbles,
}

impl Mac {
    fn new(form: &Form, isa: Isa) -> Self {
        let small = form.max_code() < 128;
        match (isa.has_dot(), small || isa.dot_reads_u8()) {
            (true, true) => Mac::Dot,
            (true, false) => Mac::DotNibbles,
            (false, _) if small => Mac::Madd,
            (false, _) => Mac::MaddNibbles,
        }
    }

    fn nibbles(self) -> bool {
        matches!(self, Mac::DotNibbles | Mac::MaddNibbles)
    }

    fn is_madd(self) -> bool {
        matches!(self, Mac::Madd | Mac::MaddNibbles)
    }
}

/// The shape of one micro-kernel while it is built.
pub(super) struct Tile<'a> {
    spec: &'a KernelSpec,
    packing: Packing,
    form: &'static Form,
    mr: usize,
    vectors: usize,
    stride: usize,
    mac: Mac,
}

/// Where columns lie: loop counters, each with the bytes of weights, columns and sub-blocks that a turn covers.
#[derive(Clone, Default)]
struct Place {
    counters: Vec<(Counter, [usize; 3])>,
    weights: usize,
    cols: usize,
    subs: usize,
}

impl Place {
    fn turn(&self, counter: Counter, weights: usize, cols: usize, subs: usize) -> Self {
        let mut this = self.clone();
        this.counters.push((counter, [weights, cols, subs]));
        this
    }

    fn weights(&self, at: usize) -> Addr {
        let addr = Addr::new(Operand::Weights, self.weights + at);
        self.counters
            .iter()
            .fold(addr, |a, &(c, [bytes, ..])| a.step(c, bytes))
    }

    fn acts(&self, at: usize) -> Addr {
        let addr = Addr::new(Operand::Acts, self.cols + at);
        self.counters
            .iter()
            .fold(addr, |a, &(c, [_, cols, _])| a.step(c, cols))
    }

    /// Element `at` of the sums of the sub-block, `width` a sub-block.
    fn sums(&self, from: usize, width: usize, at: usize) -> Addr {
        let addr = Addr::new(Operand::Sums, 4 * (from + self.subs * width + at));
        self.counters
            .iter()
            .fold(addr, |a, &(c, [_, _, subs])| a.step(c, 4 * width * subs))
    }
}

/// Sums over columns on their way: one accumulator for each plane and vector (two of nibbles), and pair sums
/// that are not widened yet.
struct Sums {
    accs: Vec<Value>,
    pairs: Vec<Value>,
    added: usize,
}

/// The words of a step.
enum Step {
    /// In registers.
    Loaded(Vec<Value>),
    /// Loaded again for each use.
    Memory(Vec<Addr>),
}

impl Step {
    fn word(&self, b: &mut Builder, i: usize) -> Value {
        match self {
            Step::Loaded(words) => words[i],
            Step::Memory(words) => b.op(Op::Load(words[i].clone())),
        }
    }
}

/// Constants that live in registers.
struct Consts {
    masks: Vec<(u8, Value)>,
    table: Option<Value>,
    ones: Vec<Value>,
}

impl Consts {
    fn mask(&self, bits: u8) -> Value {
        let found = self.masks.iter().find(|(m, _)| *m == bits);
        found.expect("a mask of the form").1
    }
}

impl<'a> Tile<'a> {
    pub fn new(spec: &'a KernelSpec, packing: Packing, mr: usize) -> Self {
        Self {
            spec,
            packing,
            form: packing.form,
            mr,
            vectors: spec.nr / (spec.isa.width().bytes() / 4),
            stride: row_bytes(packing.k),
            mac: Mac::new(packing.form, spec.isa),
        }
    }

    pub fn program(&self) -> Program {
        let (form, k) = (self.form, self.packing.k);
        let (tokens, n_sums) = (self.mr / 2, form.k_padded(k) / form.sum_cols(k));
        let name = format!("{}-k{k}-m{}", self.spec, self.mr);
        let mut b = Builder::new(name, self.spec.isa.width());
        b.operand(Operand::Weights, self.packing.bytes(), Promise::Bits);
        b.operand(Operand::Acts, self.mr * self.stride, Promise::I8(-128, 127));
        let n_mins = if form.has_mins() { n_sums * tokens } else { 0 };
        // An offset is at most zero · 128 a column, the sum of 16-bit codes 128 · 257.
        let offset = 128 * form.max_zero();
        let most = if form.has_mins() {
            offset.max(128 * 257)
        } else {
            offset
        };
        let most = i32::try_from(most * form.sum_cols(k) as i64).expect("checked by `longest`");
        b.operand(
            Operand::Sums,
            4 * (n_sums * self.mr + n_mins),
            Promise::I32(-most, most),
        );
        let record = 4 * self.spec.nr * form.record_rows(k, tokens);
        b.operand(Operand::Out, form.blocks(k) * record, Promise::Bits);
        let consts = self.consts(&mut b);
        let groups = form.block_cols(k) / form.group_cols(k);
        let (group_bytes, group_cols) = (self.packing.group_bytes(), form.group_cols(k));
        let subs = group_cols / form.sum_cols(k);
        b.repeat(form.blocks(k), &[], |b, block, _| {
            let place = Place::default().turn(
                block,
                groups * group_bytes,
                groups * group_cols,
                groups * subs,
            );
            let sums = match form.sub {
                Some(_) => self.sub_blocks(b, &consts, &place),
                None => self.block(b, &consts, &place),
            };
            self.store(b, block, record, &sums);
            vec![]
        });
        b.finish()
    }

    fn consts(&self, b: &mut Builder) -> Consts {
        let mut masks: Vec<u8> = match self.form.bits {
            6 => vec![0x3F, 0x30, 0x0C, 0x03],
            5 => vec![0x0F, 0x10],
            4 => vec![0x0F],
            _ => vec![],
        };
        if self.mac.nibbles() && !masks.contains(&0x0F) {
            masks.push(0x0F);
        }
        let masks = masks.iter().map(|&m| (m, b.op(Op::Splat8(m)))).collect();
        let table = self.form.values.map(|values| {
            let at = b.consts(&values.map(|v| (i16::from(v) + 128) as u8));
            b.op(Op::LoadBcast128(Addr::new(Operand::Consts, at)))
        });
        let weights: &[i16] = match self.mac {
            Mac::Madd => &[1],
            Mac::MaddNibbles => &[1, 16],
            _ => &[],
        };
        let ones = weights.iter().map(|&w| b.op(Op::Splat16(w))).collect();
        Consts { masks, table, ones }
    }

    /// Accumulators of a plane and vector.
    fn parts(&self) -> usize {
        if self.mac == Mac::DotNibbles { 2 } else { 1 }
    }

    /// Accumulators that start from the offsets of the sub-block at `place`.
    fn start(&self, b: &mut Builder, place: &Place) -> Sums {
        let mut accs = Vec::new();
        for p in 0..self.mr {
            let offset = b.op(Op::LoadBcast32(place.sums(0, self.mr, p)));
            for _ in 0..self.vectors {
                accs.push(offset);
                if self.parts() == 2 {
                    accs.push(b.zero());
                }
            }
        }
        Sums {
            accs,
            pairs: vec![],
            added: 0,
        }
    }

    /// A block with sub-blocks: the totals of each plane and vector, then of the minimums.
    fn sub_blocks(&self, b: &mut Builder, consts: &Consts, place: &Place) -> Vec<Value> {
        let (form, k) = (self.form, self.packing.k);
        let cols = form.sum_cols(k);
        let (group_bytes, group_cols) = (self.packing.group_bytes(), form.group_cols(k));
        let n_mins = if form.has_mins() { self.mr / 2 } else { 0 };
        let zero = b.zero();
        let init = vec![zero; (self.mr + n_mins) * self.vectors];
        let groups = form.block_cols(k) / group_cols;
        b.repeat(groups, &init, |b, group, totals| {
            let place = place.turn(group, group_bytes, group_cols, 4);
            let mut totals = totals.to_vec();
            self.prefetch(b, &place, 0, self.packing.head_bytes());
            let scales = self.words(b, &place, 0);
            let mins = (n_mins > 0).then(|| self.words(b, &place, self.vectors));
            for sub in 0..4 {
                let mut at = place.clone();
                at.subs += sub;
                at.cols += sub * cols;
                at.weights += self.packing.head_bytes() + self.packing.code_bytes(sub * cols);
                let mut sums = self.start(b, &at);
                self.columns(b, consts, &at, cols, &mut sums);
                let accs = self.finish(b, consts, sums);
                for (v, &scales) in scales.iter().enumerate() {
                    let scale = byte_of(b, scales, sub);
                    for p in 0..self.mr {
                        let slot = p * self.vectors + v;
                        add_product(b, &mut totals[slot], accs[slot], scale);
                    }
                }
                let Some(mins) = &mins else { continue };
                let from = form.k_padded(k) / cols * self.mr;
                let mins: Vec<Value> = mins.iter().map(|&m| byte_of(b, m, sub)).collect();
                for t in 0..n_mins {
                    let x = b.op(Op::LoadBcast32(at.sums(from, n_mins, t)));
                    for (v, &min) in mins.iter().enumerate() {
                        let slot = (self.mr + t) * self.vectors + v;
                        add_product(b, &mut totals[slot], x, min);
                    }
                }
            }
            totals
        })
    }

    /// The vectors of one word in front of a group, `first` vectors in.
    fn words(&self, b: &mut Builder, place: &Place, first: usize) -> Vec<Value> {
        let w = b.width_bytes();
        (first..first + self.vectors)
            .map(|v| b.op(Op::Load(place.weights(v * w))))
            .collect()
    }

    /// A block without sub-blocks: the sums of each plane and vector.
    fn block(&self, b: &mut Builder, consts: &Consts, place: &Place) -> Vec<Value> {
        let cols = self.form.block_cols(self.packing.k);
        let mut sums = self.start(b, place);
        if self.form.block.is_some() {
            self.columns(b, consts, place, cols, &mut sums);
        } else {
            let bytes = self.packing.code_bytes(ROW_UNROLL_COLS);
            sums.accs = b.repeat(cols / ROW_UNROLL_COLS, &sums.accs, |b, turn, accs| {
                let place = place.turn(turn, bytes, ROW_UNROLL_COLS, 0);
                let mut sums = Sums {
                    accs: accs.to_vec(),
                    pairs: vec![],
                    added: 0,
                };
                self.columns(b, consts, &place, ROW_UNROLL_COLS, &mut sums);
                self.widen(b, consts, &mut sums);
                sums.accs
            });
        }
        self.finish(b, consts, sums)
    }

    /// Hints at the weights that are read some lines after the `bytes` from `at` on. Whole lines of panels count, so
    /// that each is asked for once.
    fn prefetch(&self, b: &mut Builder, place: &Place, at: usize, bytes: usize) {
        let ahead = self.spec.knob("pf", 0) as usize;
        if ahead > 0 {
            for line in at.div_ceil(64)..(at + bytes).div_ceil(64) {
                b.prefetch(place.weights(64 * (ahead + line)));
            }
        }
    }

    /// Adds the products of `cols` columns from `place` on.
    fn columns(
        &self,
        b: &mut Builder,
        consts: &Consts,
        place: &Place,
        cols: usize,
        sums: &mut Sums,
    ) {
        let (step_cols, _) = self.form.step();
        for step in 0..cols / step_cols {
            let at = self.packing.code_bytes(step * step_cols);
            self.prefetch(b, place, at, self.packing.code_bytes(step_cols));
            let steps: Vec<Step> = (0..self.vectors)
                .map(|v| self.step(b, place, at, v))
                .collect();
            for i in 0..step_cols / 4 {
                let parts: Vec<Vec<Value>> = steps
                    .iter()
                    .map(|step| {
                        let code = self.code(b, consts, step, i);
                        self.split(b, consts, code)
                    })
                    .collect();
                for p in 0..self.mr {
                    let x = place.acts(p * self.stride + step * step_cols + 4 * i);
                    let x = b.op(Op::LoadBcast32(x));
                    for (v, parts) in parts.iter().enumerate() {
                        self.mac(b, sums, (p * self.vectors + v, parts), x);
                    }
                }
                sums.added += 1;
                if self.mac.is_madd() && sums.added == self.pairs_fit() {
                    self.widen(b, consts, sums);
                }
            }
        }
    }

    /// The words of a step of vector `v`; in registers where those suffice.
    fn step(&self, b: &mut Builder, place: &Place, at: usize, v: usize) -> Step {
        let (w, word) = (b.width_bytes(), 4 * self.spec.nr);
        let words: Vec<Addr> = (0..self.form.step().1)
            .map(|i| place.weights(at + i * word + v * w))
            .collect();
        if words.len() > 4 && self.spec.isa.vector_registers() < 32 {
            Step::Memory(words)
        } else {
            Step::Loaded(words.into_iter().map(|a| b.op(Op::Load(a))).collect())
        }
    }

    /// Columns 4i to 4i + 3 of a step, as unsigned bytes.
    fn code(&self, b: &mut Builder, consts: &Consts, step: &Step, i: usize) -> Value {
        let masked = |b: &mut Builder, word: usize, shift: i8, mask: u8| {
            let x = step.word(b, word);
            let x = match shift {
                0 => x,
                1.. => b.op(Op::Shr16(x, shift as u8)),
                _ => b.op(Op::Shl16(x, shift.unsigned_abs())),
            };
            b.op(Op::And(x, consts.mask(mask)))
        };
        match (self.form.bits, i) {
            (6, 3) => {
                let high = masked(b, 0, 2, 0x30);
                let mid = masked(b, 1, 4, 0x0C);
                let both = b.op(Op::Or(high, mid));
                let low = masked(b, 2, 6, 0x03);
                b.op(Op::Or(both, low))
            }
            (6, _) => masked(b, i, 0, 0x3F),
            (5, _) => {
                let low = masked(b, i % 4, if i < 4 { 0 } else { 4 }, 0x0F);
                let fifth = masked(b, 4, i as i8 - 4, 0x10);
                b.op(Op::Or(low, fifth))
            }
            (4, _) => {
                let idx = masked(b, 0, 4 * i as i8, 0x0F);
                match consts.table {
                    Some(table) => b.op(Op::Shuffle16 { table, idx }),
                    None => idx,
                }
            }
            _ => step.word(b, 0),
        }
    }

    /// A code in the parts that are multiplied.
    fn split(&self, b: &mut Builder, consts: &Consts, code: Value) -> Vec<Value> {
        if !self.mac.nibbles() {
            return vec![code];
        }
        let mask = consts.mask(0x0F);
        let low = b.op(Op::And(code, mask));
        let shifted = b.op(Op::Shr16(code, 4));
        vec![low, b.op(Op::And(shifted, mask))]
    }

    fn mac(&self, b: &mut Builder, sums: &mut Sums, (slot, parts): (usize, &[Value]), x: Value) {
        for (i, &u) in parts.iter().enumerate() {
            let at = slot * parts.len() + i;
            if !self.mac.is_madd() {
                let acc = &mut sums.accs[at];
                *acc = b.op(Op::DotU8I8 { acc: *acc, u, s: x });
                continue;
            }
            let pair = b.op(Op::MaddU8I8 { u, s: x });
            match sums.pairs.get_mut(at) {
                Some(sum) => *sum = b.op(Op::Add16(*sum, pair)),
                None => sums.pairs.push(pair),
            }
        }
    }

    /// Products of pairs whose sum fits an i16.
    fn pairs_fit(&self) -> usize {
        let most = if self.mac.nibbles() {
            15
        } else {
            self.form.max_code()
        };
        (32_767 / (2 * most * 128)) as usize
    }

    /// Adds the pair sums to the accumulators.
    fn widen(&self, b: &mut Builder, consts: &Consts, sums: &mut Sums) {
        for (at, pair) in std::mem::take(&mut sums.pairs).into_iter().enumerate() {
            let parts = consts.ones.len();
            let wide = b.op(Op::MaddI16(pair, consts.ones[at % parts]));
            let acc = &mut sums.accs[at / parts];
            *acc = b.op(Op::Add32(*acc, wide));
        }
        sums.added = 0;
    }

    /// One sum for each plane and vector.
    fn finish(&self, b: &mut Builder, consts: &Consts, mut sums: Sums) -> Vec<Value> {
        self.widen(b, consts, &mut sums);
        if self.parts() == 1 {
            return sums.accs;
        }
        let pairs = sums.accs.chunks_exact(2);
        pairs
            .map(|pair| {
                let high = b.op(Op::Shl32(pair[1], 4));
                b.op(Op::Add32(pair[0], high))
            })
            .collect()
    }

    /// Stores the record of a block.
    fn store(&self, b: &mut Builder, block: Counter, record: usize, sums: &[Value]) {
        let w = b.width_bytes();
        let rows: Vec<Vec<Value>> = if self.form.is_joined(self.packing.k) {
            let tokens = sums.chunks_exact(2 * self.vectors);
            tokens
                .map(|token| {
                    let (high, low) = token.split_at(self.vectors);
                    let joined = high.iter().zip(low).map(|(&high, &low)| {
                        let high = b.op(Op::Shl32(high, 8));
                        b.op(Op::Add32(high, low))
                    });
                    joined.collect()
                })
                .collect()
        } else {
            sums.chunks_exact(self.vectors)
                .map(<[Value]>::to_vec)
                .collect()
        };
        for (i, row) in rows.iter().enumerate() {
            for (v, &value) in row.iter().enumerate() {
                let at = i * 4 * self.spec.nr + v * w;
                b.store(Addr::new(Operand::Out, at).step(block, record), value);
            }
        }
    }
}

/// Byte `i` of each dword, as a signed number.
fn byte_of(b: &mut Builder, word: Value, i: usize) -> Value {
    let up = match i {
        3 => word,
        _ => b.op(Op::Shl32(word, 24 - 8 * i as u8)),
    };
    b.op(Op::Sar32(up, 24))
}

/// `total += a · b`.
fn add_product(b: &mut Builder, total: &mut Value, x: Value, y: Value) {
    let product = b.op(Op::MulLo32(x, y));
    *total = b.op(Op::Add32(*total, product));
}
