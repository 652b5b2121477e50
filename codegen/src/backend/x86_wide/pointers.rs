//! Addresses: one pointer for each operand and set of strides, advanced at the ends of the loops that
//! step it, with constant parts as displacements; counters and table indices.
//! Which general register each gets is decided while walking, in `emit.rs`.

use super::order::{Node, Order};
use super::values::{Memory, Values};
use crate::program::{Addr, Operand, Program};
use crate::spec::{Reason, Unsupported};

/// One stepped pointer.
#[derive(Debug)]
pub(super) struct Pointer {
    /// What it points into.
    pub operand: Operand,
    /// Loops from the outermost that steps it to the innermost, with strides; 0 where one only stands between.
    pub chain: Vec<(usize, usize)>,
    /// It is loaded before this position …
    ready: usize,
    /// … and needed until this one.
    last: usize,
    /// What the pointer is ahead of its operand.
    pub bias: i64,
    offsets: Vec<i64>,
}

/// An index multiplied by what addressing modes cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scaled {
    /// The index.
    pub index: usize,
    /// 1 for the plain index.
    pub factor: usize,
    /// First position of use.
    first: usize,
    /// Last position of use.
    last: usize,
}

/// One index.
#[derive(Clone, Debug, Default)]
pub(super) struct IndexUse {
    /// Where it is defined.
    pub def: usize,
    level: Option<usize>,
    /// Its place in a load of several indices, and their shift.
    pub packed: Option<(usize, u8)>,
    /// Its products, see [`Pointers::scaled`].
    pub scaled: Vec<usize>,
}

/// The address of one node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Which pointer.
    pub pointer: usize,
    /// Which scaled index, and the factor 1, 2, 4 or 8 of the addressing mode.
    pub index: Option<(usize, u32)>,
    /// Bytes past the operand's start.
    pub offset: i64,
}

/// All addresses of a program.
pub(super) struct Pointers {
    /// The pointers.
    pub pointers: Vec<Pointer>,
    /// The indices.
    pub scaled: Vec<Scaled>,
    /// The address of each node that has one and is used.
    pub places: Vec<Option<Place>>,
    /// The indices.
    pub indices: Vec<IndexUse>,
    /// Before each node: pointers to load.
    pub ready: Vec<Vec<usize>>,
    /// Before each node: indices to take out of a load of several.
    pub extract: Vec<Vec<usize>>,
    /// After each node: what is not needed any more.
    pub done: Vec<Vec<Done>>,
}

/// Something that a general register is given up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// A pointer.
    Pointer(usize),
    /// A scaled index.
    Scaled(usize),
    /// The word that the load of several indices at this position brought.
    Word(usize),
}

/// Terms of an address, outermost loop first, without loops of one turn.
fn terms(addr: &Addr, order: &Order<'_>) -> Vec<(usize, usize)> {
    let mut terms: Vec<(usize, usize)> = Vec::new();
    for &(counter, stride) in &addr.terms {
        let l = order.loop_of[counter.0 as usize].expect("a counter belongs to a loop");
        if order.loops[l].stmt.trip == 1 || stride == 0 {
            continue;
        }
        match terms.iter_mut().find(|t| t.0 == l) {
            Some(t) => t.1 += stride,
            None => terms.push((l, stride)),
        }
    }
    terms.sort_unstable();
    terms
}

impl Pointers {
    /// Collects the addresses of `program`.
    ///
    /// # Errors
    /// [`Unsupported`] when a displacement or stride does not fit 31 bits.
    pub fn new(program: &Program, order: &Order<'_>, values: &Values) -> Result<Self, Unsupported> {
        let mut this = Self {
            pointers: Vec::new(),
            scaled: Vec::new(),
            places: vec![None; order.nodes.len()],
            indices: vec![IndexUse::default(); program.n_indices as usize],
            ready: vec![Vec::new(); order.nodes.len()],
            extract: vec![Vec::new(); order.nodes.len()],
            done: vec![Vec::new(); order.nodes.len()],
        };
        for (at, node) in order.nodes.iter().enumerate() {
            match *node {
                Node::Let(v, op) => {
                    if op.addr().is_some() && !values.folded[v.0 as usize] {
                        this.touch(program, order, at, at)?;
                    }
                    if let Some((_, Memory::Load { at: def, .. })) = values.memory[at] {
                        this.touch(program, order, def, at)?;
                    }
                }
                Node::Index { index, .. } => {
                    this.touch(program, order, at, at)?;
                    let i = &mut this.indices[index.0 as usize];
                    (i.def, i.level) = (at, order.within[at]);
                }
                Node::Indices { indices, shift, .. } => {
                    this.touch(program, order, at, at)?;
                    for (j, index) in indices.iter().enumerate() {
                        let i = &mut this.indices[index.0 as usize];
                        (i.def, i.level) = (at, order.within[at]);
                        i.packed = Some((j, shift));
                    }
                }
                Node::Store(..) | Node::Accumulate(..) | Node::Prefetch(..) => {
                    this.touch(program, order, at, at)?;
                }
                Node::Start(_) | Node::End(_) => {}
            }
        }
        this.schedule(order);
        Ok(this)
    }

    /// When each thing is needed first and last.
    fn schedule(&mut self, order: &Order<'_>) {
        for (i, p) in self.pointers.iter_mut().enumerate() {
            p.bias = best_bias(&p.offsets);
            self.ready[p.ready].push(i);
            self.done[p.last].push(Done::Pointer(i));
        }
        for (i, s) in self.scaled.iter().enumerate() {
            self.done[s.last].push(Done::Scaled(i));
        }
        // The last index taken out of each load of several.
        let mut words: Vec<(usize, usize)> = Vec::new();
        for (i, index) in self.indices.iter().enumerate() {
            let first = index.scaled.iter().map(|&s| self.scaled[s].first).min();
            let (Some(first), Some(_)) = (first, index.packed) else {
                continue;
            };
            let at = order.ready(index.level, first);
            self.extract[at].push(i);
            match words.iter_mut().rev().find(|w| w.0 == index.def) {
                Some(w) => w.1 = w.1.max(at),
                None => words.push((index.def, at)),
            }
        }
        for (def, last) in words {
            self.done[last].push(Done::Word(def));
        }
    }

    /// Records that the address of node `def` is used at `at`.
    fn touch(
        &mut self,
        program: &Program,
        order: &Order<'_>,
        def: usize,
        at: usize,
    ) -> Result<(), Unsupported> {
        let addr = order.nodes[def]
            .addr()
            .expect("a memory node has an address");
        let terms = terms(addr, order);
        let too_far = |what: &str, bytes: usize| {
            (bytes > 1 << 30).then(|| {
                Unsupported::new(
                    &program.name,
                    Reason::TooFar(format!("{what} of {bytes} bytes in {:?}", addr.operand)),
                )
            })
        };
        if let Some(e) = too_far("a displacement", addr.offset) {
            return Err(e);
        }
        for &(l, stride) in &terms {
            let all = stride.saturating_mul(order.loops[l].stmt.trip);
            if let Some(e) = too_far("a stride", all) {
                return Err(e);
            }
        }
        let chain: Vec<(usize, usize)> = match (terms.first(), terms.last()) {
            (Some(&(outer, _)), Some(&(inner, _))) => order
                .chain(outer, inner)
                .into_iter()
                .map(|l| (l, terms.iter().find(|t| t.0 == l).map_or(0, |t| t.1)))
                .collect(),
            _ => Vec::new(),
        };
        let home = chain.first().and_then(|&(l, _)| order.loops[l].parent);
        let known = self
            .pointers
            .iter()
            .position(|p| p.operand == addr.operand && p.chain == chain);
        let pointer = known.unwrap_or(self.pointers.len());
        if known.is_none() {
            self.pointers.push(Pointer {
                operand: addr.operand,
                ready: order.ready(home, at),
                last: 0,
                chain,
                bias: 0,
                offsets: Vec::new(),
            });
        }
        let p = &mut self.pointers[pointer];
        p.last = p.last.max(order.until(home, at));
        p.offsets.push(addr.offset as i64);
        let index = addr.index.map(|(index, scale)| {
            let i = index.0 as usize;
            self.scale(i, scale, at, order.until(self.indices[i].level, at))
        });
        self.places[def] = Some(Place {
            pointer,
            index,
            offset: addr.offset as i64,
        });
        Ok(())
    }

    fn scale(&mut self, index: usize, scale: usize, first: usize, last: usize) -> (usize, u32) {
        let (factor, sib) = match scale {
            1 | 2 | 4 | 8 => (1, scale as u32),
            _ => (scale, 1),
        };
        let known = self.indices[index]
            .scaled
            .iter()
            .copied()
            .find(|&s| self.scaled[s].factor == factor);
        let id = known.unwrap_or(self.scaled.len());
        match known {
            Some(_) => self.scaled[id].last = self.scaled[id].last.max(last),
            None => {
                self.indices[index].scaled.push(id);
                self.scaled.push(Scaled {
                    index,
                    factor,
                    first,
                    last,
                });
            }
        }
        (id, sib)
    }

    /// What to add to pointer `p` at the end of a turn of loop `l`: its stride, less what the next inner
    /// loop of the chain has added in all its turns.
    pub fn advance(&self, p: usize, l: usize, order: &Order<'_>) -> i64 {
        let chain = &self.pointers[p].chain;
        let Some(i) = chain.iter().position(|c| c.0 == l) else {
            return 0;
        };
        let inner = chain
            .get(i + 1)
            .map_or(0, |&(l, stride)| stride * order.loops[l].stmt.trip);
        chain[i].1 as i64 - inner as i64
    }
}

/// The bias that lets most displacements fit one byte in any encoding.
fn best_bias(offsets: &[i64]) -> i64 {
    let reach = |bias: i64| {
        offsets
            .iter()
            .filter(|&&o| (-128..128).contains(&(o - bias)))
            .count()
    };
    let few: Vec<i64> = offsets.iter().take(64).map(|o| o + 128).collect();
    let mut best = (reach(0), 0);
    for bias in few {
        let r = reach(bias);
        if r > best.0 {
            best = (r, bias);
        }
    }
    best.1
}
