//! Table indices: one load for one or for several, then products for the strides that addressing modes lack.

use super::emit::{Emitter, ins};
use super::encode::Item;
use super::order::Node;
use super::regs::{general, low8};
use iced_x86::{Code, Instruction, Register};

impl Emitter<'_, '_> {
    pub(super) fn index(&mut self, at: usize, index: usize, bytes: usize) {
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
    pub(super) fn word(&mut self, at: usize, shift: u8) {
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
    pub(super) fn extract(&mut self, index: usize) {
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
}
