//! Ranges through a program: one pass learns how much each carried value grows a turn, a second pass,
//! with the range of all turns, checks every obligation. No turn is simulated.
//!
//! A carried value is `param + delta` at the end of a turn with the same bounds on `delta` in every turn,
//! so after `t` turns it is `init + t·delta`; that this holds without wrapping is what the second pass
//! proves, by induction over the turns. Any other carried value is `init` or what the body makes of anything.

use super::abs::{Abs, I16, I32, Kind, Linear, Range};
use super::bytes::Arena;
use super::fault::{Fault, FaultKind};
use super::hash::HashMap;
use super::structure::IndexFacts;
use crate::program::{Addr, Carried, Counter, Loop, Op, Program, Promise, Stmt, Value};

/// The state of one proof.
pub(super) struct Flow<'p> {
    pub(super) program: &'p Program,
    pub(super) indices: &'p [IndexFacts],
    pub(super) arena: Arena,
    values: Vec<Option<Abs>>,
    /// The op that defined each value.
    pub(super) ops: Vec<Option<&'p Op>>,
    /// Records of split tables, numbered by address.
    pub(super) records: HashMap<Addr, u32>,
    /// How often each loop turns.
    trips: Vec<usize>,
    /// Whether obligations are checked; not in a pass that learns.
    pub(super) checking: bool,
    /// What was learnt of each loop, by counter.
    learnt: HashMap<u32, Vec<Turn>>,
}

/// What one turn does to a carried value.
#[derive(Clone, Copy)]
enum Turn {
    /// Nothing.
    Keeps,
    /// Adds a bounded amount.
    Grows(Kind, Range),
    /// Replaces it.
    Becomes(Abs),
}

impl<'p> Flow<'p> {
    pub(super) fn new(program: &'p Program, indices: &'p [IndexFacts]) -> Self {
        Self {
            program,
            indices,
            arena: Arena::new(),
            values: vec![None; program.n_values as usize],
            ops: vec![None; program.n_values as usize],
            records: HashMap::default(),
            trips: vec![1; program.n_counters as usize],
            checking: true,
            learnt: HashMap::default(),
        }
    }

    /// Whether every address that `addr` takes is a multiple of `n`, a power of two.
    pub(super) fn aligned(&self, addr: &Addr, n: usize) -> bool {
        addr.offset.is_multiple_of(n)
            && addr.terms.iter().all(|(_, s)| s.is_multiple_of(n))
            && addr.index.is_none_or(|(i, scale)| {
                (scale << self.indices[i.0 as usize].shift).is_multiple_of(n)
            })
    }

    /// The turns of the loop that `c` counts.
    pub(super) fn trip(&self, c: Counter) -> usize {
        self.trips[c.0 as usize]
    }

    /// Proves the whole program.
    pub(super) fn check(&mut self) -> Result<(), Fault> {
        self.body(&self.program.body)
    }

    /// What is known of `v`; the structure was checked, so it has been defined.
    pub(super) fn get(&self, v: Value) -> Abs {
        self.values[v.0 as usize].unwrap_or_else(|| panic!("v{} has been visited", v.0))
    }

    /// The readings of `v`, if the program defines it.
    pub(super) fn ranges(&mut self, v: Value) -> Option<Ranges> {
        let abs = self.values[v.0 as usize]?;
        Some(Ranges {
            u8: abs.u8(&mut self.arena),
            i8: abs.i8(&mut self.arena),
            i16: abs.w16,
            i32: abs.w32,
        })
    }

    fn body(&mut self, body: &'p [Stmt]) -> Result<(), Fault> {
        for stmt in body {
            self.stmt(stmt).map_err(|fault| fault.at(stmt))?;
        }
        Ok(())
    }

    fn stmt(&mut self, stmt: &'p Stmt) -> Result<(), Fault> {
        match stmt {
            Stmt::Let(v, op) => {
                self.ops[v.0 as usize] = Some(op);
                let abs = self.transfer(*v, op)?;
                self.values[v.0 as usize] = Some(abs);
            }
            Stmt::Store(addr, v) if self.checking => self.store(addr, *v)?,
            Stmt::Loop(l) => self.repeat(l)?,
            _ => {}
        }
        Ok(())
    }

    /// The stored value keeps the operand's promise.
    fn store(&mut self, addr: &Addr, v: Value) -> Result<(), Fault> {
        let Some(extent) = self.program.extent(addr.operand) else {
            return Ok(());
        };
        let abs = self.get(v);
        let within = |range: Range, lo: i64, hi: i64| range.within(Range::new(lo, hi));
        let (ok, range) = match extent.promise {
            Promise::Bits => return Ok(()),
            Promise::Codes2 => {
                let byte = abs.any_byte(&mut self.arena);
                let set = self.arena.set_of(byte);
                let good = self
                    .arena
                    .values(set)
                    .iter()
                    .all(|b| b & b >> 1 & 0x55 == 0);
                (good, abs.u8(&mut self.arena))
            }
            Promise::U8(lo, hi) => {
                let r = abs.u8(&mut self.arena);
                (within(r, lo as i64, hi as i64), r)
            }
            Promise::I8(lo, hi) => {
                let r = abs.i8(&mut self.arena);
                (within(r, lo as i64, hi as i64), r)
            }
            Promise::U16(lo, hi) => {
                let ok = abs.w16.lo >= 0 && within(abs.w16, lo as i64, hi as i64);
                (ok && self.aligned(addr, 2), abs.w16)
            }
            Promise::I16(lo, hi) => (
                within(abs.w16, lo as i64, hi as i64) && self.aligned(addr, 2),
                abs.w16,
            ),
            Promise::I32(lo, hi) => (
                within(abs.w32, lo as i64, hi as i64) && self.aligned(addr, 4),
                abs.w32,
            ),
            Promise::I16Planes(..) => {
                return Err(Fault::new(
                    FaultKind::Promise,
                    format!("{:?} is promised as planes", addr.operand),
                ));
            }
        };
        if ok {
            return Ok(());
        }
        Err(Fault::new(
            FaultKind::Promise,
            format!(
                "v{} is in {range}, which does not keep (or is not aligned to) {:?} of {:?}",
                v.0, extent.promise, addr.operand
            ),
        ))
    }

    fn repeat(&mut self, l: &'p Loop) -> Result<(), Fault> {
        self.trips[l.counter.0 as usize] = l.trip;
        let turns = self.learn(l)?;
        if self.checking {
            for (c, turn) in l.carried.iter().zip(&turns) {
                let all = self.over_turns(c, *turn, l.trip);
                self.values[c.param.0 as usize] = Some(all);
            }
            self.body(&l.body)?;
        }
        for (c, turn) in l.carried.iter().zip(&turns) {
            let last = self.after(c, *turn, l.trip);
            self.values[c.result.0 as usize] = Some(last);
        }
        Ok(())
    }

    /// What a turn of `l` does to each carried value, whatever they are.
    fn learn(&mut self, l: &'p Loop) -> Result<Vec<Turn>, Fault> {
        if let Some(known) = self.learnt.get(&l.counter.0) {
            return Ok(known.clone());
        }
        let checking = std::mem::replace(&mut self.checking, false);
        let mut turns = Vec::new();
        if !l.carried.is_empty() {
            for round in 0..2 {
                for (i, c) in l.carried.iter().enumerate() {
                    let param = self.unknown_param(c, turns.get(i).copied());
                    self.values[c.param.0 as usize] = Some(param);
                }
                self.body(&l.body)?;
                turns = l.carried.iter().map(|c| self.turn(c)).collect();
                let replaced = turns.iter().any(|t| matches!(t, Turn::Becomes(_)));
                if round == 0 && !replaced {
                    break;
                }
            }
        }
        self.checking = checking;
        self.learnt.insert(l.counter.0, turns.clone());
        Ok(turns)
    }

    /// A carried value in any turn, given what an earlier round learnt.
    fn unknown_param(&mut self, c: &Carried, earlier: Option<Turn>) -> Abs {
        match earlier {
            Some(Turn::Becomes(next)) => self.get(c.init).join(&mut self.arena, &next),
            Some(Turn::Keeps) => self.get(c.init).forget(&mut self.arena),
            _ => {
                let mut any = Abs::any(&mut self.arena);
                any.linear = Some(Linear {
                    param: c.param,
                    kind: None,
                    delta: Range::exact(0),
                });
                any
            }
        }
    }

    fn turn(&mut self, c: &Carried) -> Turn {
        let next = self.get(c.next);
        if c.next == c.param {
            return Turn::Keeps;
        }
        match next.linear {
            Some(Linear {
                param,
                kind: Some(kind),
                delta,
            }) if param == c.param => Turn::Grows(kind, delta),
            _ => Turn::Becomes(next.forget(&mut self.arena)),
        }
    }

    /// The param at the start of every turn.
    fn over_turns(&mut self, c: &Carried, turn: Turn, trip: usize) -> Abs {
        let init = self.get(c.init).forget(&mut self.arena);
        match turn {
            Turn::Keeps => init,
            Turn::Grows(kind, delta) => {
                let zero = Range::exact(0);
                let far = delta.hull(zero).times(trip - 1).hull(zero);
                self.grown(&init, kind, far)
            }
            Turn::Becomes(_) if trip == 1 => init,
            Turn::Becomes(next) => init.join(&mut self.arena, &next),
        }
    }

    /// The value after the last turn.
    fn after(&mut self, c: &Carried, turn: Turn, trip: usize) -> Abs {
        let init = self.get(c.init);
        match turn {
            Turn::Keeps => init,
            Turn::Grows(kind, delta) => {
                let far = delta.times(trip);
                let mut last = self.grown(&init, kind, far);
                last.linear = init
                    .linear
                    .filter(|l| l.kind.is_none_or(|k| k == kind))
                    .map(|l| Linear {
                        kind: Some(kind),
                        delta: l.delta.add(far),
                        ..l
                    });
                last
            }
            Turn::Becomes(_) if self.checking => {
                let next = self.get(c.next);
                next.forget(&mut self.arena)
            }
            Turn::Becomes(next) => next,
        }
    }

    /// `v + far`; where that does not fit, anything: the pass over the body finds the op that wraps.
    fn grown(&mut self, v: &Abs, kind: Kind, far: Range) -> Abs {
        match kind {
            Kind::I16 => Abs::of_i16(&mut self.arena, v.w16.add(far).or_all(I16)),
            Kind::I32 => Abs::of_i32(&mut self.arena, v.w32.add(far).or_all(I32)),
        }
    }
}

/// What is proven of every element of a value, under each reading of its bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranges {
    /// As unsigned bytes.
    pub u8: Range,
    /// As signed bytes.
    pub i8: Range,
    /// As i16.
    pub i16: Range,
    /// As i32.
    pub i32: Range,
}

impl Ranges {
    /// Nothing is known.
    pub const ANY: Self = Self {
        u8: Range::new(0, 255),
        i8: Range::new(-128, 127),
        i16: I16,
        i32: I32,
    };
}
