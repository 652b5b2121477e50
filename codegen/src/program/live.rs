//! How many vector values are alive at once: what a program asks of the registers, before any emitter looks.

use super::{Loop, Program, Stmt, Value};

/// Where each value is last used, in the order of the steps.
struct Uses {
    /// The step after which a value is dead; what a loop reads from outside lives to the loop's end.
    last: Vec<usize>,
    at: usize,
}

impl Program {
    /// The largest number of vector values that are alive at once, in the order in which the steps stand.
    /// Constants count like any other value.
    pub fn peak_live(&self) -> usize {
        let mut uses = Uses {
            last: vec![0; self.n_values as usize],
            at: 0,
        };
        let mut defined = vec![usize::MAX; self.n_values as usize];
        uses.body(&self.body, &mut defined);
        // Each value lives from the step after its definition up to its last use.
        let mut changes = vec![0isize; uses.at + 2];
        for (from, last) in defined.iter().zip(&uses.last) {
            if *from != usize::MAX && last > from {
                changes[from + 1] += 1;
                changes[last + 1] -= 1;
            }
        }
        let live = changes.iter().scan(0, |live, change| {
            *live += change;
            Some(*live)
        });
        live.max().unwrap_or(0).unsigned_abs()
    }
}

impl Uses {
    fn body(&mut self, body: &[Stmt], defined: &mut [usize]) {
        for stmt in body {
            self.at += 1;
            match stmt {
                Stmt::Let(v, op) => {
                    for input in op.inputs() {
                        self.read(input);
                    }
                    defined[v.0 as usize] = self.at;
                }
                Stmt::Store(_, v) | Stmt::Accumulate(_, _, v) => self.read(*v),
                Stmt::Loop(l) => self.repeat(l, defined),
                _ => {}
            }
        }
    }

    fn read(&mut self, v: Value) {
        self.last[v.0 as usize] = self.at;
    }

    fn repeat(&mut self, l: &Loop, defined: &mut [usize]) {
        let start = self.at;
        for c in &l.carried {
            self.read(c.init);
            defined[c.param.0 as usize] = start;
        }
        self.body(&l.body, defined);
        self.at += 1;
        for c in &l.carried {
            // The next turn's param takes over the place of `next`.
            self.read(c.next);
            defined[c.result.0 as usize] = self.at;
        }
        let end = self.at;
        for (last, from) in self.last.iter_mut().zip(defined.iter()) {
            let outside = *from < start;
            if outside && *last > start {
                *last = end;
            }
        }
    }
}
