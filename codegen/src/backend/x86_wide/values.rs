//! What becomes of each vector value before registers are given out: loads that fold into the
//! instruction that uses them, constants, lifetimes, and which register a value would like.

use super::order::{Node, Order};
use super::select::{Shape, Target, shape, splat};
use crate::program::{Op, Operand, Program, Value};
use crate::spec::Unsupported;

/// What to give up to make a program fit the registers; tried in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effort {
    /// Constants that can be memory operands are not kept in registers.
    pub constants_in_memory: bool,
    /// A broadcast dword that several dot products use is read again by each.
    pub repeat_broadcasts: bool,
    /// Counters of outer loops live on the stack.
    pub counters_on_stack: bool,
}

/// A source in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// What the load at this position reads.
    Load { at: usize, bcast: bool },
    /// A constant.
    Constant { id: usize, bcast: bool },
}

/// Everything that is known of vector values before registers are given out.
pub(super) struct Values {
    /// The encoding of each `Let` node.
    pub shapes: Vec<Option<Shape>>,
    /// The constant that a value is.
    pub constant: Vec<Option<usize>>,
    /// The dword that each constant repeats.
    pub patterns: Vec<u32>,
    /// For each node: which input is read from memory.
    pub memory: Vec<Option<(usize, Memory)>>,
    /// Loads that are folded everywhere they are used.
    pub folded: Vec<bool>,
    /// The last position at which a value is needed; its definition if never.
    pub last: Vec<usize>,
    /// The loop that a value is defined in.
    level: Vec<Option<usize>>,
    /// Uses of each value.
    pub uses: Vec<u32>,
    /// Values whose last use is at each node.
    pub deaths: Vec<Vec<Value>>,
    /// Constants to bring into a register before each node.
    pub ready: Vec<Vec<usize>>,
    /// The last position at which a constant is needed in a register.
    pub constant_last: Vec<usize>,
    /// The loop parameter whose register a value should end in.
    pub wanted: Vec<Option<Value>>,
}

impl Values {
    /// Looks at the whole program.
    ///
    /// # Errors
    /// [`Unsupported`] when an op does not exist on the target.
    pub fn new(
        program: &Program,
        order: &Order<'_>,
        t: Target,
        effort: Effort,
    ) -> Result<Self, Unsupported> {
        let (n, nodes) = (program.n_values as usize, order.nodes.len());
        let mut this = Self {
            shapes: vec![None; nodes],
            constant: vec![None; n],
            patterns: Vec::new(),
            memory: vec![None; nodes],
            folded: vec![false; n],
            last: vec![0; n],
            level: vec![None; n],
            uses: vec![0; n],
            deaths: vec![Vec::new(); nodes],
            ready: vec![Vec::new(); nodes],
            constant_last: Vec::new(),
            wanted: vec![None; n],
        };
        this.define(order, t)?;
        this.fold(order, effort);
        this.lifetimes(order);
        this.wishes(order);
        Ok(this)
    }

    /// Definitions, constants and numbers of uses.
    fn define(&mut self, order: &Order<'_>, t: Target) -> Result<(), Unsupported> {
        for (at, node) in order.nodes.iter().enumerate() {
            let level = order.within[at];
            match *node {
                Node::Let(v, op) => {
                    self.shapes[at] = Some(shape(op, t)?);
                    self.put(v, at, level);
                    if let Some(pattern) = splat(op) {
                        let known = self.patterns.iter().position(|&p| p == pattern);
                        let id = known.unwrap_or(self.patterns.len());
                        if known.is_none() {
                            self.patterns.push(pattern);
                            self.constant_last.push(0);
                        }
                        self.constant[v.0 as usize] = Some(id);
                    }
                    for i in op.inputs() {
                        self.uses[i.0 as usize] += 1;
                    }
                }
                Node::Store(_, v) | Node::Accumulate(_, _, v) => self.uses[v.0 as usize] += 1,
                Node::Start(l) => {
                    for c in &order.loops[l].stmt.carried {
                        self.put(c.param, at, Some(l));
                        self.uses[c.init.0 as usize] += 1;
                    }
                }
                Node::End(l) => {
                    for c in &order.loops[l].stmt.carried {
                        self.put(c.result, at, order.loops[l].parent);
                        self.uses[c.next.0 as usize] += 1;
                    }
                }
                Node::Index { .. } | Node::Indices { .. } | Node::Prefetch(_) => {}
            }
        }
        Ok(())
    }

    fn put(&mut self, v: Value, at: usize, level: Option<usize>) {
        self.last[v.0 as usize] = at;
        self.level[v.0 as usize] = level;
    }

    /// Finds loads and constants that their users read from memory.
    fn fold(&mut self, order: &Order<'_>, effort: Effort) {
        // For each value that is a load: its position, and how often its operand had been written.
        let mut loads: Vec<Option<(usize, u32)>> = vec![None; self.last.len()];
        let mut written = [0u32; Operand::COUNT];
        // Broadcasts that several dot products read: (value, node) of each use.
        let mut repeats: Vec<(Value, usize)> = Vec::new();
        for (at, node) in order.nodes.iter().enumerate() {
            match *node {
                Node::Let(v, op) => {
                    if let Op::Load(a) | Op::LoadBcast32(a) = op {
                        loads[v.0 as usize] = Some((at, written[a.operand as usize]));
                    } else if let Op::Drain(a) = op {
                        written[a.operand as usize] += 1;
                    }
                    let inputs = op.inputs();
                    let shape = self.shapes[at].expect("every op has a shape");
                    let fresh = |v: Value| {
                        let (def, count) = loads[v.0 as usize]?;
                        let a = order.nodes[def].addr().expect("a load has an address");
                        (count == written[a.operand as usize]
                            && order.within[def] == order.within[at])
                            .then_some(def)
                    };
                    let (slots, bcast_ok) = slots(shape);
                    if effort.constants_in_memory {
                        let slot = slots
                            .iter()
                            .find(|&&s| self.constant[inputs[s].0 as usize].is_some());
                        self.memory[at] = slot.map(|&slot| {
                            let id = self.constant[inputs[slot].0 as usize].expect("a constant");
                            let bcast = bcast_ok;
                            (slot, Memory::Constant { id, bcast })
                        });
                    }
                    for &slot in &slots {
                        let x = inputs[slot];
                        let Some(def) = fresh(x) else { continue };
                        if self.memory[at].is_some() {
                            break;
                        }
                        let bcast = is_bcast(&order.nodes[def]);
                        if bcast && !bcast_ok {
                            continue;
                        }
                        if self.uses[x.0 as usize] == 1 {
                            self.memory[at] = Some((slot, Memory::Load { at: def, bcast }));
                            self.folded[x.0 as usize] = true;
                            break;
                        }
                        if bcast && matches!(shape, Shape::Dot { .. }) {
                            repeats.push((x, at));
                        }
                    }
                }
                Node::Store(a, _) | Node::Accumulate(_, a, _) => written[a.operand as usize] += 1,
                _ => {}
            }
        }
        if effort.repeat_broadcasts {
            for &(x, at) in &repeats {
                let all = repeats.iter().filter(|r| r.0 == x).count();
                if all as u32 == self.uses[x.0 as usize] {
                    let def = loads[x.0 as usize].expect("a broadcast is a load").0;
                    self.memory[at] = Some((
                        2,
                        Memory::Load {
                            at: def,
                            bcast: true,
                        },
                    ));
                    self.folded[x.0 as usize] = true;
                }
            }
        }
    }

    /// Positions of last uses.
    fn lifetimes(&mut self, order: &Order<'_>) {
        let mut first = vec![None; self.patterns.len()];
        for (at, node) in order.nodes.iter().enumerate() {
            match *node {
                Node::Let(_, op) => {
                    for (slot, v) in op.inputs().into_iter().enumerate() {
                        let from_memory = self.memory[at].is_some_and(|(s, _)| s == slot);
                        // A constant accumulator is made in the place of the result.
                        let made_in_place = slot == 0 && matches!(op, Op::DotU8I8 { .. });
                        match self.constant[v.0 as usize] {
                            _ if from_memory => {}
                            Some(_) if made_in_place => {}
                            Some(id) => self.use_constant(order, &mut first, id, at),
                            None => self.use_value(order, v, at),
                        }
                    }
                }
                Node::Store(_, v) | Node::Accumulate(_, _, v) => {
                    match self.constant[v.0 as usize] {
                        Some(id) => self.use_constant(order, &mut first, id, at),
                        None => self.use_value(order, v, at),
                    }
                }
                Node::Start(l) => {
                    for c in &order.loops[l].stmt.carried {
                        self.use_value(order, c.init, at);
                    }
                }
                Node::End(l) => {
                    for c in &order.loops[l].stmt.carried {
                        self.use_value(order, c.next, at);
                    }
                }
                Node::Index { .. } | Node::Indices { .. } | Node::Prefetch(_) => {}
            }
        }
        for (id, at) in first.into_iter().enumerate() {
            if let Some(at) = at {
                self.ready[order.ready(None, at)].push(id);
            }
        }
        for v in 0..self.last.len() {
            if self.constant[v].is_none() && !self.folded[v] && self.last[v] < self.deaths.len() {
                self.deaths[self.last[v]].push(Value(v as u32));
            }
        }
    }

    fn use_value(&mut self, order: &Order<'_>, v: Value, at: usize) {
        let v = v.0 as usize;
        if self.constant[v].is_none() {
            self.last[v] = self.last[v].max(order.until(self.level[v], at));
        }
    }

    fn use_constant(
        &mut self,
        order: &Order<'_>,
        first: &mut [Option<usize>],
        id: usize,
        at: usize,
    ) {
        first[id].get_or_insert(at);
        self.constant_last[id] = self.constant_last[id].max(order.until(None, at));
    }

    /// Walks backwards from what a loop carries along the input that an instruction would update in place.
    fn wishes(&mut self, order: &Order<'_>) {
        for (at, node) in order.nodes.iter().enumerate().rev() {
            match *node {
                Node::End(l) => {
                    for c in &order.loops[l].stmt.carried {
                        if self.level[c.next.0 as usize] == Some(l) {
                            self.wanted[c.next.0 as usize] = Some(c.param);
                        }
                        // A loop that feeds an outer loop's parameter keeps that register.
                        if let Some(p) = self.wanted[c.result.0 as usize] {
                            self.wanted[c.param.0 as usize] = Some(p);
                            self.wanted[c.init.0 as usize].get_or_insert(p);
                        }
                    }
                }
                Node::Let(v, op) => {
                    if let (Some(p), Some(&a)) = (self.wanted[v.0 as usize], op.inputs().first())
                        && self.last[a.0 as usize] == at
                    {
                        self.wanted[a.0 as usize].get_or_insert(p);
                    }
                }
                _ => {}
            }
        }
    }
}

fn is_bcast(node: &Node<'_>) -> bool {
    matches!(node, Node::Let(_, Op::LoadBcast32(_)))
}

/// The inputs that may be memory, best first, and whether they may be broadcast dwords.
fn slots(shape: Shape) -> (Vec<usize>, bool) {
    match shape {
        Shape::Two {
            first,
            commutes: true,
            bcast,
            ..
        } => (vec![1 - first, first], bcast),
        Shape::Two { first, bcast, .. } => (vec![1 - first], bcast),
        Shape::Shift { memory: true, .. } | Shape::One(_) => (vec![0], false),
        Shape::Dot { bcast, .. } => (vec![2], bcast),
        Shape::Lut128 => (vec![1], false),
        _ => (vec![], false),
    }
}
