//! What this machine can do at best: read bandwidth and dot-product rate, measured with programs that go
//! through the same emitters and the same call as every kernel.

mod rates;

pub use rates::measure as rates;

use bitnet_codegen::acts::ActsForm;
use bitnet_codegen::layout::{Panel, PanelShape, i2s};
use bitnet_codegen::program::{Addr, Builder, Op, Operand, Promise, Value};
use bitnet_codegen::variant::OutOrder;
use bitnet_codegen::{Features, Isa, Kernel, KernelError, KernelSet, KernelSpec, Plan};
use bitnet_runtime::memory::HugeBytes;
use bitnet_runtime::pool::PoolError;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Why a peak cannot be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeakError {
    /// The probing loop cannot be emitted here.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The system gives fewer threads than asked for.
    #[error(transparent)]
    Threads(PoolError),
}

/// Rows of the stand-in panel; its bytes are what one call of the streaming program reads.
const ROWS: usize = 64;
/// Columns of the stand-in panel: 64 · 16384 / 4 = 256 KiB a call.
const COLUMNS: usize = 16384;

/// Turns of the dot-product loop: about 10 µs.
const DOT_TURNS: usize = 4096;

fn plan(spec: KernelSpec, build: impl FnOnce(&mut Builder)) -> Plan {
    let shape = PanelShape {
        nr: ROWS,
        k: COLUMNS,
        kr: i2s::STEP_K,
    };
    let panel = Panel::of_codes(&i2s::I2s, shape);
    let mut b = Builder::new(spec.to_string(), spec.isa.width());
    build(&mut b);
    let main = vec![(1, b.finish())];
    Plan {
        spec,
        k: COLUMNS,
        groups: None,
        panel,
        acts: ActsForm::Rows,
        unpack: None,
        main,
        out: OutOrder::TokenMajor,
    }
}

/// Reads a panel front to back, `ahead` cache lines of prefetch (0: none).
fn stream_plan(isa: Isa, ahead: usize) -> Plan {
    let spec = KernelSpec::new("stream", "i2s", 1, ROWS, 16, isa).with("pf", ahead as u32);
    plan(spec, |b| {
        let (w, bytes) = (b.width_bytes(), ROWS * COLUMNS / 4);
        b.operand(Operand::Weights, bytes, Promise::Bits);
        b.operand(Operand::Out, w, Promise::Bits);
        let zero = b.zero();
        // Eight cache lines a turn, or-ed into four chains.
        let turn_bytes = 512;
        let accs = b.repeat(bytes / turn_bytes, &[zero; 4], |b, c, params| {
            let mut accs = params.to_vec();
            if ahead > 0 {
                for line in 0..turn_bytes / 64 {
                    b.prefetch(
                        Addr::new(Operand::Weights, 64 * (ahead + line)).step(c, turn_bytes),
                    );
                }
            }
            for i in 0..turn_bytes / w {
                let v = b.op(Op::Load(
                    Addr::new(Operand::Weights, i * w).step(c, turn_bytes),
                ));
                accs[i % 4] = b.op(Op::Or(accs[i % 4], v));
            }
            accs
        });
        let sum = accs[1..].iter().fold(accs[0], |s, &a| b.op(Op::Or(s, a)));
        b.store(Addr::new(Operand::Out, 0), sum);
    })
}

/// Dot products on registers alone. Returns the plan and its multiply-accumulates a call.
fn dot_plan(isa: Isa) -> (Plan, u64) {
    let spec = KernelSpec::new("dotpeak", "i2s", 1, ROWS, 16, isa);
    let chains = if isa.vector_registers() == 32 { 16 } else { 10 };
    let macs = (DOT_TURNS * chains * isa.width().bytes()) as u64;
    let plan = plan(spec, |b| {
        let w = b.width_bytes();
        b.operand(Operand::Out, w, Promise::Bits);
        let zero = b.zero();
        let one = b.op(Op::Splat8(if isa.has_dot() { 1 } else { 0 }));
        let accs = b.repeat(DOT_TURNS, &vec![zero; chains], |b, _, params| {
            params.iter().map(|&acc| dot(b, isa, acc, one)).collect()
        });
        let sum = accs[1..].iter().fold(accs[0], |s, &a| b.op(Op::Or(s, a)));
        b.store(Addr::new(Operand::Out, 0), sum);
    });
    (plan, macs)
}

fn dot(b: &mut Builder, isa: Isa, acc: Value, one: Value) -> Value {
    if isa.has_dot() {
        return b.op(Op::DotU8I8 {
            acc,
            u: one,
            s: one,
        });
    }
    // Without a dot product the i16 pairs of zeros stand for it: the same instructions, no overflow.
    let pairs = b.op(Op::MaddU8I8 { u: one, s: one });
    b.op(Op::Add16(acc, pairs))
}

fn build(plan: Plan, cpu: Features) -> Result<Arc<Kernel>, KernelError> {
    Ok(Arc::clone(&KernelSet::build(vec![plan], cpu)?.kernels()[0]))
}

/// The widest instruction set that `cpu` runs and the backends emit; the interpreter if none.
pub fn widest(cpu: Features) -> Isa {
    let emits = |isa: Isa| isa.runs_on(cpu) && build(dot_plan(isa).0, cpu).is_ok();
    Isa::ALL
        .iter()
        .rev()
        .copied()
        .find(|&i| i != Isa::Interp && emits(i))
        .unwrap_or(Isa::Interp)
}

/// Peak multiply-accumulates a second of `threads` threads, in GMAC/s.
///
/// # Errors
/// [`PeakError`].
pub fn dot_gmac_per_s(isa: Isa, cpu: Features, threads: usize) -> Result<f64, PeakError> {
    let (plan, macs) = dot_plan(isa);
    let kernel = build(plan, cpu)?;
    // About a millisecond, many times: another process that runs meanwhile spoils some of them.
    let calls = if isa == Isa::Interp { 1 } else { 100 };
    let seconds = best_of(
        20,
        threads,
        || {
            let mut scratch = kernel.scratch();
            let mut out = vec![0i32; kernel.out_len(1)];
            move |kernel: &Kernel| {
                for _ in 0..calls {
                    kernel.run(1, &[], &[], &[], &mut scratch, &mut out);
                }
            }
        },
        &kernel,
    )?;
    Ok(macs as f64 * calls as f64 * threads as f64 / seconds / 1e9)
}

/// Distances of prefetch that are tried, in cache lines.
const AHEAD: [usize; 5] = [0, 16, 32, 64, 128];

/// How often the memory is read at each distance, if time suffices; once in any case.
const READ_ROUNDS: usize = 6;

/// Memory that is timed in one piece: some milliseconds, for over all of it another process would often run, too.
const READ_BYTES: usize = 64 << 20;

/// Peak read bandwidth of `threads` threads over `memory`, in GB/s: the best of
/// several prefetch distances, since the roofline must not be lower than a kernel can reach.
/// Begins no further round after `until`.
///
/// # Errors
/// [`PeakError`].
pub fn read_gb_per_s(
    isa: Isa,
    cpu: Features,
    threads: usize,
    memory: &[u8],
    until: Instant,
) -> Result<f64, PeakError> {
    let kernels = AHEAD
        .iter()
        .map(|&ahead| build(stream_plan(isa, ahead), cpu))
        .collect::<Result<Vec<_>, _>>()?;
    let mut best = 0f64;
    for round in 0..READ_ROUNDS {
        if round > 0 && Instant::now() >= until {
            break;
        }
        for kernel in &kernels {
            for part in memory.chunks(READ_BYTES.min(memory.len())) {
                let bytes = part.len() / kernel.panel().bytes() * kernel.panel().bytes();
                if bytes * 2 >= READ_BYTES.min(memory.len()) {
                    let seconds = one_pass(kernel, threads, part)?;
                    best = best.max(bytes as f64 / seconds / 1e9);
                }
            }
        }
    }
    Ok(best)
}

/// A look at the read bandwidth from time to time: a few milliseconds.
pub struct Probe {
    kernel: Arc<Kernel>,
    memory: HugeBytes,
}

/// Prefetch distance of the probe, in cache lines.
const PROBE_AHEAD: usize = 32;

/// Passes of one look; the fastest counts.
const PROBE_PASSES: usize = 2;

impl Probe {
    /// A probe over `bytes` of memory.
    ///
    /// # Errors
    /// [`PeakError`] when the loop cannot be emitted for `isa`.
    pub fn new(isa: Isa, cpu: Features, bytes: usize) -> Result<Self, PeakError> {
        Ok(Self {
            kernel: build(stream_plan(isa, PROBE_AHEAD), cpu)?,
            memory: streaming_memory(bytes),
        })
    }

    /// What `threads` read in GB/s now.
    ///
    /// # Errors
    /// [`PeakError`] when the threads cannot be had.
    pub fn read_gb_per_s(&self, threads: usize) -> Result<f64, PeakError> {
        let bytes = self.memory.len() / self.kernel.panel().bytes() * self.kernel.panel().bytes();
        let mut seconds = f64::INFINITY;
        for _ in 0..PROBE_PASSES {
            seconds = seconds.min(one_pass(&self.kernel, threads, &self.memory)?);
        }
        Ok(bytes as f64 / seconds / 1e9)
    }
}

/// The relative spread of one short loop timed over and over: no smaller difference can be trusted.
///
/// # Errors
/// [`PeakError`] when the loop cannot be emitted for `isa`.
pub fn noise(isa: Isa, cpu: Features) -> Result<f64, PeakError> {
    let kernel = build(dot_plan(isa).0, cpu)?;
    let (mut scratch, mut out) = (kernel.scratch(), vec![0i32; kernel.out_len(1)]);
    let calls = if isa == Isa::Interp { 1 } else { 50 };
    let mut times: Vec<f64> = (0..41)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..calls {
                kernel.run(1, &[], &[], &[], &mut scratch, &mut out);
            }
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    Ok((times[30] - times[10]) / times[20])
}

/// Seconds of one pass of `threads` over `memory`.
fn one_pass(kernel: &Arc<Kernel>, threads: usize, memory: &[u8]) -> Result<f64, PeakError> {
    let call_bytes = kernel.panel().bytes();
    let calls = memory.len() / call_bytes;
    let next = AtomicUsize::new(0);
    let make = || {
        let mut scratch = kernel.scratch();
        let mut out = vec![0i32; kernel.out_len(1)];
        let next = &next;
        move |kernel: &Kernel| {
            // Chunks from a counter: a thread that loses its core does not hold the others up.
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= calls {
                    break;
                }
                let panel = &memory[i * call_bytes..][..call_bytes];
                kernel.run(1, panel, &[], &[], &mut scratch, &mut out);
            }
        }
    };
    best_of(1, threads, make, kernel)
}

/// The fastest of `repeats` runs of `threads` threads at once, in seconds. `make` gives each thread its work.
fn best_of<F: FnMut(&Kernel) + Send>(
    repeats: usize,
    threads: usize,
    make: impl Fn() -> F,
    kernel: &Kernel,
) -> Result<f64, PeakError> {
    let mut best = f64::INFINITY;
    for _ in 0..repeats {
        let spans = at_once(threads, || {
            let mut work = make();
            move || {
                let start = Instant::now();
                work(kernel);
                (start, Instant::now())
            }
        })?;
        let start = spans.iter().map(|s| s.0).min();
        let end = spans.iter().map(|s| s.1).max();
        let span = start.zip(end).map(|(start, end)| end - start);
        best = best.min(span.expect("at least one thread").as_secs_f64());
    }
    Ok(best)
}

/// Runs work on `threads` threads that all start it together, the caller's among them, or on none where the system
/// refuses one.
fn at_once<T: Send, F: FnOnce() -> T + Send>(
    threads: usize,
    make: impl Fn() -> F,
) -> Result<Vec<T>, PeakError> {
    /// Whether the threads are to wait, to go on, or to give up since not all of them could be had.
    const WAIT: usize = 0;
    const GO: usize = 1;
    const GIVE_UP: usize = 2;
    let (gate, waiting) = (AtomicUsize::new(WAIT), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let own = make();
        let mut handles = Vec::with_capacity(threads);
        for index in 1..threads {
            let (work, gate, waiting) = (make(), &gate, &waiting);
            let thread = move || {
                waiting.fetch_add(1, Ordering::AcqRel);
                while gate.load(Ordering::Acquire) == WAIT {
                    std::thread::yield_now();
                }
                (gate.load(Ordering::Acquire) == GO).then(work)
            };
            match std::thread::Builder::new().spawn_scoped(scope, thread) {
                Ok(handle) => handles.push(handle),
                Err(reason) => {
                    gate.store(GIVE_UP, Ordering::Release);
                    return Err(PeakError::Threads(PoolError::Spawn {
                        index,
                        threads,
                        reason,
                    }));
                }
            }
        }
        while waiting.load(Ordering::Acquire) + 1 < threads {
            std::thread::yield_now();
        }
        gate.store(GO, Ordering::Release);
        let mut done = vec![own()];
        let others = handles.into_iter().map(|h| h.join());
        done.extend(others.filter_map(|other| other.expect("a probing thread ends")));
        Ok(done)
    })
}

/// Memory to read from: far larger than the last-level cache, on the pages that packed weights lie on, touched once
/// so that it is really there.
pub fn streaming_memory(bytes: usize) -> HugeBytes {
    let mut memory = HugeBytes::zeroed(bytes);
    memory.chunks_mut(4096).for_each(|page| page[0] = 1);
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_start_together_and_each_does_its_work() {
        for threads in [1, 2, 5] {
            let done = at_once(threads, || || 7).expect("a few threads");
            assert_eq!(done, vec![7; threads]);
        }
    }
}
