#![expect(
    unsafe_code,
    reason = "enters emitted code with operands of its own, none of them behind a kernel's checks"
)]
//! Emitted code, entered without [`bitnet_codegen::Kernel`]: here constants, working memory and the arguments
//! themselves end (or start) at a page without access, too, and each is exactly as long as the program says.

use crate::guarded::{Edge, Guarded};
use bitnet_codegen::abi::{Args, EntryFn, Interpreter, Operands, OutOrder};
use bitnet_codegen::backend::{self, Code};
use bitnet_codegen::kernel::memory::Executable;
use bitnet_codegen::layout::Panel;
use bitnet_codegen::program::{Checked, Operand};
use bitnet_codegen::{ActsForm, Features, Isa, Plan};

/// The prefetch stubs' stand-in: it returns at once.
#[cfg(target_arch = "x86_64")]
const RETURN: &[u8] = &[0xC3];
#[cfg(target_arch = "aarch64")]
const RETURN: &[u8] = &0xD65F_03C0u32.to_le_bytes();
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const RETURN: &[u8] = &0x0000_8067u32.to_le_bytes();

/// Executable memory: the stub, then the programs.
fn load(codes: &[&[u8]]) -> Executable {
    let functions: Vec<&[u8]> = std::iter::once(RETURN)
        .chain(codes.iter().copied())
        .collect();
    Executable::new(&functions).unwrap_or_else(|e| panic!("{e}"))
}

/// What runs a program.
#[derive(Clone, Copy)]
enum Entry {
    Emitted(EntryFn),
    Interpreted(Interpreter),
}

impl Entry {
    /// The start of one function of an [`Executable`].
    fn emitted(code: &[u8]) -> Self {
        // SAFETY: the start of a finished function that a backend emitted with this convention; its owner keeps
        // the memory for as long as it calls.
        Self::Emitted(unsafe { std::mem::transmute::<*const u8, EntryFn>(code.as_ptr()) })
    }
}

/// One program with all that it reads and writes besides the operands of a call.
pub struct Stage {
    program: Checked,
    entry: Entry,
    consts: Guarded,
    scratch: [Guarded; 2],
    args: Guarded,
}

/// How many bytes of each operand, and of the arguments, a call lends.
#[derive(Clone, Copy)]
pub struct Lent {
    pub operands: [usize; Operand::COUNT],
    pub args: usize,
}

impl Lent {
    /// What `program` asks for.
    pub fn to(program: &Checked) -> Self {
        Self {
            operands: Operand::ALL.map(|o| program.bytes(o)),
            args: size_of::<Args>(),
        }
    }
}

impl Stage {
    fn new(program: Checked, entry: Entry, lent: Lent, edge: Edge) -> Self {
        let zeroed = |o| Guarded::zeroed(lent.operands[o as usize], edge);
        let mut consts = zeroed(Operand::Consts);
        let len = consts.bytes().len();
        consts.bytes_mut().copy_from_slice(&program.consts[..len]);
        Self {
            entry,
            scratch: [zeroed(Operand::Scratch0), zeroed(Operand::Scratch1)],
            args: Guarded::zeroed(lent.args, edge),
            consts,
            program,
        }
    }

    /// Runs the program. Slices may be shorter than it needs: then it faults, which is the point.
    fn call(&mut self, stub: *const u8, [weights, acts, sums, scales]: [&[u8]; 4], out: &mut [u8]) {
        let [scratch0, scratch1] = &mut self.scratch;
        let mut operands = Operands {
            weights,
            acts,
            sums,
            consts: self.consts.bytes(),
            scratch: [scratch0.bytes_mut(), scratch1.bytes_mut()],
            out,
            scales,
        };
        let f = match self.entry {
            Entry::Emitted(f) => f,
            Entry::Interpreted(run) => return run(&self.program, &mut operands),
        };
        let args = Args {
            operands: operands.pointers(),
            prefetch: [stub; 4],
        };
        let lent = self.args.bytes_mut();
        // SAFETY: any value may be looked at as bytes; `Args` has no padding (asserted where it is defined).
        let bytes = unsafe {
            std::slice::from_raw_parts((&raw const args).cast::<u8>(), size_of::<Args>())
        };
        lent.copy_from_slice(&bytes[..lent.len()]);
        // SAFETY: the program is proven to stay inside its extents. Where less is lent than that, only pages
        // without access lie behind, and the process ends there: no byte of anybody else is read or written.
        unsafe { f(lent.as_ptr().cast()) };
    }
}

/// A plan's code.
pub struct Bare {
    pub panel: Panel,
    pub acts: ActsForm,
    pub out: OutOrder,
    unpack: Option<(Stage, Guarded)>,
    main: Vec<(usize, Stage)>,
    loaded: Executable,
}

impl Bare {
    /// Proves, emits and loads `plan` for `cpu`.
    ///
    /// # Errors
    /// Why the backend refuses it.
    pub fn new(plan: Plan, cpu: Features, edge: Edge) -> Result<Self, String> {
        let isa = plan.spec.isa;
        assert!(isa.runs_on(cpu) && Features::detect().contains(cpu));
        let has_unpack = plan.unpack.is_some();
        let mut sizes = Vec::new();
        let programs = plan
            .unpack
            .into_iter()
            .chain(plan.main.into_iter().map(|(mr, p)| {
                sizes.push(mr);
                p
            }));
        let emitted = programs
            .map(|p| emit(Checked::new(p).unwrap_or_else(|e| panic!("{e}")), isa, cpu))
            .collect::<Result<Vec<_>, _>>()?;
        let machine = |code: &Code| match code {
            Code::Machine(bytes) => Some(bytes.clone()),
            Code::Interpreted(_) => None,
        };
        let codes: Vec<Vec<u8>> = emitted.iter().filter_map(|(_, c)| machine(c)).collect();
        let loaded = load(&codes.iter().map(|c| &c[..]).collect::<Vec<_>>());
        let mut next = 1;
        let mut stages = emitted.into_iter().map(|(program, code)| {
            let entry = match code {
                Code::Interpreted(run) => Entry::Interpreted(run),
                Code::Machine(_) => {
                    next += 1;
                    Entry::emitted(loaded.code(next - 1))
                }
            };
            let lent = Lent::to(&program);
            Stage::new(program, entry, lent, edge)
        });
        let unpack = has_unpack.then(|| {
            let stage = stages.next().expect("the first program");
            let unpacked = Guarded::zeroed(stage.program.bytes(Operand::Out), edge);
            (stage, unpacked)
        });
        let main = sizes.into_iter().zip(&mut stages).collect();
        drop(stages);
        Ok(Self {
            panel: plan.panel,
            acts: plan.acts,
            out: plan.out,
            unpack,
            main,
            loaded,
        })
    }

    /// Tiles of `m` tokens: the largest that fit; where none does, the smallest, filled up with zero tokens.
    pub fn tiles(&self, m: usize) -> Vec<(usize, usize)> {
        let mut tiles = Vec::new();
        let mut first = 0;
        while first < m {
            let sizes = || self.main.iter().map(|(mr, _)| *mr);
            let fits = sizes().filter(|&mr| mr <= m - first).max();
            let mr = fits.or(sizes().min()).expect("a main program");
            tiles.push((first, mr));
            first += mr;
        }
        tiles
    }

    /// As [`bitnet_codegen::Kernel::load_panel`].
    pub fn load_panel(&mut self, packed: &[u8]) {
        if let Some((stage, unpacked)) = &mut self.unpack {
            stage.call(
                self.loaded.code(0).as_ptr(),
                [packed, &[], &[], &[]],
                unpacked.bytes_mut(),
            );
        }
    }

    /// As [`bitnet_codegen::Kernel::run`].
    pub fn run(&mut self, mr: usize, packed: &[u8], acts: &[u8], sums: &[u8], out: &mut [u8]) {
        let weights = self.unpack.as_ref().map_or(packed, |(_, u)| u.bytes());
        let stage = self.main.iter_mut().find(|(size, _)| *size == mr);
        let (_, stage) = stage.expect("a size of the plan");
        stage.call(
            self.loaded.code(0).as_ptr(),
            [weights, acts, sums, &[]],
            out,
        );
    }
}

type Emitted = (Checked, Code);

fn emit(program: Checked, isa: Isa, cpu: Features) -> Result<Emitted, String> {
    let emitter = backend::for_isa(isa).map_err(|e| e.to_string())?;
    match emitter.emit(&program, isa, cpu) {
        Ok(code) => Ok((program, code)),
        Err(why) => Err(why.to_string()),
    }
}

mod tests {
    use super::*;
    use crate::guarded::faults;
    use crate::runnable;
    use bitnet_codegen::program::{Addr, Builder, Op, Promise, Width};

    /// Touches the last byte of `operand`, which is two vectors long, and stores one vector to `Out`.
    fn touching(operand: Operand, width: Width) -> Checked {
        let w = width.bytes();
        let mut b = Builder::new(format!("touches {operand:?}"), width);
        b.operand(Operand::Out, w, Promise::Bits);
        if operand == Operand::Consts {
            b.consts(&vec![1; 2 * w]);
        } else {
            b.operand(operand, 2 * w, Promise::Bits);
        }
        let zero = b.zero();
        let last = Addr::new(operand, w);
        if operand.is_writable() {
            b.store(last, zero);
            b.store(Addr::new(Operand::Out, 0), zero);
        } else {
            let v = b.op(Op::Load(last));
            b.store(Addr::new(Operand::Out, 0), v);
        }
        Checked::new(b.finish()).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Whether a call with `lent` bytes faults.
    fn call_faults(program: &Checked, isa: Isa, lent: Lent) -> bool {
        let (program, code) = emit(program.clone(), isa, Features::detect()).expect("emitted");
        let Code::Machine(code) = code else {
            panic!("machine code")
        };
        let loaded = load(&[&code]);
        let mut stage = Stage::new(program, Entry::emitted(loaded.code(1)), lent, Edge::End);
        let buffer = |o: Operand| Guarded::zeroed(lent.operands[o as usize], Edge::End);
        let inputs = [
            Operand::Weights,
            Operand::Acts,
            Operand::Sums,
            Operand::Scales,
        ]
        .map(buffer);
        let mut out = buffer(Operand::Out);
        faults(|| {
            stage.call(
                loaded.code(0).as_ptr(),
                inputs.each_ref().map(|g| g.bytes()),
                out.bytes_mut(),
            )
        })
    }

    /// Code that reads or writes one byte past any operand ends its process; with that byte it does not.
    #[test]
    fn one_byte_past_any_operand_faults() {
        let mut faults = 0;
        for isa in runnable().into_iter().filter(|&i| i != Isa::Interp) {
            for operand in Operand::ALL {
                let program = touching(operand, isa.width());
                let enough = Lent::to(&program);
                assert!(!call_faults(&program, isa, enough), "{isa} {operand:?}");
                let mut short = enough;
                short.operands[operand as usize] -= 1;
                assert!(
                    call_faults(&program, isa, short),
                    "{isa}: one byte of {operand:?} is missing, and nothing happens"
                );
                faults += 1;
            }
            // The scales' address is the last of the arguments that this program reads.
            let program = touching(Operand::Scales, isa.width());
            let args = std::mem::offset_of!(Args, prefetch);
            let lent = Lent::to(&program);
            assert!(!call_faults(&program, isa, Lent { args, ..lent }));
            let args = args - 1;
            assert!(
                call_faults(&program, isa, Lent { args, ..lent }),
                "{isa}: one byte of the arguments is missing, and nothing happens"
            );
        }
        println!("{faults} operands one byte too short fault");
    }
}
