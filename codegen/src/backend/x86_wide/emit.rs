//! Walks the flat program once, gives out registers as values are defined, and lists the instructions.
//!
//! Longer than 500 lines: one walk, whose arms share its state.

use super::encode::{Item, constant, memory};
use super::order::{Node, Order};
use super::pointers::{Done, Place, Pointers};
use super::regs::{File, GENERAL_COUNT, general, to_save};
use super::select::{Shape, Target};
use super::values::{Effort, Memory, Values};
use crate::program::{Element, Op, Value};
use iced_x86::{Code, Instruction, MemoryOperand, Register};

/// What an attempt came to.
pub(super) struct Attempt {
    /// The code; meaningless unless both files fit.
    pub items: Vec<Item>,
    /// Vector registers that it takes.
    pub vectors: usize,
    /// General registers that it takes.
    pub generals: usize,
}

/// Where a source is.
#[derive(Clone, Copy)]
enum Source {
    Register(Register),
    Memory(MemoryOperand),
    Constant(usize, bool),
}

/// The walk.
pub(super) struct Emitter<'a, 'p> {
    pub(super) order: &'a Order<'p>,
    pub(super) values: &'a Values,
    pub(super) pointers: &'a Pointers,
    pub(super) target: Target,
    pub(super) effort: Effort,
    pub(super) items: Vec<Item>,
    pub(super) vectors: File,
    pub(super) generals: File,
    /// Register of each value.
    pub(super) register: Vec<Option<usize>>,
    /// Register of each constant.
    pub(super) constant: Vec<Option<usize>>,
    /// Register of each loop's parameters, by parameter.
    pub(super) home: Vec<Option<usize>>,
    pub(super) pointer: Vec<Option<usize>>,
    pub(super) scaled: Vec<Option<usize>>,
    /// Loads of several indices by position: the register, and the byte that a rotation has brought down.
    pub(super) words: Vec<Option<(usize, usize)>>,
    pub(super) counter: Vec<Option<Counter>>,
    /// Bytes of stack.
    pub(super) stack: usize,
}

#[derive(Clone, Copy)]
pub(super) enum Counter {
    Register(usize),
    Stack(usize),
}

/// Builds an instruction that must exist.
macro_rules! ins {
    ($n:ident($code:expr, $($op:expr),*)) => {
        Instruction::$n($code, $($op),*).unwrap_or_else(|e| panic!("{:?}: {e}", $code))
    };
}
pub(super) use ins;

impl<'a, 'p> Emitter<'a, 'p> {
    /// Emits the whole program.
    pub fn attempt(
        order: &'a Order<'p>,
        values: &'a Values,
        pointers: &'a Pointers,
        target: Target,
        effort: Effort,
    ) -> Attempt {
        let mut e = Self {
            order,
            values,
            pointers,
            target,
            effort,
            items: Vec::with_capacity(2 * order.nodes.len()),
            vectors: File::new(target.isa.vector_registers()),
            generals: File::new(GENERAL_COUNT),
            register: vec![None; values.last.len()],
            constant: vec![None; values.patterns.len()],
            home: vec![None; values.last.len()],
            pointer: vec![None; pointers.pointers.len()],
            scaled: vec![None; pointers.scaled.len()],
            words: vec![None; order.nodes.len()],
            counter: vec![None; order.loops.len()],
            stack: 0,
        };
        for at in 0..order.nodes.len() {
            // The load of several indices comes before anything is taken out of it.
            e.before(at);
            e.node(at);
            e.after(at);
        }
        let (vectors, generals) = (e.vectors.peak, e.generals.peak);
        Attempt {
            items: e.frame(),
            vectors,
            generals,
        }
    }

    pub(super) fn plain(&mut self, instruction: Instruction) {
        self.items.push(Item::Plain(instruction));
    }

    /// Prologue, body, epilogue.
    fn frame(self) -> Vec<Item> {
        let saved = to_save(self.generals.used);
        let mut items = Vec::with_capacity(self.items.len() + 2 * saved.len() + 4);
        for &r in saved {
            items.push(Item::Plain(ins!(with1(Code::Push_r64, r))));
        }
        if self.stack > 0 {
            items.push(Item::Plain(ins!(with2(
                Code::Sub_rm64_imm32,
                Register::RSP,
                self.stack as i32
            ))));
        }
        items.extend(self.items);
        if self.stack > 0 {
            items.push(Item::Plain(ins!(with2(
                Code::Add_rm64_imm32,
                Register::RSP,
                self.stack as i32
            ))));
        }
        for &r in saved.iter().rev() {
            items.push(Item::Plain(ins!(with1(Code::Pop_r64, r))));
        }
        items.push(Item::Plain(Instruction::with(Code::VEX_Vzeroupper)));
        items.push(Item::Plain(Instruction::with(Code::Retnq)));
        items
    }

    /// Brings in pointers and constants that are needed from here on.
    fn before(&mut self, at: usize) {
        let pointers = self.pointers;
        for &i in &pointers.ready[at] {
            let p = &pointers.pointers[i];
            let r = self.generals.get(None);
            self.pointer[i] = Some(r);
            let from = memory(Register::RDI, None, 8 * p.operand as i64, false);
            self.plain(ins!(with2(Code::Mov_r64_rm64, general(r), from)));
            self.add(r, p.bias);
        }
        let values = self.values;
        for &i in &pointers.extract[at] {
            self.extract(i);
        }
        for &id in &values.ready[at] {
            let r = self.vectors.get(None);
            self.constant[id] = Some(r);
            self.make(r, id);
        }
    }

    /// Frees what was needed up to here.
    fn after(&mut self, at: usize) {
        let values = self.values;
        for &v in &values.deaths[at] {
            if let Some(r) = self.register[v.0 as usize].take() {
                self.vectors.give(r);
            }
        }
        for (id, &last) in values.constant_last.iter().enumerate() {
            if last == at
                && let Some(r) = self.constant[id].take()
            {
                self.vectors.give(r);
            }
        }
        let pointers = self.pointers;
        for &done in &pointers.done[at] {
            let r = match done {
                Done::Pointer(i) => self.pointer[i].take(),
                Done::Scaled(i) => self.scaled[i].take(),
                Done::Word(i) => self.words[i].take().map(|w| w.0),
            };
            if let Some(r) = r {
                self.generals.give(r);
            }
        }
    }

    /// Adds a constant to a general register.
    pub(super) fn add(&mut self, r: usize, by: i64) {
        if by == 0 {
            return;
        }
        let by = i32::try_from(by).expect("strides were checked");
        let code = if i8::try_from(by).is_ok() {
            Code::Add_rm64_imm8
        } else {
            Code::Add_rm64_imm32
        };
        self.plain(ins!(with2(code, general(r), by)));
    }

    /// Puts constant `id` into register `r`.
    pub(super) fn make(&mut self, r: usize, id: usize) {
        use Code::*;
        let (t, v) = (self.target, self.target.vector(r));
        match self.values.patterns[id] {
            0 => {
                let code = t.pick(
                    VEX_Vpxor_ymm_ymm_ymmm256,
                    EVEX_Vpxord_zmm_k1z_zmm_zmmm512b32,
                );
                self.plain(ins!(with3(code, v, v, v)));
            }
            u32::MAX if t.wide => self.plain(ins!(with4(
                EVEX_Vpternlogd_zmm_k1z_zmm_zmmm512b32_imm8,
                v,
                v,
                v,
                0xFF
            ))),
            u32::MAX => self.plain(ins!(with3(VEX_Vpcmpeqd_ymm_ymm_ymmm256, v, v, v))),
            _ => {
                let code = t.pick(
                    VEX_Vpbroadcastd_ymm_xmmm32,
                    EVEX_Vpbroadcastd_zmm_k1z_xmmm32,
                );
                self.items
                    .push(Item::Constant(ins!(with2(code, v, constant(false))), id));
            }
        }
    }

    pub(super) fn copy(&mut self, to: usize, from: usize) {
        if to != from {
            let t = self.target;
            let code = t.pick(
                Code::VEX_Vmovdqa_ymm_ymmm256,
                Code::EVEX_Vmovdqa64_zmm_k1z_zmmm512,
            );
            self.plain(ins!(with2(code, t.vector(to), t.vector(from))));
        }
    }

    /// Copies or makes `v` in register `to`.
    fn bring(&mut self, to: usize, v: Value) {
        match self.values.constant[v.0 as usize] {
            Some(id) => self.make(to, id),
            None => self.copy(to, self.at(v)),
        }
    }

    /// The register that `v` is in.
    pub(super) fn at(&self, v: Value) -> usize {
        let held = match self.values.constant[v.0 as usize] {
            Some(id) => self.constant[id],
            None => self.register[v.0 as usize],
        };
        held.unwrap_or_else(|| panic!("value {} is in no register", v.0))
    }

    fn vector(&self, v: Value) -> Register {
        self.target.vector(self.at(v))
    }

    /// The memory operand of the address of node `def`.
    pub(super) fn operand(&self, def: usize, bcast: bool) -> MemoryOperand {
        let Place {
            pointer,
            index,
            offset,
        } = self.pointers.places[def].expect("the address was collected");
        let base = general(self.pointer[pointer].expect("the pointer is loaded"));
        let index = index.map(|(id, sib)| {
            let r = self.scaled[id].expect("the index is loaded");
            (general(r), sib)
        });
        memory(
            base,
            index,
            offset - self.pointers.pointers[pointer].bias,
            bcast,
        )
    }

    /// Whether `v` is in a register that dies at `at`.
    fn dies(&self, v: Value, at: usize) -> bool {
        self.values.constant[v.0 as usize].is_none() && self.values.last[v.0 as usize] == at
    }

    /// Frees the register of `v` if it dies at `at`; returns it.
    pub(super) fn release(&mut self, v: Value, at: usize) -> Option<usize> {
        if !self.dies(v, at) {
            return None;
        }
        let r = self.register[v.0 as usize].take()?;
        self.vectors.give(r);
        Some(r)
    }

    /// The register that `v` should end in, if it is free.
    pub(super) fn wish(&self, v: Value) -> Option<usize> {
        let param = self.values.wanted[v.0 as usize]?;
        self.home[param.0 as usize].filter(|&r| self.vectors.is_free(r))
    }

    fn node(&mut self, at: usize) {
        match self.order.nodes[at] {
            Node::Let(v, op) => self.op(at, v, op),
            Node::Index { index, bytes, .. } => self.index(at, index.0 as usize, bytes),
            Node::Indices { shift, .. } => self.word(at, shift),
            Node::Store(_, v) => {
                let v = self.vector(v);
                self.store(at, v);
            }
            Node::Accumulate(element, _, v) => self.accumulate(at, element, v),
            Node::Prefetch(_) => {
                let m = self.operand(at, false);
                self.plain(ins!(with1(Code::Prefetcht0_m8, m)));
            }
            Node::Start(l) => self.start(at, l),
            Node::End(l) => self.end(l),
        }
    }

    fn store(&mut self, at: usize, v: Register) {
        let code = self.target.pick(
            Code::VEX_Vmovdqu_ymmm256_ymm,
            Code::EVEX_Vmovdqu64_zmmm512_k1z_zmm,
        );
        let m = self.operand(at, false);
        self.plain(ins!(with2(code, m, v)));
    }

    fn accumulate(&mut self, at: usize, element: Element, v: Value) {
        use Code::*;
        let code = match element {
            Element::I16 => self
                .target
                .pick(VEX_Vpaddw_ymm_ymm_ymmm256, EVEX_Vpaddw_zmm_k1z_zmm_zmmm512),
            Element::I32 => self.target.pick(
                VEX_Vpaddd_ymm_ymm_ymmm256,
                EVEX_Vpaddd_zmm_k1z_zmm_zmmm512b32,
            ),
        };
        let source = self.vector(v);
        self.release(v, at);
        let sum = self.vectors.get(None);
        let (to, m) = (self.target.vector(sum), self.operand(at, false));
        self.plain(ins!(with3(code, to, source, m)));
        self.store(at, to);
        self.vectors.give(sum);
    }

    /// Where input `slot` of the op at `at` is.
    fn source(&self, at: usize, slot: usize, v: Value) -> Source {
        match self.values.memory[at] {
            Some((s, from)) if s == slot => match from {
                Memory::Load { at, bcast } => Source::Memory(self.operand(at, bcast)),
                Memory::Constant { id, bcast } => Source::Constant(id, bcast),
            },
            _ => Source::Register(self.vector(v)),
        }
    }

    /// `dst = code(a, b)`.
    fn three(&mut self, code: Code, dst: Register, a: Register, b: Source) {
        match b {
            Source::Register(b) => self.plain(ins!(with3(code, dst, a, b))),
            Source::Memory(m) => self.plain(ins!(with3(code, dst, a, m))),
            Source::Constant(id, bcast) => {
                let i = ins!(with3(code, dst, a, constant(bcast)));
                self.items.push(Item::Constant(i, id));
            }
        }
    }

    fn op(&mut self, at: usize, v: Value, op: &Op) {
        let i = v.0 as usize;
        let shape = self.values.shapes[at].expect("every op has a shape");
        let dead = self.values.uses[i] == 0 && shape != Shape::Drain;
        if dead || self.values.folded[i] || shape == Shape::Splat {
            return;
        }
        let inputs = op.inputs();
        match shape {
            Shape::Splat => {}
            Shape::Load(code) => {
                let m = self.operand(at, false);
                let to = self.define(v, &[], at);
                self.plain(ins!(with2(code, to, m)));
            }
            Shape::Drain => self.drain(at, v),
            Shape::Two {
                code, mut first, ..
            } => {
                // The input in memory comes last.
                if self.values.memory[at].is_some_and(|(slot, _)| slot == first) {
                    first = 1 - first;
                }
                let Source::Register(a) = self.source(at, first, inputs[first]) else {
                    panic!("the first source is a register");
                };
                let b = self.source(at, 1 - first, inputs[1 - first]);
                let to = self.define(v, &inputs, at);
                self.three(code, to, a, b);
            }
            Shape::One(code) => {
                let from = self.source(at, 0, inputs[0]);
                let to = self.define(v, &inputs, at);
                match from {
                    Source::Register(r) => self.plain(ins!(with2(code, to, r))),
                    Source::Memory(m) => self.plain(ins!(with2(code, to, m))),
                    Source::Constant(id, bcast) => {
                        let i = ins!(with2(code, to, constant(bcast)));
                        self.items.push(Item::Constant(i, id));
                    }
                }
            }
            Shape::Shift { code, imm, .. } => {
                let from = self.source(at, 0, inputs[0]);
                let to = self.define(v, &inputs, at);
                match from {
                    Source::Register(r) => self.plain(ins!(with3(code, to, r, imm))),
                    Source::Memory(m) => self.plain(ins!(with3(code, to, m, imm))),
                    Source::Constant(..) => panic!("a shift of a constant is in a register"),
                }
            }
            Shape::Dot { code, .. } => {
                let (u, s) = (self.vector(inputs[1]), self.source(at, 2, inputs[2]));
                let to = self.update(v, inputs[0], at);
                self.three(code, to, u, s);
            }
            Shape::Lut128 => self.lut128(at, v, &inputs),
        }
    }

    /// A register for `v`, which no instruction has to read first; inputs that die make room.
    fn define(&mut self, v: Value, inputs: &[Value], at: usize) -> Register {
        let mut freed = None;
        for &x in inputs {
            freed = freed.or(self.release(x, at));
        }
        let r = self.vectors.get(self.wish(v).or(freed));
        self.register[v.0 as usize] = Some(r);
        self.target.vector(r)
    }

    /// A register for `v` that holds `from` and will be updated in place.
    fn update(&mut self, v: Value, from: Value, at: usize) -> Register {
        let r = match self.release(from, at) {
            Some(r) => {
                self.vectors.take(r);
                r
            }
            None => {
                let r = self.vectors.get(self.wish(v));
                self.bring(r, from);
                r
            }
        };
        self.register[v.0 as usize] = Some(r);
        self.target.vector(r)
    }

    fn drain(&mut self, at: usize, v: Value) {
        if self.values.uses[v.0 as usize] > 0 {
            let code = self.target.pick(
                Code::VEX_Vmovdqu_ymm_ymmm256,
                Code::EVEX_Vmovdqu64_zmm_k1z_zmmm512,
            );
            let m = self.operand(at, false);
            let to = self.define(v, &[], at);
            self.plain(ins!(with2(code, to, m)));
        }
        let zero = self.vectors.get(None);
        let code = self.target.pick(
            Code::VEX_Vpxor_ymm_ymm_ymmm256,
            Code::EVEX_Vpxord_zmm_k1z_zmm_zmmm512b32,
        );
        let z = self.target.vector(zero);
        self.plain(ins!(with3(code, z, z, z)));
        self.store(at, z);
        self.vectors.give(zero);
    }

    fn lut128(&mut self, at: usize, v: Value, inputs: &[Value]) {
        let (lo, idx) = (inputs[0], inputs[2]);
        let hi = self.source(at, 1, inputs[1]);
        let (l, i) = (self.vector(lo), self.vector(idx));
        if self.dies(lo, at) && !self.dies(idx, at) {
            let to = self.update(v, lo, at);
            self.three(Code::EVEX_Vpermt2b_zmm_k1z_zmm_zmmm512, to, i, hi);
        } else {
            let to = self.update(v, idx, at);
            self.three(Code::EVEX_Vpermi2b_zmm_k1z_zmm_zmmm512, to, l, hi);
        }
    }
}
