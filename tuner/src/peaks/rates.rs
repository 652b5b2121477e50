//! What one vector operation costs here: short loops of one kind of operation, emitted and called like every
//! kernel. They feed the cost model; about a tenth of a second for all widths.

use super::{PeakError, best_of, build, dot, plan};
use crate::space::model::Rates;
use bitnet_codegen::program::{Addr, Builder, Op, Operand, Promise, Value, Width};
use bitnet_codegen::{Features, Isa, Kernel, KernelSpec};

/// Turns of a probing loop.
const TURNS: usize = 512;

/// Independent chains, so that no result is waited for.
const CHAINS: usize = 8;

/// A window that lies in any first-level cache.
const L1_BYTES: usize = 16 << 10;

/// A window that lies in the second-level cache and in no first.
const L2_BYTES: usize = 192 << 10;

/// Runs of each loop; the fastest counts.
const REPEATS: usize = 7;

/// The fastest instruction set of `width` with an emitter on `cpu`, if any.
fn isa_of(width: Width, cpu: Features) -> Option<Isa> {
    let emits = |isa: Isa| build(super::dot_plan(isa).0, cpu).is_ok();
    Isa::ALL
        .iter()
        .rev()
        .copied()
        .find(|&i| i != Isa::Interp && i.width() == width && i.runs_on(cpu) && emits(i))
}

/// The rates of every width; a width that does not run here has those of the next narrower that does, which is
/// of no consequence.
///
/// # Errors
/// [`PeakError`] when a loop cannot be emitted.
pub fn measure(cpu: Features) -> Result<[Rates; 3], PeakError> {
    let mut rates = [Rates::default(); 3];
    let mut known = Rates::from_values([1.0; 10]);
    for (slot, width) in rates.iter_mut().zip(Width::ALL) {
        if let Some(isa) = isa_of(width, cpu) {
            known = of_isa(isa, cpu)?;
        }
        *slot = known;
    }
    Ok(rates)
}

/// One loop: what is declared, and one turn on the chains.
type Turn<'a> = &'a dyn Fn(&mut Builder, bitnet_codegen::program::Counter, &[Value]) -> Vec<Value>;

fn of_isa(isa: Isa, cpu: Features) -> Result<Rates, PeakError> {
    let w = isa.width().bytes();
    let ns = |turns: usize, turn: Turn<'_>| per_turn_ns(isa, cpu, turns, turn);
    // Bare loops with an operation each: their turn is the cost of a turn.
    let add = ns(TURNS, &|b, _, chains| {
        let x = b.zero();
        chains.iter().map(|&c| b.op(Op::Or(c, x))).collect()
    })? / CHAINS as f64;
    let one = ns(TURNS, &|b, _, chains| {
        let first = b.op(Op::Or(chains[0], chains[1]));
        [&[first], &chains[1..]].concat()
    })?;
    let stream = |bytes: usize| {
        let lines = bytes / (CHAINS * w);
        ns(lines, &move |b, c, chains| {
            (0..CHAINS)
                .map(|i| {
                    let at = Addr::new(Operand::Weights, i * w).step(c, CHAINS * w);
                    let x = b.op(Op::Load(at));
                    b.op(Op::Or(chains[i], x))
                })
                .collect()
        })
        .map(|t| t / CHAINS as f64)
    };
    let load = stream(L1_BYTES)?;
    let bcast = ns(TURNS, &|b, c, chains| {
        (0..CHAINS)
            .map(|i| {
                let at = Addr::new(Operand::Weights, 4 * i).step(c, 4 * CHAINS);
                let x = b.op(Op::LoadBcast32(at));
                b.op(Op::Or(chains[i], x))
            })
            .collect()
    })? / CHAINS as f64;
    let store = ns(TURNS, &|b, _, chains| {
        (0..CHAINS).for_each(|i| b.store(Addr::new(Operand::Out, i * w), chains[i]));
        chains.to_vec()
    })? / CHAINS as f64;
    let shuffle = ns(TURNS, &|b, _, chains| {
        let idx = b.zero();
        let shuffled = |&table: &Value| b.op(Op::Shuffle16 { table, idx });
        chains.iter().map(shuffled).collect()
    })? / CHAINS as f64;
    let madd = ns(TURNS, &|b, _, chains| {
        let zero = b.zero();
        chains.iter().map(|&c| b.op(Op::MaddI16(c, zero))).collect()
    })? / CHAINS as f64;
    let dot_ns = ns(TURNS, &|b, _, chains| {
        let one = b.op(Op::Splat8(u8::from(isa.has_dot())));
        chains.iter().map(|&c| dot(b, isa, c, one)).collect()
    })? / CHAINS as f64;
    let looked_up = ns(TURNS, &|b, c, chains| {
        let at = Addr::new(Operand::Weights, 0).step(c, CHAINS);
        let indices = b.indices8(CHAINS, at, 0);
        (0..CHAINS)
            .map(|i| {
                let x = b.op(Op::Load(Addr::new(Operand::Acts, 0).entry(indices[i], 1)));
                b.op(Op::Or(chains[i], x))
            })
            .collect()
    })? / CHAINS as f64;
    Ok(Rates {
        load,
        load_l2: stream(L2_BYTES)?.max(load),
        bcast,
        store,
        dot: dot_ns,
        madd,
        shuffle,
        add,
        index: (looked_up - load).max(0.0),
        turn: (one - add).max(0.0),
    })
}

/// Nanoseconds of one turn.
fn per_turn_ns(isa: Isa, cpu: Features, turns: usize, turn: Turn<'_>) -> Result<f64, PeakError> {
    let spec = KernelSpec::new("rate", "i2s", 1, super::ROWS, 16, isa);
    let plan = plan(spec, |b| {
        let w = b.width_bytes();
        b.operand(Operand::Weights, L2_BYTES, Promise::U8(0, 0));
        b.operand(Operand::Acts, 256 + w, Promise::Bits);
        b.operand(Operand::Out, CHAINS * w, Promise::Bits);
        let zero = b.zero();
        let chains = b.repeat(turns, &[zero; CHAINS], turn);
        for (i, &c) in chains.iter().enumerate() {
            b.store(Addr::new(Operand::Out, i * w), c);
        }
    });
    let kernel = build(plan, cpu)?;
    let (weights, table) = (vec![0u8; L2_BYTES], [0u8; 320]);
    // About half a millisecond each.
    let calls = (1_000_000 / turns / CHAINS).max(1);
    let seconds = best_of(
        REPEATS,
        1,
        || {
            let mut scratch = kernel.scratch();
            let mut out = vec![0i32; CHAINS * 64 / 4];
            let (weights, table) = (&weights, &table);
            move |kernel: &Kernel| {
                for _ in 0..calls {
                    kernel.run(1, weights, table, &[], &mut scratch, &mut out);
                }
            }
        },
        &kernel,
    )?;
    Ok(seconds * 1e9 / (calls * turns) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_that_runs_has_rates() {
        let cpu = Features::detect();
        let rates = measure(cpu).expect("the loops are emitted");
        for (r, width) in rates.iter().zip(Width::ALL) {
            if isa_of(width, cpu).is_none() {
                continue;
            }
            for (name, v) in Rates::NAMES.iter().zip(r.values()) {
                assert!(v.is_finite() && v >= 0.0, "{width:?} {name}: {v}");
            }
            assert!(r.load > 0.0 && r.load_l2 >= r.load && r.add > 0.0, "{r:?}");
        }
    }
}
