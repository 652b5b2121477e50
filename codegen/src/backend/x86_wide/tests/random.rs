//! Random programs over all ops: whatever the registers hold equals the interpreter, bit for bit.

use super::{Run, runnable};
use crate::isa::Isa;
use crate::program::{
    Addr, Builder, Counter, Element, Index, Op, Operand, Program, Promise, Value,
};
use proptest::prelude::*;
use std::cell::Cell;

/// Bytes that indices, loops and offsets together may reach past an operand's start.
const REACH: usize = 32768;

/// What a statement may refer to.
#[derive(Clone, Default)]
struct Scope {
    values: Vec<Value>,
    indices: Vec<Index>,
    loops: Vec<Counter>,
}

/// Draws statements.
struct Draw {
    b: Builder,
    state: u64,
    isa: Isa,
    left: usize,
    /// Every byte below 16, so that it can index a shuffle.
    nibbles: Value,
    /// i16 lanes of at most 15, whose sums in memory stay small.
    small: Value,
}

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 20) as usize % n
    }

    fn value(&mut self, s: &Scope) -> Value {
        // Mostly what is young, so that lives are short enough for the registers.
        let back = self.below(6)
            + if self.below(4) == 0 {
                self.below(20)
            } else {
                0
            };
        s.values[s.values.len() - 1 - back.min(s.values.len() - 1)]
    }

    fn address(&mut self, s: &Scope, operand: Operand, grain: usize) -> Addr {
        let mut a = Addr::new(operand, self.below(300) / grain * grain);
        for &c in &s.loops {
            if self.below(2) == 0 {
                a = a.step(c, self.below(130) / grain * grain);
            }
        }
        if grain == 1 && self.below(4) == 0 && !s.indices.is_empty() {
            let i = s.indices[self.below(s.indices.len())];
            a = a.entry(i, [1, 2, 3, 4, 8, 12][self.below(6)]);
        }
        a
    }

    fn op(&mut self, s: &Scope) -> Op {
        let (a, b) = (self.value(s), self.value(s));
        let c = self.value(s);
        let readable = [Operand::Weights, Operand::Acts, Operand::Scratch0][self.below(3)];
        match self.below(35) {
            0 => Op::Splat8(self.below(256) as u8),
            1 => Op::Splat16(self.below(65536) as u16 as i16),
            2 => Op::Splat32([0, -1, 1, 77][self.below(4)]),
            3..=5 => Op::Load(self.address(s, readable, 1)),
            6 | 7 => Op::LoadBcast32(self.address(s, readable, 1)),
            8 => Op::LoadBcast128(self.address(s, readable, 1)),
            9 => Op::Drain(self.address(s, Operand::Scratch0, 1)),
            10 => Op::And(a, b),
            11 => Op::Or(a, b),
            12 => Op::Xor(a, b),
            13 => Op::Add8(a, b),
            14 => Op::Sub8(a, b),
            15 => Op::SubSatU8(a, b),
            16 => Op::MinU8(a, b),
            17 => Op::Add16(a, b),
            18 => Op::Sub16(a, b),
            19 => Op::Add32(a, b),
            20 => Op::Sub32(a, b),
            21 => Op::MulLo32(a, b),
            22 => Op::Shr16(a, self.below(16) as u8),
            23 => Op::Sar16(a, self.below(16) as u8),
            24 => Op::Shl32(a, self.below(32) as u8),
            25 => Op::Sar32(a, self.below(32) as u8),
            26 => Op::MaddU8I8 { u: a, s: b },
            27 => Op::MaddI16(a, b),
            28 => Op::Shuffle16 {
                table: a,
                idx: self.nibbles,
            },
            29 if self.isa.has_wide_lut() => Op::Lut64 { table: a, idx: b },
            30 if self.isa.has_wide_lut() => Op::Lut128 {
                lo: a,
                hi: b,
                idx: c,
            },
            29 | 30 => Op::InterleaveLo8(a, b),
            31 => Op::InterleaveHi8(a, b),
            32 => Op::InterleaveHi16(a, b),
            _ if self.isa.has_dot() => Op::DotU8I8 { acc: a, u: b, s: c },
            _ => Op::InterleaveLo16(a, b),
        }
    }

    fn statement(&mut self, s: &mut Scope) {
        match self.below(24) {
            0 => {
                let a = self.address(s, Operand::Acts, 1);
                s.indices.push(self.b.index8(Addr { index: None, ..a }));
            }
            1 => {
                let a = self.address(s, Operand::Acts, 1);
                let (n, shift) = ([4, 8][self.below(2)], [0, 2, 3][self.below(3)]);
                let i = self.b.indices8(n, Addr { index: None, ..a }, shift);
                s.indices.extend(i);
            }
            2 | 3 => {
                let (a, v) = (self.address(s, Operand::Scratch0, 1), self.value(s));
                self.b.store(a, v);
            }
            4 => {
                let lanes = [Element::I16, Element::I32][self.below(2)];
                let a = self.address(s, Operand::Scratch1, 2);
                self.b.accumulate(lanes, a, self.small);
            }
            5 => {
                let a = self.address(s, Operand::Weights, 1);
                self.b.prefetch(a.plus(4096));
            }
            6 if s.loops.len() < 3 => self.repeat(s),
            7 => {
                let v = self.value(s);
                let mask = self.b.op(Op::Splat8(15));
                self.nibbles = self.b.op(Op::And(v, mask));
                // Only this scope and those inside may use it; `repeat` puts the old one back.
                s.values.push(self.nibbles);
            }
            _ => {
                let op = self.op(s);
                s.values.push(self.b.op(op));
            }
        }
    }

    fn statements(&mut self, s: &mut Scope) {
        let n = 1 + self.below(10);
        for _ in 0..n {
            if self.left == 0 {
                return;
            }
            self.left -= 1;
            self.statement(s);
        }
    }

    fn repeat(&mut self, s: &mut Scope) {
        let init: Vec<Value> = (0..self.below(5)).map(|_| self.value(s)).collect();
        let trip = 1 + self.below(4);
        let nibbles = self.nibbles;
        let mut inner = s.clone();
        // The builder wants a closure over itself; the draw lends it out for the body.
        let empty = Builder::new("", self.isa.width());
        let mut builder = std::mem::replace(&mut self.b, empty);
        let results = builder.repeat(trip, &init, |b, c, params| {
            let spare = std::mem::replace(b, Builder::new("", self.isa.width()));
            self.b = spare;
            inner.loops.push(c);
            inner.values.extend(params);
            self.statements(&mut inner);
            let next = params.iter().map(|_| self.value(&inner)).collect();
            *b = std::mem::replace(&mut self.b, Builder::new("", self.isa.width()));
            next
        });
        self.b = builder;
        self.nibbles = nibbles;
        s.values.extend(results);
    }
}

fn program(seed: u64, size: usize, isa: Isa) -> Program {
    let w = isa.width().bytes();
    let mut b = Builder::new(format!("random-{seed}-{size}"), isa.width());
    for o in [
        Operand::Weights,
        Operand::Acts,
        Operand::Scratch0,
        Operand::Scratch1,
    ] {
        b.operand(o, REACH, Promise::Bits);
    }
    b.operand(Operand::Out, 24 * w, Promise::Bits);
    let first = b.op(Op::Load(Addr::new(Operand::Weights, 0)));
    let fifteen = b.op(Op::Splat8(15));
    let nibbles = b.op(Op::And(first, fifteen));
    let fifteen = b.op(Op::Splat16(15));
    let small = b.op(Op::And(first, fifteen));
    let mut draw = Draw {
        b,
        state: seed | 1,
        isa,
        left: size,
        nibbles,
        small,
    };
    let mut scope = Scope {
        values: vec![first, nibbles],
        ..Scope::default()
    };
    while draw.left > 0 {
        draw.statements(&mut scope);
    }
    let mut b = draw.b;
    let last = scope.values.len().min(6);
    for (i, &v) in scope.values.iter().rev().take(last).enumerate() {
        b.store(Addr::new(Operand::Out, i * w), v);
    }
    // What is left in working memory shows, too.
    for i in 0..8 {
        let x = b.op(Op::Load(Addr::new(Operand::Scratch0, i * w)));
        b.store(Addr::new(Operand::Out, (8 + i) * w), x);
        let y = b.op(Op::Load(Addr::new(Operand::Scratch1, i * w)));
        b.store(Addr::new(Operand::Out, (16 + i) * w), y);
    }
    b.finish()
}

thread_local! {
    /// Programs drawn, and programs that the registers held.
    static DRAWN: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

fn check(seed: u64, size: usize) {
    for isa in runnable() {
        let p = program(seed, size, isa);
        let (drawn, ran) = DRAWN.get();
        match Run::new(&p, isa) {
            Ok(run) => {
                let weights: Vec<u8> = (0..REACH).map(|i| super::noise(i, seed) as u8).collect();
                let acts: Vec<u8> = (0..REACH).map(|i| super::noise(i, !seed) as u8).collect();
                run.compare(&weights, &acts, &format!("{isa}, seed {seed}, size {size}"));
                DRAWN.set((drawn + 1, ran + 1));
            }
            Err(e) => {
                assert!(e.why.to_string().contains("registers"), "{e}");
                DRAWN.set((drawn + 1, ran));
            }
        }
    }
}

#[test]
fn random_programs_equal_the_interpreter() {
    proptest!(ProptestConfig::with_cases(400), |(seed in any::<u64>(), size in 1usize..120)| {
        check(seed, size);
    });
    let (drawn, ran) = DRAWN.get();
    assert!(
        2 * ran >= drawn,
        "only {ran} of {drawn} random programs fit the registers"
    );
}
