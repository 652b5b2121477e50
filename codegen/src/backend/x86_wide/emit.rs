//! Walks the flat program once, gives out registers as values are defined, and lists the instructions.

use super::encode::{Item, constant, memory};
use super::order::{Node, Order};
use super::pointers::{Done, Place, Pointers};
use super::regs::{File, GENERAL_COUNT, general, low8, to_save};
use super::select::{Shape, Target};
use super::values::{Effort, Memory, Values};
use crate::program::{Lanes, Op, Value};
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
    order: &'a Order<'p>,
    values: &'a Values,
    pointers: &'a Pointers,
    target: Target,
    effort: Effort,
    items: Vec<Item>,
    vectors: File,
    generals: File,
    /// Register of each value.
    register: Vec<Option<usize>>,
    /// Register of each constant.
    constant: Vec<Option<usize>>,
    /// Register of each loop's parameters, by parameter.
    home: Vec<Option<usize>>,
    pointer: Vec<Option<usize>>,
    scaled: Vec<Option<usize>>,
    /// Loads of several indices by position: the register, and the byte that a rotation has brought down.
    words: Vec<Option<(usize, usize)>>,
    counter: Vec<Option<Counter>>,
    /// Bytes of stack.
    stack: usize,
}

#[derive(Clone, Copy)]
enum Counter {
    Register(usize),
    Stack(usize),
}

/// Builds an instruction that must exist.
macro_rules! ins {
    ($n:ident($code:expr, $($op:expr),*)) => {
        Instruction::$n($code, $($op),*).unwrap_or_else(|e| panic!("{:?}: {e}", $code))
    };
}

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

    fn plain(&mut self, instruction: Instruction) {
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
    fn add(&mut self, r: usize, by: i64) {
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
    fn make(&mut self, r: usize, id: usize) {
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

    fn copy(&mut self, to: usize, from: usize) {
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
    fn at(&self, v: Value) -> usize {
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
    fn operand(&self, def: usize, bcast: bool) -> MemoryOperand {
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
    fn release(&mut self, v: Value, at: usize) -> Option<usize> {
        if !self.dies(v, at) {
            return None;
        }
        let r = self.register[v.0 as usize].take()?;
        self.vectors.give(r);
        Some(r)
    }

    /// The register that `v` should end in, if it is free.
    fn wish(&self, v: Value) -> Option<usize> {
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
            Node::Accumulate(lanes, _, v) => self.accumulate(at, lanes, v),
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

    fn accumulate(&mut self, at: usize, lanes: Lanes, v: Value) {
        use Code::*;
        let code = match lanes {
            Lanes::I16 => self
                .target
                .pick(VEX_Vpaddw_ymm_ymm_ymmm256, EVEX_Vpaddw_zmm_k1z_zmm_zmmm512),
            Lanes::I32 => self.target.pick(
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

    fn index(&mut self, at: usize, index: usize, bytes: usize) {
        let code = if bytes == 1 {
            Code::Movzx_r32_rm8
        } else {
            Code::Movzx_r32_rm16
        };
        let m = self.operand(at, false);
        self.products(index, |r| (ins!(with2(code, r.full_register32(), m)), None));
    }

    /// Brings `index` into a register by `load` and multiplies it as its users need.
    fn products(
        &mut self,
        index: usize,
        load: impl Fn(Register) -> (Instruction, Option<Instruction>),
    ) {
        let pointers = self.pointers;
        let mut plain = None;
        for &id in &pointers.indices[index].scaled {
            let r = self.generals.get(None);
            self.scaled[id] = Some(r);
            let r = general(r);
            match plain {
                Some(p) => self.plain(ins!(with2(Code::Mov_r64_rm64, r, p))),
                None => {
                    let (first, second) = load(r);
                    self.items.push(Item::Plain(first));
                    self.items.extend(second.map(Item::Plain));
                }
            }
            match pointers.scaled[id].factor {
                1 => plain = Some(r),
                f if f.is_power_of_two() => {
                    let by = f.trailing_zeros() as i32;
                    self.plain(ins!(with2(Code::Shl_rm64_imm8, r, by)));
                }
                f => self.plain(ins!(with3(Code::Imul_r64_rm64_imm32, r, r, f as i32))),
            }
        }
    }

    /// Loads several indices as one word, with the first one where its shift wants it.
    fn word(&mut self, at: usize, shift: u8) {
        let Node::Indices { indices, .. } = self.order.nodes[at] else {
            panic!("node {at} loads no indices");
        };
        let used = indices
            .iter()
            .any(|i| !self.pointers.indices[i.0 as usize].scaled.is_empty());
        if !used {
            return;
        }
        let r = self.generals.get(None);
        self.words[at] = Some((r, 0));
        let (r, m) = (general(r), self.operand(at, false));
        if indices.len() == 4 {
            self.plain(ins!(with2(Code::Mov_r32_rm32, r.full_register32(), m)));
        } else {
            self.plain(ins!(with2(Code::Mov_r64_rm64, r, m)));
        }
        if shift > 0 {
            self.plain(ins!(with2(Code::Rol_rm64_imm8, r, shift as i32)));
        }
    }

    /// Takes `index` out of its word: rotate its byte down, copy, mask.
    fn extract(&mut self, index: usize) {
        let using = &self.pointers.indices[index];
        let (byte, shift) = using.packed.expect("an index of several");
        let (r, down) = self.words[using.def].expect("the word is loaded");
        let word = general(r);
        let by = (8 * (byte + 8 - down) % 64) as i32;
        if by > 0 {
            self.plain(ins!(with2(Code::Ror_rm64_imm8, word, by)));
            self.words[using.def] = Some((r, byte));
        }
        let mask = 0xFF << shift;
        self.products(index, |r| {
            let r = r.full_register32();
            if shift == 0 {
                (ins!(with2(Code::Movzx_r32_rm8, r, low8(word))), None)
            } else {
                let copy = ins!(with2(Code::Mov_r32_rm32, r, word.full_register32()));
                let and = ins!(with2(Code::And_rm32_imm32, r, mask));
                (copy, Some(and))
            }
        });
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

    fn start(&mut self, at: usize, l: usize) {
        let span = self.order.loops[l];
        // Parameters whose start value dies here take over its register; the rest get copies.
        for c in &span.stmt.carried {
            if let Some(r) = self.release(c.init, at) {
                self.vectors.take(r);
                self.register[c.param.0 as usize] = Some(r);
                self.home[c.param.0 as usize] = Some(r);
                // A second parameter that starts from the same value copies it from there.
                self.home[c.init.0 as usize] = Some(r);
            }
        }
        for c in &span.stmt.carried {
            if self.home[c.param.0 as usize].is_some() {
                continue;
            }
            let r = self.vectors.get(self.wish(c.param));
            match self.values.constant[c.init.0 as usize] {
                Some(id) => self.make(r, id),
                None => {
                    let i = c.init.0 as usize;
                    let from = self.register[i].or(self.home[i]);
                    self.copy(r, from.expect("a start value is in a register"));
                }
            }
            self.register[c.param.0 as usize] = Some(r);
            self.home[c.param.0 as usize] = Some(r);
        }
        for c in &span.stmt.carried {
            let r = self.home[c.param.0 as usize].expect("every parameter has a register");
            self.vectors.reserve(r);
        }
        if span.stmt.trip > 1 {
            self.count(l);
            self.items
                .push(Item::Head(l, if span.innermost { 64 } else { 16 }));
        }
    }

    /// Sets the counter of loop `l`.
    fn count(&mut self, l: usize) {
        let span = self.order.loops[l];
        let trip = span.stmt.trip as i32;
        if self.effort.counters_on_stack && !span.innermost {
            let slot = 8 * self.order.depth(l);
            self.stack = self.stack.max(slot + 8);
            self.counter[l] = Some(Counter::Stack(slot));
            let m = memory(Register::RSP, None, slot as i64, false);
            self.plain(ins!(with2(Code::Mov_rm32_imm32, m, trip)));
        } else {
            let r = self.generals.get(None);
            self.counter[l] = Some(Counter::Register(r));
            let r = general(r).full_register32();
            self.plain(ins!(with2(Code::Mov_r32_imm32, r, trip)));
        }
    }

    fn end(&mut self, l: usize) {
        let span = self.order.loops[l];
        for p in 0..self.pointer.len() {
            if let Some(r) = self.pointer[p] {
                self.add(r, self.pointers.advance(p, l, self.order));
            }
        }
        self.carry(l);
        match self.counter[l].take() {
            Some(Counter::Register(r)) => {
                self.plain(ins!(with1(Code::Dec_rm32, general(r).full_register32())));
                self.items.push(Item::Back(l));
                self.generals.give(r);
            }
            Some(Counter::Stack(slot)) => {
                let m = memory(Register::RSP, None, slot as i64, false);
                self.plain(ins!(with1(Code::Dec_rm32, m)));
                self.items.push(Item::Back(l));
            }
            None => {}
        }
        // Everything of the body is dead now; the results own the homes.
        let values = self.values;
        for &v in &values.deaths[span.end] {
            if let Some(r) = self.register[v.0 as usize].take() {
                self.vectors.give(r);
            }
        }
        for c in &span.stmt.carried {
            let r = self.home[c.param.0 as usize].take().expect("a home");
            self.vectors.unreserve(r);
            if values.uses[c.result.0 as usize] > 0 {
                self.vectors.take(r);
                self.register[c.result.0 as usize] = Some(r);
            }
        }
    }

    /// Moves what loop `l` carries into its parameters' registers, all at once.
    fn carry(&mut self, l: usize) {
        let span = self.order.loops[l];
        let mut moves = Vec::new();
        let mut made = Vec::new();
        for c in &span.stmt.carried {
            let to = self.home[c.param.0 as usize].expect("a home");
            match self.values.constant[c.next.0 as usize] {
                Some(id) => made.push((to, id)),
                None => moves.push((to, self.at(c.next))),
            }
        }
        moves.retain(|(to, from)| to != from);
        while !moves.is_empty() {
            // A register that no other move reads can be written.
            let ready = moves
                .iter()
                .position(|&(to, _)| moves.iter().all(|&(_, from)| from != to));
            match ready {
                Some(i) => {
                    let (to, from) = moves.swap_remove(i);
                    self.copy(to, from);
                }
                None => {
                    // Only cycles are left: swap two registers without a third.
                    let (a, b) = moves[0];
                    self.swap(a, b);
                    for m in &mut moves {
                        m.1 = match m.1 {
                            f if f == a => b,
                            f if f == b => a,
                            f => f,
                        };
                    }
                    moves.retain(|(to, from)| to != from);
                }
            }
        }
        for (to, id) in made {
            self.make(to, id);
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        let t = self.target;
        let code = t.pick(
            Code::VEX_Vpxor_ymm_ymm_ymmm256,
            Code::EVEX_Vpxord_zmm_k1z_zmm_zmmm512b32,
        );
        let (a, b) = (t.vector(a), t.vector(b));
        for (to, x) in [(a, b), (b, a), (a, b)] {
            self.plain(ins!(with3(code, to, to, x)));
        }
    }
}
