//! Walks a program and builds one Cranelift function: values, loops, memory. Which instructions an op becomes is
//! the business of [`super::select`], how addresses are formed that of [`super::address`].

use super::address::{self, Stream};
use super::prefetch;
use super::reads::{first_reads, vector_type};
use super::select::{self, Select};
use super::target::Target;
use crate::abi::Args;
use crate::isa::Arch;
use crate::program::{Addr, Checked, Counter, Index, Loop, Op, Stmt, Value as Slot};
use crate::spec::{Reason, Unsupported};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    AbiParam, BlockArg, ConstantData, Endianness, Function, InstBuilder, MemFlagsData, SigRef,
    Signature, Type, UserFuncName, Value, types,
};
use cranelift_codegen::isa::TargetIsa;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use std::collections::{BTreeMap, BTreeSet};
use std::mem::offset_of;

/// Builds the function of `program`.
///
/// # Errors
/// [`Unsupported`] when an op does not exist on `target`.
pub fn emit(
    program: &Checked,
    target: &Target,
    isa: &dyn TargetIsa,
) -> Result<Function, Unsupported> {
    let mut signature = Signature::new(target.convention());
    signature.params.push(AbiParam::new(types::I64));
    let mut function = Function::with_name_signature(UserFuncName::default(), signature);
    let mut context = FunctionBuilderContext::new();
    let builder = FunctionBuilder::new(&mut function, &mut context);
    let mut emitter = Emitter::new(builder, program, target);
    emitter.entry();
    emitter.stmts(&program.body)?;
    let mut f = emitter.f;
    f.ins().return_(&[]);
    f.seal_all_blocks();
    f.finalize(isa.frontend_config());
    Ok(function)
}

/// Memory of a kernel is never aligned for sure, and the program is proven not to fault.
pub fn memory() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}

/// What a slot of the program holds.
#[derive(Clone, Copy, PartialEq)]
enum Held {
    Nothing,
    /// A constant, made in the entry block. Zero costs one instruction without inputs, so it is made
    /// anew for each reader and holds no register.
    Constant([u8; 16]),
    Value(Value),
}

/// An index in a word: bits `down` and up (a negative number is a shift to the left), masked in place.
#[derive(Clone, Copy)]
struct Packed {
    word: Value,
    down: i64,
    mask: i64,
}

/// A function under construction.
pub struct Emitter<'a> {
    /// Cranelift's builder.
    pub f: FunctionBuilder<'a>,
    /// The program.
    pub program: &'a Checked,
    /// The processor family.
    pub arch: Arch,
    select: &'static dyn Select,
    /// The pointer to [`Args`].
    pub args: Option<Value>,
    /// The signature of prefetch stubs, once one is called.
    pub stub: Option<SigRef>,
    held: Vec<Held>,
    first_reads: Vec<Option<Type>>,
    /// Indices of a common load that nothing has used yet.
    packed: BTreeMap<Index, Packed>,
    /// Bytes of each (index, scale) in use.
    entries: BTreeMap<(Index, usize), Value>,
    scales: BTreeMap<Index, BTreeSet<usize>>,
    nest: Vec<Counter>,
    streams: Vec<(Stream, Value)>,
    constants: BTreeMap<[u8; 16], Value>,
}

impl<'a> Emitter<'a> {
    fn new(f: FunctionBuilder<'a>, program: &'a Checked, target: &Target) -> Self {
        let mut scales: BTreeMap<Index, BTreeSet<usize>> = BTreeMap::new();
        address::each_addr(&program.body, &mut |addr| {
            if let Some((index, scale)) = addr.index {
                scales.entry(index).or_default().insert(scale);
            }
        });
        let mut firsts = vec![None; program.n_values as usize];
        first_reads(&program.body, &mut firsts);
        Self {
            f,
            program,
            arch: target.isa().arch(),
            select: select::selector(target),
            args: None,
            stub: None,
            held: vec![Held::Nothing; program.n_values as usize],
            first_reads: firsts,
            packed: BTreeMap::new(),
            entries: BTreeMap::new(),
            scales,
            nest: Vec::new(),
            streams: Vec::new(),
            constants: BTreeMap::new(),
        }
    }

    /// Takes the arguments and makes the constants.
    fn entry(&mut self) {
        let block = self.f.create_block();
        self.f.append_block_params_for_function_params(block);
        self.f.switch_to_block(block);
        let args = self.f.block_params(block)[0];
        self.args = Some(args);
        // One that no instruction reads in the end costs nothing: Cranelift drops it.
        let body = &self.program.body;
        address::each_op(body, &mut |op| {
            if let Some(bytes) = splat_bytes(op)
                && bytes != [0; 16]
                && !self.constants.contains_key(&bytes)
            {
                let v = self.constant(bytes);
                self.constants.insert(bytes, v);
            }
        });
    }

    /// A vector constant. x86-64 reads it from behind the code; elsewhere immediates are cheaper.
    pub fn constant(&mut self, bytes: [u8; 16]) -> Value {
        let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        if self.arch == Arch::X86_64 {
            let data = ConstantData::from(&bytes[..]);
            let handle = self.f.func.dfg.constants.insert(data);
            self.f.ins().vconst(types::I8X16, handle)
        } else if bytes == [bytes[0]; 16] {
            let c = self.f.ins().iconst(types::I8, i64::from(bytes[0]));
            self.f.ins().splat(types::I8X16, c)
        } else if word >> 16 == word & 0xFFFF {
            let c = self.f.ins().iconst(types::I16, i64::from(word & 0xFFFF));
            let v = self.f.ins().splat(types::I16X8, c);
            self.cast(v, types::I8X16)
        } else {
            let c = self.f.ins().iconst(types::I32, i64::from(word));
            let v = self.f.ins().splat(types::I32X4, c);
            self.cast(v, types::I8X16)
        }
    }

    /// The same bits as elements of another type: free.
    pub fn cast(&mut self, v: Value, ty: Type) -> Value {
        if self.f.func.dfg.value_type(v) == ty {
            return v;
        }
        let flags = MemFlagsData::new().with_endianness(Endianness::Little);
        self.f.ins().bitcast(ty, flags, v)
    }

    /// What `slot` holds, as `ty`.
    pub fn get(&mut self, slot: Slot, ty: Type) -> Value {
        match self.held[slot.0 as usize] {
            Held::Value(v) => self.cast(v, ty),
            Held::Constant(bytes) => {
                let v = match self.constants.get(&bytes) {
                    Some(&v) => v,
                    None => self.constant(bytes),
                };
                self.cast(v, ty)
            }
            Held::Nothing => panic!(
                "{}: v{} is read before it is set",
                self.program.name, slot.0
            ),
        }
    }

    /// The constant that `slot` holds, if it holds one.
    pub fn constant_in(&self, slot: Slot) -> Option<[u8; 16]> {
        match self.held[slot.0 as usize] {
            Held::Constant(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Whether every byte of `slot` is proven to be below 128, read as unsigned.
    pub fn below_128(&self, slot: Slot) -> bool {
        self.program.range(slot).u8.hi < 128
    }

    fn set(&mut self, slot: Slot, v: Value) {
        self.held[slot.0 as usize] = Held::Value(v);
    }

    fn stmts(&mut self, body: &'a [Stmt]) -> Result<(), Unsupported> {
        let mut rest = body;
        while let Some((stmt, after)) = rest.split_first() {
            rest = after;
            match stmt {
                Stmt::Let(slot, op) => self.op(*slot, op)?,
                Stmt::LetIndex8(index, addr) => self.index(*index, addr, 1),
                Stmt::LetIndex16(index, addr) => self.index(*index, addr, 2),
                Stmt::LetIndices8 {
                    indices,
                    addr,
                    shift,
                } => self.indices(indices, addr, *shift),
                Stmt::Store(addr, slot) => {
                    let v = self.get(*slot, types::I8X16);
                    self.store(addr, v);
                }
                Stmt::Accumulate(element, addr, slot) => {
                    let ty = vector_type(*element);
                    let v = self.get(*slot, ty);
                    let (p, offset) = self.address(addr);
                    let old = self.load(ty, p, offset);
                    let sum = self.f.ins().iadd(v, old);
                    let sum = self.cast(sum, types::I8X16);
                    self.f.ins().store(memory(), sum, p, offset);
                }
                Stmt::Prefetch(_) => {
                    let run = body.len() - rest.len() - 1;
                    let addrs = prefetch::run(&body[run..]);
                    rest = &body[run + addrs.len()..];
                    prefetch::emit(self, &addrs);
                }
                Stmt::Loop(l) if l.trip == 1 => self.once(l)?,
                Stmt::Loop(l) => self.repeat(l)?,
            }
        }
        Ok(())
    }

    fn index(&mut self, index: Index, addr: &Addr, bytes: usize) {
        let (p, offset) = self.address(addr);
        let entry = if bytes == 1 {
            self.f.ins().uload8(types::I64, memory(), p, offset)
        } else {
            self.f.ins().uload16(types::I64, memory(), p, offset)
        };
        self.scaled(index, entry);
    }

    /// One load for all. An index is taken out of the word where it is first used: eight at once would
    /// need as many integer registers.
    fn indices(&mut self, indices: &[Index], addr: &Addr, shift: u8) {
        let (p, offset) = self.address(addr);
        let word = match indices.len() {
            4 => self.f.ins().uload32(memory(), p, offset),
            8 => self.f.ins().load(types::I64, memory(), p, offset),
            other => panic!("{}: {other} indices at once", self.program.name),
        };
        for (j, &index) in indices.iter().enumerate() {
            let down = 8 * j as i64 - i64::from(shift);
            let mask = 0xFF << shift;
            self.packed.insert(index, Packed { word, down, mask });
        }
    }

    /// Takes `index` out of its word, if it is in one.
    fn unpack(&mut self, index: Index) {
        let Some(Packed { word, down, mask }) = self.packed.remove(&index) else {
            return;
        };
        let moved = match down {
            0 => word,
            1.. => self.f.ins().ushr_imm_u(word, down),
            _ => self.f.ins().ishl_imm_u(word, -down),
        };
        let entry = self.f.ins().band_imm_u(moved, mask);
        self.scaled(index, entry);
    }

    /// Prepares the bytes of each scale that `index` is used with.
    fn scaled(&mut self, index: Index, entry: Value) {
        for scale in self.scales.get(&index).cloned().unwrap_or_default() {
            let bytes = match scale {
                1 => entry,
                s if s.is_power_of_two() => self
                    .f
                    .ins()
                    .ishl_imm_u(entry, i64::from(s.trailing_zeros())),
                s => self.f.ins().imul_imm_s(entry, s as i64),
            };
            self.entries.insert((index, scale), bytes);
        }
    }

    /// The pointer of `stream`. An operand's own pointer is read from the arguments where no loop keeps it:
    /// held from the start to the end it would cost an integer register in every loop.
    fn pointer(&mut self, stream: &Stream) -> Value {
        if let Some((_, p)) = self.streams.iter().find(|(s, _)| s == stream) {
            return *p;
        }
        assert!(
            stream.terms.is_empty(),
            "{}: {stream:?} is not running",
            self.program.name
        );
        let at = offset_of!(Args, operands) + 8 * stream.operand as usize;
        let args = self.args.expect("the entry block has run");
        self.f.ins().load(types::I64, memory(), args, at as i32)
    }

    /// A pointer and the displacement from it.
    pub fn address(&mut self, addr: &Addr) -> (Value, i32) {
        let base = self.pointer(&Stream::of(addr, &self.nest));
        let base = match addr.index {
            None => base,
            Some(entry) => {
                self.unpack(entry.0);
                let bytes = self.entries[&entry];
                self.f.ins().iadd(base, bytes)
            }
        };
        match i32::try_from(addr.offset) {
            Ok(offset) => (base, offset),
            Err(_) => (self.f.ins().iadd_imm_s(base, addr.offset as i64), 0),
        }
    }

    /// Loads a vector. RVV's wide elements want aligned addresses, bytes do not.
    fn load(&mut self, ty: Type, p: Value, offset: i32) -> Value {
        let memory_type = if self.arch == Arch::Riscv64 {
            types::I8X16
        } else {
            ty
        };
        let v = self.f.ins().load(memory_type, memory(), p, offset);
        self.cast(v, ty)
    }

    fn store(&mut self, addr: &Addr, v: Value) {
        let (p, offset) = self.address(addr);
        self.f.ins().store(memory(), v, p, offset);
    }

    fn op(&mut self, slot: Slot, op: &Op) -> Result<(), Unsupported> {
        let ty = self.first_reads[slot.0 as usize].unwrap_or(types::I8X16);
        if let Some(bytes) = splat_bytes(op) {
            self.held[slot.0 as usize] = Held::Constant(bytes);
            return Ok(());
        }
        let v = match op {
            Op::Load(addr) | Op::LoadBcast128(addr) => {
                let (p, offset) = self.address(addr);
                self.load(ty, p, offset)
            }
            Op::LoadBcast32(addr) => self.broadcast(addr),
            Op::Drain(addr) => {
                let (p, offset) = self.address(addr);
                let v = self.load(ty, p, offset);
                let zero = self.constant([0; 16]);
                self.f.ins().store(memory(), zero, p, offset);
                v
            }
            _ => select::op(self.select, self, op)
                .map_err(|why| Unsupported::new(&self.program.name, Reason::Instructions(why)))?,
        };
        self.set(slot, v);
        Ok(())
    }

    /// Four bytes in every lane. As a float they never pass through an integer register.
    fn broadcast(&mut self, addr: &Addr) -> Value {
        let (p, offset) = self.address(addr);
        let (scalar, vector) = match self.arch {
            Arch::Riscv64 => (types::I32, types::I32X4),
            _ => (types::F32, types::F32X4),
        };
        let word = self.f.ins().load(scalar, memory(), p, offset);
        self.f.ins().splat(vector, word)
    }

    /// A loop of one turn is its body.
    fn once(&mut self, l: &'a Loop) -> Result<(), Unsupported> {
        for c in &l.carried {
            self.held[c.param.0 as usize] = self.held[c.init.0 as usize];
        }
        self.stmts(&l.body)?;
        let last: Vec<Held> = l
            .carried
            .iter()
            .map(|c| self.held[c.next.0 as usize])
            .collect();
        for (c, v) in l.carried.iter().zip(last) {
            self.held[c.result.0 as usize] = v;
        }
        Ok(())
    }

    /// ```text
    /// head(carried, pointers, left):  brif left = 0, exit, body
    /// body:                           …  jump head(next, pointers + strides, left − 1)
    /// ```
    /// The test stands at the top so that every `next` has one reader: with two (back edge and exit), Cranelift
    /// merges no load below it into an instruction. The price is a jump a turn.
    fn repeat(&mut self, l: &'a Loop) -> Result<(), Unsupported> {
        let [head, body, exit] = std::array::from_fn(|_| self.f.create_block());
        let mut entering: Vec<BlockArg> = Vec::new();
        let mut carried = Vec::new();
        for c in &l.carried {
            let ty = self.first_reads[c.param.0 as usize].unwrap_or(types::I8X16);
            entering.push(self.get(c.init, ty).into());
            carried.push((ty, self.f.append_block_param(head, ty)));
        }
        // What is first used in the loop must be ready before it.
        for index in self.packed.keys().copied().collect::<Vec<_>>() {
            self.unpack(index);
        }
        let running = self.streams.len();
        for stream in address::fixed_in(&l.body) {
            let p = self.pointer(&stream);
            self.streams.push((stream, p));
        }
        self.nest.push(l.counter);
        let mut advancing = Vec::new();
        for stream in address::advanced_by(&self.nest, &l.body) {
            let (outer, stride) = stream.outer().expect("the loop's counter is a term");
            entering.push(self.pointer(&outer).into());
            let p = self.f.append_block_param(head, types::I64);
            advancing.push((p, stride));
            self.streams.push((stream, p));
        }
        let left = self.f.append_block_param(head, types::I64);
        let trip = self.f.ins().iconst(types::I64, l.trip as i64);
        entering.push(trip.into());
        self.f.ins().jump(head, &entering);
        self.f.switch_to_block(head);
        // The exit first: the other way round Cranelift lays it between head and body.
        let zero = self.f.ins().iconst(types::I64, 0);
        let done = self.f.ins().icmp(IntCC::Equal, left, zero);
        self.f.ins().brif(done, exit, &[], body, &[]);

        self.f.switch_to_block(body);
        for (c, &(_, v)) in l.carried.iter().zip(&carried) {
            self.set(c.param, v);
        }
        self.stmts(&l.body)?;
        let mut back: Vec<BlockArg> = Vec::new();
        for (c, &(ty, _)) in l.carried.iter().zip(&carried) {
            back.push(self.get(c.next, ty).into());
        }
        // Pointers move after their last use, so that no second register is needed.
        for (p, stride) in advancing {
            back.push(self.f.ins().iadd_imm_s(p, stride as i64).into());
        }
        back.push(self.f.ins().iadd_imm_s(left, -1).into());
        self.f.ins().jump(head, &back);

        for (c, &(_, v)) in l.carried.iter().zip(&carried) {
            self.set(c.result, v);
        }
        // Those that nothing used end with the loop that read them.
        self.packed.clear();
        self.streams.truncate(running);
        self.nest.pop();
        self.f.switch_to_block(exit);
        Ok(())
    }
}

/// The bytes of a constant op.
pub fn splat_bytes(op: &Op) -> Option<[u8; 16]> {
    Some(match *op {
        Op::Splat8(x) => [x; 16],
        Op::Splat16(x) => std::array::from_fn(|i| x.to_le_bytes()[i % 2]),
        Op::Splat32(x) => std::array::from_fn(|i| x.to_le_bytes()[i % 4]),
        _ => return None,
    })
}
