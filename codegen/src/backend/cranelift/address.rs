//! Strength reduction of affine addresses: every set of (counter, stride) terms becomes one pointer that
//! its innermost loop advances, so that an access is that pointer plus a constant displacement.

use crate::program::{Addr, Counter, Op, Operand, Stmt};

/// An operand and the loop terms of an address, outermost loop first. All addresses that differ only in
/// their constant part share the pointer of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The operand.
    pub operand: Operand,
    /// Counters of running loops, outermost first, and the bytes that a turn adds.
    pub terms: Vec<(Counter, usize)>,
}

impl Stream {
    /// The stream of `addr` in loops `nest` (outermost first). Terms of other counters are left out: a caller
    /// that stands outside those loops sees the part that is fixed there.
    pub fn of(addr: &Addr, nest: &[Counter]) -> Self {
        let terms = nest
            .iter()
            .filter_map(|&c| {
                let stride: usize = addr
                    .terms
                    .iter()
                    .filter(|(counter, _)| *counter == c)
                    .map(|(_, stride)| stride)
                    .sum();
                (stride != 0).then_some((c, stride))
            })
            .collect();
        Self {
            operand: addr.operand,
            terms,
        }
    }

    /// The stream that this one starts from whenever its innermost loop starts, and the bytes that a
    /// turn of that loop adds; `None` for a plain operand pointer.
    pub fn outer(&self) -> Option<(Stream, usize)> {
        let ((_, stride), rest) = self.terms.split_last()?;
        let outer = Stream {
            operand: self.operand,
            terms: rest.to_vec(),
        };
        Some((outer, *stride))
    }
}

/// The streams that the innermost loop of `nest` advances, for all accesses in `body` and the loops in it.
pub fn advanced_by(nest: &[Counter], body: &[Stmt]) -> Vec<Stream> {
    let counter = nest.last().expect("a loop is running");
    let mut streams = Vec::new();
    each_addr(body, &mut |addr| {
        if addr.terms.iter().any(|(c, s)| c == counter && *s != 0) {
            let stream = Stream::of(addr, nest);
            if !streams.contains(&stream) {
                streams.push(stream);
            }
        }
    });
    streams
}

/// The operands whose own pointer the body of a loop uses in each turn.
pub fn fixed_in(body: &[Stmt]) -> Vec<Stream> {
    let mut streams = Vec::new();
    for stmt in body.iter().filter(|s| !matches!(s, Stmt::Loop(_))) {
        each_addr(std::slice::from_ref(stmt), &mut |addr| {
            let stream = Stream {
                operand: addr.operand,
                terms: Vec::new(),
            };
            if addr.terms.is_empty() && !streams.contains(&stream) {
                streams.push(stream);
            }
        });
    }
    streams
}

/// Calls `f` with every address in `body`, nested loops included.
pub fn each_addr<'p>(body: &'p [Stmt], f: &mut dyn FnMut(&'p Addr)) {
    for stmt in body {
        match stmt {
            Stmt::Let(_, op) => {
                if let Some(addr) = op.addr() {
                    f(addr);
                }
            }
            Stmt::LetIndex8(_, addr)
            | Stmt::LetIndex16(_, addr)
            | Stmt::LetIndices8 { addr, .. }
            | Stmt::Store(addr, _)
            | Stmt::Accumulate(_, addr, _)
            | Stmt::Prefetch(addr) => f(addr),
            Stmt::Loop(l) => each_addr(&l.body, f),
        }
    }
}

/// Calls `f` with every op in `body`, nested loops included.
pub fn each_op<'p>(body: &'p [Stmt], f: &mut dyn FnMut(&'p Op)) {
    for stmt in body {
        match stmt {
            Stmt::Let(_, op) => f(op),
            Stmt::Loop(l) => each_op(&l.body, f),
            _ => {}
        }
    }
}
