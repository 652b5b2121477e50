//! The program as one list of nodes, so that a position is a number, and how long things must live:
//! what is defined outside a loop and used inside lives to the loop's end.

use crate::program::{Addr, Element, Index, Loop, Op, Program, Stmt, Value};

/// One step; a loop is its start, its body and its end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Node<'p> {
    /// `value = op`.
    Let(Value, &'p Op),
    /// `index = u8 or u16 at addr`.
    Index {
        index: Index,
        bytes: usize,
        addr: &'p Addr,
    },
    /// `indices[j] = (u8 at addr + j) << shift`.
    Indices {
        indices: &'p [Index],
        addr: &'p Addr,
        shift: u8,
    },
    /// A store.
    Store(&'p Addr, Value),
    /// `memory += value`.
    Accumulate(Element, &'p Addr, Value),
    /// A hint.
    Prefetch(&'p Addr),
    /// A loop begins.
    Start(usize),
    /// A turn ends.
    End(usize),
}

impl<'p> Node<'p> {
    /// The address that the node touches, if any.
    pub fn addr(&self) -> Option<&'p Addr> {
        match *self {
            Node::Let(_, op) => op.addr(),
            Node::Index { addr, .. }
            | Node::Indices { addr, .. }
            | Node::Store(addr, _)
            | Node::Accumulate(_, addr, _)
            | Node::Prefetch(addr) => Some(addr),
            Node::Start(_) | Node::End(_) => None,
        }
    }
}

/// One loop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span<'p> {
    /// The loop.
    pub stmt: &'p Loop,
    /// Position of its start.
    pub start: usize,
    /// Position of its end.
    pub end: usize,
    /// The loop around it.
    pub parent: Option<usize>,
    /// Whether no loop is inside.
    pub innermost: bool,
}

/// The flat program.
pub(super) struct Order<'p> {
    /// The steps.
    pub nodes: Vec<Node<'p>>,
    /// The innermost loop that each node is in. A start is outside its loop, an end inside.
    pub within: Vec<Option<usize>>,
    /// The loops, in order of their starts.
    pub loops: Vec<Span<'p>>,
    /// The loop of each counter.
    pub loop_of: Vec<Option<usize>>,
}

impl<'p> Order<'p> {
    /// Flattens `program`.
    pub fn new(program: &'p Program) -> Self {
        let mut order = Self {
            nodes: Vec::new(),
            within: Vec::new(),
            loops: Vec::new(),
            loop_of: vec![None; program.n_counters as usize],
        };
        order.body(&program.body, None);
        order
    }

    fn push(&mut self, node: Node<'p>, within: Option<usize>) {
        self.nodes.push(node);
        self.within.push(within);
    }

    fn body(&mut self, stmts: &'p [Stmt], within: Option<usize>) {
        for stmt in stmts {
            match stmt {
                Stmt::Let(v, op) => self.push(Node::Let(*v, op), within),
                Stmt::LetIndex8(index, addr) => self.push(
                    Node::Index {
                        index: *index,
                        bytes: 1,
                        addr,
                    },
                    within,
                ),
                Stmt::LetIndex16(index, addr) => self.push(
                    Node::Index {
                        index: *index,
                        bytes: 2,
                        addr,
                    },
                    within,
                ),
                Stmt::LetIndices8 {
                    indices,
                    addr,
                    shift,
                } => self.push(
                    Node::Indices {
                        indices,
                        addr,
                        shift: *shift,
                    },
                    within,
                ),
                Stmt::Store(addr, v) => self.push(Node::Store(addr, *v), within),
                Stmt::Accumulate(element, addr, v) => {
                    self.push(Node::Accumulate(*element, addr, *v), within);
                }
                Stmt::Prefetch(addr) => self.push(Node::Prefetch(addr), within),
                Stmt::Loop(stmt) => {
                    let this = self.loops.len();
                    if let Some(outer) = within {
                        self.loops[outer].innermost = false;
                    }
                    self.loop_of[stmt.counter.0 as usize] = Some(this);
                    self.loops.push(Span {
                        stmt,
                        start: self.nodes.len(),
                        end: 0,
                        parent: within,
                        innermost: true,
                    });
                    self.push(Node::Start(this), within);
                    self.body(&stmt.body, Some(this));
                    self.loops[this].end = self.nodes.len();
                    self.push(Node::End(this), Some(this));
                }
            }
        }
    }

    /// The loop at level `home` (or the position itself) that contains position `at`: where something
    /// defined at level `home` must be available, and until when, to be used at `at`.
    fn child(&self, home: Option<usize>, at: usize) -> Option<usize> {
        let mut inner = None;
        let mut here = self.within[at];
        while here != home {
            let l = here.expect("a use is inside the scope of its definition");
            inner = Some(l);
            here = self.loops[l].parent;
        }
        inner
    }

    /// The last position at which something defined at level `home` must live to be used at `at`.
    pub fn until(&self, home: Option<usize>, at: usize) -> usize {
        self.child(home, at).map_or(at, |l| self.loops[l].end)
    }

    /// The position at level `home` before which something used at `at` must be ready.
    pub fn ready(&self, home: Option<usize>, at: usize) -> usize {
        self.child(home, at).map_or(at, |l| self.loops[l].start)
    }

    /// The loops around `inner`, itself included, from `outer` inwards.
    pub fn chain(&self, outer: usize, inner: usize) -> Vec<usize> {
        let mut chain = vec![inner];
        while chain[chain.len() - 1] != outer {
            let last = chain[chain.len() - 1];
            chain.push(
                self.loops[last]
                    .parent
                    .expect("the loops of one address are nested"),
            );
        }
        chain.reverse();
        chain
    }

    /// How many loops are around loop `l`.
    pub fn depth(&self, l: usize) -> usize {
        std::iter::successors(self.loops[l].parent, |&p| self.loops[p].parent).count()
    }
}
