//! Writable memory, cell by cell: no accumulator overflows, nothing is read before this call has written it,
//! the whole result is written, and accumulators in scratch are zero again at the end.
//!
//! A loop that moves the addresses of writes is walked, for that is a walk over cells; any other loop is
//! summed up: a cell either gains a bounded amount each turn, or is set anew in each. A loop that does both to
//! cells of its own is taken for two. So the cost grows with the size of the region, never with K.

use super::abs::{I16, I32, Range};
use super::fault::{Fault, FaultKind};
use super::flow::Flow;
use super::hash::HashMap;
use crate::program::{Addr, Counter, Element, Loop, Op, Operand, Promise, Stmt, Value};
use std::rc::Rc;

/// More cells or steps than this are a mistake, not a kernel.
const MAX_CELLS: usize = 1 << 22;
const MAX_STEPS: usize = 1 << 24;

/// What happens to one operand, everything else left out.
enum Event<'p> {
    Write(&'p Addr, Option<Value>),
    Add(&'p Addr, Value),
    Read(&'p Addr, usize),
    Loop(&'p Loop, Vec<Event<'p>>, bool),
}

/// What a cell holds: `lo..=hi`, on top of what it held before if `based`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cell {
    range: Range,
    based: bool,
    written: bool,
}

impl Cell {
    const KEPT: Cell = Cell {
        range: Range::exact(0),
        based: true,
        written: false,
    };

    /// `self`, then `turns` turns of `effect`.
    fn then(self, effect: Cell, turns: usize) -> Cell {
        if effect.based {
            return Cell {
                range: self.range.add(effect.range.times(turns)),
                ..self
            };
        }
        effect
    }

    /// `self` at the start of any of `turns` turns of `effect`.
    fn over(self, effect: Cell, turns: usize) -> Cell {
        let range = if effect.based {
            let far = effect.range.hull(Range::exact(0)).times(turns - 1);
            self.range.add(far)
        } else {
            self.range.hull(effect.range)
        };
        Cell { range, ..self }
    }
}

/// Checks every writable operand of a program whose values `flow` has bounded.
pub(super) fn check(
    flow: &Flow<'_>,
    elements: [Option<Element>; Operand::COUNT],
) -> Result<(), Fault> {
    let program = flow.program;
    for operand in Operand::ALL.into_iter().filter(|o| o.is_writable()) {
        let Some(extent) = program.extent(operand) else {
            continue;
        };
        let zero = program.keeps_zero(operand);
        let mut unit = program.width.bytes();
        let events = events(flow, operand, &program.body, &mut unit)?;
        unit = gcd(unit, extent.bytes);
        let element = elements[operand as usize];
        if let Some(why) = misfit(extent.promise, element, unit) {
            return Err(Fault::new(
                FaultKind::Promise,
                format!("{operand:?}: {why}"),
            ));
        }
        if extent.bytes / unit.max(1) > MAX_CELLS {
            return Err(Fault::new(
                FaultKind::TooLarge,
                format!("{operand:?} has too many cells of {unit} bytes"),
            ));
        }
        let start = Cell {
            range: Range::exact(0),
            based: false,
            written: zero,
        };
        let mut walk = Walk {
            flow,
            element,
            promise: extent.promise,
            unit,
            counters: vec![None; program.n_counters as usize],
            cells: vec![start; extent.bytes / unit],
            effects: HashMap::default(),
            steps: 0,
        };
        walk.run(&events, true)
            .and_then(|()| walk.end(operand, zero))
            .map_err(|fault| fault.of(operand))?;
    }
    Ok(())
}

/// Why an operand with this promise cannot be accumulated in such elements.
fn misfit(promise: Promise, element: Option<Element>, unit: usize) -> Option<String> {
    let (bytes, promised) = match element? {
        Element::I16 => (2, matches!(promise, Promise::Bits | Promise::I16(..))),
        Element::I32 => (4, matches!(promise, Promise::Bits | Promise::I32(..))),
    };
    if !promised {
        return Some(format!("{promise:?} is no promise of accumulators"));
    }
    (!unit.is_multiple_of(bytes)).then(|| "accumulators are not aligned".into())
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The events of `operand` in `body`; `unit` becomes the cell size in which all writes are whole.
fn events<'p>(
    flow: &Flow<'p>,
    operand: Operand,
    body: &'p [Stmt],
    unit: &mut usize,
) -> Result<Vec<Event<'p>>, Fault> {
    let mut out = Vec::new();
    let at = |addr: &Addr| addr.operand == operand;
    for stmt in body {
        let write = match stmt {
            Stmt::Let(_, Op::Drain(addr)) if at(addr) => Some((addr, Event::Write(addr, None))),
            Stmt::Store(addr, v) if at(addr) => Some((addr, Event::Write(addr, Some(*v)))),
            Stmt::Accumulate(_, addr, v) if at(addr) => Some((addr, Event::Add(addr, *v))),
            _ => None,
        };
        if let Some((addr, event)) = write {
            if addr.index.is_some() {
                return Err(Fault::new(
                    FaultKind::Malformed,
                    format!("{operand:?} is written at a table index"),
                ));
            }
            *unit = gcd(*unit, addr.offset);
            *unit = addr.terms.iter().fold(*unit, |u, (_, s)| gcd(u, *s));
            out.push(event);
            continue;
        }
        match stmt {
            Stmt::Let(_, op) => {
                let size = match op {
                    Op::LoadBcast32(_) => 4,
                    Op::LoadBcast128(_) => 16,
                    _ => flow.program.width.bytes(),
                };
                if let Some(addr) = op.addr().filter(|a| at(a)) {
                    out.push(Event::Read(addr, size));
                }
            }
            Stmt::LetIndex8(_, addr) if at(addr) => out.push(Event::Read(addr, 1)),
            Stmt::LetIndex16(_, addr) if at(addr) => out.push(Event::Read(addr, 2)),
            Stmt::LetIndices8 { indices, addr, .. } if at(addr) => {
                out.push(Event::Read(addr, indices.len()));
            }
            Stmt::Loop(l) => {
                let inner = events(flow, operand, &l.body, unit)?;
                out.extend(repeated(flow, l, inner));
            }
            _ => {}
        }
    }
    Ok(out)
}

/// The loop `l` of `events`: one to walk and one to sum up if they touch different bytes, for then it is the
/// same whether they take turns or follow each other.
fn repeated<'p>(flow: &Flow<'p>, l: &'p Loop, events: Vec<Event<'p>>) -> Vec<Event<'p>> {
    if events.is_empty() {
        return vec![];
    }
    let (walked, rest): (Vec<_>, Vec<_>) = events.iter().partition(|e| moves(e, l));
    let (a, b) = (touched(flow, &walked), touched(flow, &rest));
    if walked.is_empty() || rest.is_empty() || (a.start < b.end && b.start < a.end) {
        let moves = !walked.is_empty();
        return vec![Event::Loop(l, events, moves)];
    }
    let (walked, rest) = events.into_iter().partition(|e| moves(e, l));
    vec![Event::Loop(l, walked, true), Event::Loop(l, rest, false)]
}

/// Whether the counter of `l` moves the address of a write.
fn moves(event: &Event<'_>, l: &Loop) -> bool {
    match event {
        Event::Write(addr, _) | Event::Add(addr, _) => {
            addr.terms.iter().any(|(c, s)| *c == l.counter && *s != 0)
        }
        Event::Read(..) => false,
        Event::Loop(_, inner, _) => inner.iter().any(|e| moves(e, l)),
    }
}

/// The bytes from the first to the last that `events` touch in any turn of any loop.
fn touched(flow: &Flow<'_>, events: &[&Event<'_>]) -> std::ops::Range<usize> {
    let (mut first, mut end) = (usize::MAX, 0);
    for event in events {
        let part = match event {
            Event::Write(addr, _) | Event::Add(addr, _) => {
                addr.offset..furthest(flow, addr, flow.program.width.bytes())
            }
            Event::Read(addr, size) => addr.offset..furthest(flow, addr, *size),
            Event::Loop(_, inner, _) => touched(flow, &inner.iter().collect::<Vec<_>>()),
        };
        first = first.min(part.start);
        end = end.max(part.end);
    }
    first.min(end)..end
}

/// The end of the furthest access of `size` bytes at `addr`.
fn furthest(flow: &Flow<'_>, addr: &Addr, size: usize) -> usize {
    let turns = addr.terms.iter().map(|(c, s)| (flow.trip(*c) - 1) * s);
    let entry = addr
        .index
        .map(|(i, scale)| flow.indices[i.0 as usize].max * scale);
    addr.offset + turns.sum::<usize>() + entry.unwrap_or(0) + size
}

struct Walk<'f, 'p> {
    flow: &'f Flow<'p>,
    element: Option<Element>,
    promise: Promise,
    unit: usize,
    /// The turn of each loop that is walked.
    counters: Vec<Option<usize>>,
    cells: Vec<Cell>,
    /// What a turn of each loop does to the cells, where no walked loop is around it.
    effects: HashMap<u32, Rc<[Cell]>>,
    steps: usize,
}

impl Walk<'_, '_> {
    fn run(&mut self, events: &[Event<'_>], checking: bool) -> Result<(), Fault> {
        for event in events {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return Err(Fault::new(FaultKind::TooLarge, "too many steps to follow"));
            }
            match event {
                Event::Write(addr, v) => self.write(addr, *v),
                Event::Add(addr, v) => self.add(addr, *v, checking)?,
                Event::Read(addr, size) if checking => self.read(addr, *size)?,
                Event::Read(..) => {}
                Event::Loop(l, body, true) => {
                    for turn in 0..l.trip {
                        self.counters[l.counter.0 as usize] = Some(turn);
                        self.run(body, checking)?;
                    }
                    self.counters[l.counter.0 as usize] = None;
                }
                Event::Loop(l, body, false) if l.trip == 1 => self.run(body, checking)?,
                Event::Loop(l, body, false) => self.sum_up(l, body, checking)?,
            }
        }
        Ok(())
    }

    /// All turns of a loop that hits the same cells in each.
    fn sum_up(&mut self, l: &Loop, body: &[Event<'_>], checking: bool) -> Result<(), Fault> {
        let window = self.window(body);
        let effect = self.effect(l, body, window.clone())?;
        if checking {
            let before = self.cells[window.clone()].to_vec();
            for (cell, e) in self.cells[window.clone()].iter_mut().zip(effect.iter()) {
                *cell = cell.over(*e, l.trip);
            }
            self.run(body, true)?;
            self.cells[window.clone()].copy_from_slice(&before);
        }
        for (cell, e) in self.cells[window].iter_mut().zip(effect.iter()) {
            *cell = cell.then(*e, l.trip);
        }
        Ok(())
    }

    /// What one turn of `l` does to each cell of `window`, whatever it held.
    fn effect(
        &mut self,
        l: &Loop,
        body: &[Event<'_>],
        window: std::ops::Range<usize>,
    ) -> Result<Rc<[Cell]>, Fault> {
        if let Some(known) = self.effects.get(&l.counter.0) {
            return Ok(Rc::clone(known));
        }
        let before = self.cells[window.clone()].to_vec();
        self.cells[window.clone()].fill(Cell::KEPT);
        self.run(body, false)?;
        let effect: Rc<[Cell]> = self.cells[window.clone()].into();
        self.cells[window].copy_from_slice(&before);
        // Inside a walked loop the next turn hits other cells.
        if self.counters.iter().all(Option::is_none) {
            self.effects.insert(l.counter.0, Rc::clone(&effect));
        }
        Ok(effect)
    }

    /// The cells from the first to the last that `events` write in this turn of the walked loops.
    fn window(&self, events: &[Event<'_>]) -> std::ops::Range<usize> {
        let (mut first, mut end) = (usize::MAX, 0);
        for event in events {
            let part = match event {
                Event::Write(addr, _) | Event::Add(addr, _) => {
                    let cells = self.covered(addr);
                    cells.start..cells.end + self.open_span(addr) / self.unit
                }
                Event::Loop(_, body, _) => self.window(body),
                Event::Read(..) => continue,
            };
            first = first.min(part.start);
            end = end.max(part.end);
        }
        first.min(end)..end
    }

    /// How far the loops that are not walked yet move an address.
    fn open_span(&self, addr: &Addr) -> usize {
        let open = |c: &Counter| self.counters[c.0 as usize].is_none();
        let moves = addr.terms.iter().filter(|(c, _)| open(c));
        moves.map(|(c, s)| (self.flow.trip(*c) - 1) * s).sum()
    }

    fn start(&self, addr: &Addr) -> usize {
        let turn = |c: u32| self.counters[c as usize].unwrap_or(0);
        addr.offset + addr.terms.iter().map(|(c, s)| turn(c.0) * s).sum::<usize>()
    }

    fn covered(&self, addr: &Addr) -> std::ops::Range<usize> {
        let first = self.start(addr) / self.unit;
        first..first + self.flow.program.width.bytes() / self.unit
    }

    fn range(&self, v: Value) -> Range {
        let abs = self.flow.get(v);
        match self.element {
            Some(Element::I16) => abs.w16,
            _ => abs.w32,
        }
    }

    /// Sets cells to a value, or to zero.
    fn write(&mut self, addr: &Addr, v: Option<Value>) {
        let cell = Cell {
            range: v.map_or(Range::exact(0), |v| self.range(v)),
            based: false,
            written: true,
        };
        let covered = self.covered(addr);
        self.cells[covered].fill(cell);
    }

    fn add(&mut self, addr: &Addr, v: Value, checking: bool) -> Result<(), Fault> {
        let range = self.range(v);
        let fits = match (self.promise, self.element) {
            (Promise::I16(lo, hi), _) => Range::new(lo as i64, hi as i64),
            (Promise::I32(lo, hi), _) => Range::new(lo as i64, hi as i64),
            (_, Some(Element::I16)) => I16,
            _ => I32,
        };
        let covered = self.covered(addr);
        for cell in &mut self.cells[covered] {
            cell.range = cell.range.add(range);
            if !checking {
                continue;
            }
            if !cell.written {
                return Err(Fault::new(
                    FaultKind::Memory,
                    format!("v{} is added to what nothing has written", v.0),
                ));
            }
            if !cell.range.within(fits) {
                return Err(Fault::new(
                    FaultKind::Overflow,
                    format!(
                        "with v{} in {range} a cell reaches {}, outside {fits}",
                        v.0, cell.range
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Everything that any turn and any index may read has been written.
    fn read(&mut self, addr: &Addr, size: usize) -> Result<(), Fault> {
        let first = self.start(addr);
        let mut end = first + size + self.open_span(addr);
        if let Some((i, scale)) = addr.index {
            end += self.flow.indices[i.0 as usize].max * scale;
        }
        let cells = first / self.unit..end.div_ceil(self.unit);
        match self.cells[cells.clone()].iter().position(|c| !c.written) {
            None => Ok(()),
            Some(at) => Err(Fault::new(
                FaultKind::Memory,
                format!(
                    "byte {} is read before it is written",
                    (cells.start + at) * self.unit
                ),
            )),
        }
    }

    fn end(&self, operand: Operand, zero: bool) -> Result<(), Fault> {
        let byte = |at: usize| at * self.unit;
        if let Some(at) = self.cells.iter().position(|c| !c.written)
            && operand == Operand::Out
        {
            return Err(Fault::new(
                FaultKind::Memory,
                format!("byte {} is never written", byte(at)),
            ));
        }
        let left = |c: &Cell| zero && c.range != Range::exact(0);
        match self.cells.iter().position(left) {
            Some(at) if operand != Operand::Out => Err(Fault::new(
                FaultKind::Memory,
                format!(
                    "byte {} is left at {}, not drained to zero",
                    byte(at),
                    self.cells[at].range
                ),
            )),
            _ => Ok(()),
        }
    }
}
