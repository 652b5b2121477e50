//! Loops: parameters take over the registers of their start values, counters count down, and what a turn
//! hands to the next is moved all at once, if it is not there already.

use super::emit::{Counter, Emitter, ins};
use super::encode::{Item, memory};
use super::regs::general;
use iced_x86::{Code, Instruction, Register};

impl Emitter<'_, '_> {
    pub(super) fn start(&mut self, at: usize, l: usize) {
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

    pub(super) fn end(&mut self, l: usize) {
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
