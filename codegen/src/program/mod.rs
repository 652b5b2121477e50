//! Kernels as data: a [`Program`] says what one call of a micro-kernel does, on vectors of 16, 32 or 64 bytes.
//!
//! A family builds a program once and knows no instruction set; a backend turns programs into code and
//! knows no family. Every op has an exact contract on elements, so interpreter and emitters are compared
//! element by element. Loops have constant trip counts and addresses are affine in the loop counters
//! (plus at most one table index read from memory), so [`check`] proves bounds and overflow without running.

mod builder;
pub mod check;
mod live;
mod text;

pub use builder::Builder;
pub use check::{CheckError, Checked};

/// Bytes of a vector register. The meaning of every op but [`Op::Lut64`] and [`Op::Lut128`] is given
/// per element or per 16-byte lane, so a wider program does the same work on more lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Width {
    /// 16 bytes: SSE, NEON, RVV at 128 bits.
    W16,
    /// 32 bytes: AVX2, AVX-VNNI.
    W32,
    /// 64 bytes: AVX-512.
    W64,
}

impl Width {
    /// All widths, narrow to wide.
    pub const ALL: [Width; 3] = [Width::W16, Width::W32, Width::W64];

    /// The width in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Width::W16 => 16,
            Width::W32 => 32,
            Width::W64 => 64,
        }
    }
}

/// A vector value; defined once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub u32);

/// A scalar read from memory that selects a table entry; defined once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Index(pub u32);

/// The counter of one loop: 0, 1, … trip − 1. Each loop has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Counter(pub u32);

/// What a program may read and write. The discriminant is the pointer's place in the call's arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(usize)]
pub enum Operand {
    /// One panel of packed weights. Read only.
    Weights = 0,
    /// One tile of prepared activations. Read only.
    Acts = 1,
    /// `Σ_k x` of each token of the tile, i32. Read only.
    Sums = 2,
    /// The program's own constants ([`Program::consts`]). Read only.
    Consts = 3,
    /// Working memory, for instance tables or an unpacked panel. All zero before the first call;
    /// a program that drains it leaves it zero.
    Scratch0 = 4,
    /// More working memory.
    Scratch1 = 5,
    /// The result: i32 sums, or f32 where the program scales groups of columns itself.
    Out = 6,
    /// The scale of each token and group of columns, f32. Read only.
    Scales = 7,
}

impl Operand {
    /// How many there are.
    pub const COUNT: usize = 8;

    /// All operands in argument order.
    pub const ALL: [Operand; Operand::COUNT] = [
        Operand::Weights,
        Operand::Acts,
        Operand::Sums,
        Operand::Consts,
        Operand::Scratch0,
        Operand::Scratch1,
        Operand::Out,
        Operand::Scales,
    ];

    /// Whether a program may store to it.
    pub const fn is_writable(self) -> bool {
        matches!(self, Operand::Scratch0 | Operand::Scratch1 | Operand::Out)
    }
}

/// What the elements of an operand are, and the range that they stay in.
/// Packing, quantising or the program's own stores (which [`check`] verifies) keep the promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Promise {
    /// Any bits.
    Bits,
    /// Bytes of four 2-bit codes, each at most 2.
    Codes2,
    /// Unsigned bytes in `lo..=hi`.
    U8(u8, u8),
    /// Signed bytes in `lo..=hi`.
    I8(i8, i8),
    /// u16 in `lo..=hi`.
    U16(u16, u16),
    /// i16 in `lo..=hi`.
    I16(i16, i16),
    /// Records of 32 bytes: the low bytes of 16 i16 in `lo..=hi`, then their high bytes. A 16-byte load at
    /// the start of a record yields low bytes, one 16 bytes later high bytes; looked up with the same
    /// indices and interleaved (low first), they are i16 in `lo..=hi` again. Read-only operands only.
    I16Planes(i16, i16),
    /// i32 in `lo..=hi`.
    I32(i32, i32),
}

impl Promise {
    /// Whether `bytes`, which start where an element (or record) starts, keep the promise.
    /// Bytes past the last whole element are not looked at.
    pub fn holds(self, bytes: &[u8]) -> bool {
        let words = || {
            bytes
                .chunks_exact(2)
                .map(|b| i16::from_le_bytes([b[0], b[1]]))
        };
        match self {
            Promise::Bits => true,
            Promise::Codes2 => bytes.iter().all(|&b| b & (b >> 1) & 0x55 == 0),
            Promise::U8(lo, hi) => bytes.iter().all(|b| (lo..=hi).contains(b)),
            Promise::I8(lo, hi) => bytes.iter().all(|&b| (lo..=hi).contains(&(b as i8))),
            Promise::U16(lo, hi) => words().all(|w| (lo..=hi).contains(&(w as u16))),
            Promise::I16(lo, hi) => words().all(|w| (lo..=hi).contains(&w)),
            Promise::I32(lo, hi) => bytes
                .chunks_exact(4)
                .map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .all(|w| (lo..=hi).contains(&w)),
            Promise::I16Planes(lo, hi) => bytes.chunks_exact(32).all(|record| {
                (0..16)
                    .map(|i| i16::from_le_bytes([record[i], record[16 + i]]))
                    .all(|w| (lo..=hi).contains(&w))
            }),
        }
    }
}

/// Size and promise of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Bytes that the program may touch from the operand's pointer on.
    pub bytes: usize,
    /// What is in them.
    pub promise: Promise,
}

/// An address: `operand + offset + Σ counter·stride + index·scale`, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Addr {
    /// The operand addressed.
    pub operand: Operand,
    /// Constant part, bytes.
    pub offset: usize,
    /// Loop counters and the bytes that each step adds.
    pub terms: Vec<(Counter, usize)>,
    /// A table index and the bytes of one entry.
    pub index: Option<(Index, usize)>,
}

impl Addr {
    /// `operand + offset`.
    pub fn new(operand: Operand, offset: usize) -> Self {
        Self {
            operand,
            offset,
            terms: Vec::new(),
            index: None,
        }
    }

    /// Adds `counter · stride`. A stride of 0 adds nothing.
    pub fn step(mut self, counter: Counter, stride: usize) -> Self {
        if stride != 0 {
            self.terms.push((counter, stride));
        }
        self
    }

    /// Adds `index · scale`.
    pub fn entry(mut self, index: Index, scale: usize) -> Self {
        assert!(self.index.is_none(), "one table index an address");
        self.index = Some((index, scale));
        self
    }

    /// Adds `bytes` to the constant part.
    pub fn plus(mut self, bytes: usize) -> Self {
        self.offset += bytes;
        self
    }
}

/// A vector operation. `W` is the program's width in bytes; "lane" is a group of 16 bytes;
/// elements are little-endian.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Every byte is `.0`.
    Splat8(u8),
    /// Every i16 is `.0`.
    Splat16(i16),
    /// Every i32 is `.0`.
    Splat32(i32),
    /// W bytes from memory; no alignment is assumed.
    Load(Addr),
    /// Four bytes from memory, repeated W/4 times.
    LoadBcast32(Addr),
    /// Sixteen bytes from memory, repeated in every lane.
    LoadBcast128(Addr),
    /// W bytes from memory, which are then set to zero.
    Drain(Addr),
    /// Bitwise and.
    And(Value, Value),
    /// Bitwise or.
    Or(Value, Value),
    /// Bitwise exclusive or.
    Xor(Value, Value),
    /// i8 add, wrapping; proven not to wrap.
    Add8(Value, Value),
    /// Byte subtract that wraps: `min_u8(b, b - p)` is `b mod p` for `b < 2p`, which needs the wrap.
    Sub8(Value, Value),
    /// u8 subtract that stops at 0.
    SubSatU8(Value, Value),
    /// u8 minimum.
    MinU8(Value, Value),
    /// i16 add; proven not to wrap.
    Add16(Value, Value),
    /// i16 subtract; proven not to wrap.
    Sub16(Value, Value),
    /// i32 add; proven not to wrap.
    Add32(Value, Value),
    /// i32 subtract; proven not to wrap.
    Sub32(Value, Value),
    /// i32 multiply, low half; may wrap (exact division by an odd number is a wrapping multiply).
    MulLo32(Value, Value),
    /// Logical right shift of each u16.
    Shr16(Value, u8),
    /// Left shift of each u16.
    Shl16(Value, u8),
    /// Arithmetic right shift of each i16.
    Sar16(Value, u8),
    /// Logical right shift of each u32.
    Shr32(Value, u8),
    /// Left shift of each u32.
    Shl32(Value, u8),
    /// Arithmetic right shift of each i32.
    Sar32(Value, u8),
    /// Each i32 as the nearest f32, ties to even.
    F32(Value),
    /// f32 add as IEEE 754 has it: rounded to nearest, ties to even, subnormals kept. Never fused with a
    /// multiply. Which NaN comes of a NaN is open.
    AddF32(Value, Value),
    /// f32 multiply, with the contract of [`Op::AddF32`].
    MulF32(Value, Value),
    /// `acc[i] + Σ_{j<4} u[4i+j]·s[4i+j]` for each i32 `i`; `u` unsigned bytes, `s` signed bytes. No saturation.
    DotU8I8 {
        /// i32 accumulators.
        acc: Value,
        /// Unsigned bytes.
        u: Value,
        /// Signed bytes.
        s: Value,
    },
    /// `u[2i]·s[2i] + u[2i+1]·s[2i+1]` for each i16 `i`; proven to fit an i16 (hardware saturates).
    MaddU8I8 {
        /// Unsigned bytes.
        u: Value,
        /// Signed bytes.
        s: Value,
    },
    /// `a[2i]·b[2i] + a[2i+1]·b[2i+1]` for each i32 `i`; i16 inputs.
    MaddI16(Value, Value),
    /// Per lane: `out[i] = table[idx[i]]` for bytes; every index is proven below 16.
    Shuffle16 {
        /// Sixteen bytes in each lane.
        table: Value,
        /// Bytes below 16.
        idx: Value,
    },
    /// Whole vector, width 64 only: `out[i] = table[idx[i] mod 64]` for bytes.
    Lut64 {
        /// 64 bytes.
        table: Value,
        /// Any bytes; the upper two bits do not count.
        idx: Value,
    },
    /// Whole vector, width 64 only: `out[i] = (lo ++ hi)[idx[i] mod 128]` for bytes.
    Lut128 {
        /// Entries 0 to 63.
        lo: Value,
        /// Entries 64 to 127.
        hi: Value,
        /// Any bytes; the upper bit does not count.
        idx: Value,
    },
    /// Per lane: bytes `a0 b0 a1 b1 … a7 b7`.
    InterleaveLo8(Value, Value),
    /// Per lane: bytes `a8 b8 … a15 b15`.
    InterleaveHi8(Value, Value),
    /// Per lane: i16 `a0 b0 a1 b1 a2 b2 a3 b3`.
    InterleaveLo16(Value, Value),
    /// Per lane: i16 `a4 b4 … a7 b7`.
    InterleaveHi16(Value, Value),
}

/// The elements in which memory is accumulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// i16 elements.
    I16,
    /// i32 elements.
    I32,
}

/// One step of a program.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Stmt {
    /// `value = op`.
    Let(Value, Op),
    /// `index = u8 at addr`, zero-extended.
    LetIndex8(Index, Addr),
    /// `index = u16 at addr`, zero-extended.
    LetIndex16(Index, Addr),
    /// `indices[j] = (u8 at addr + j) << shift`, zero-extended: 4 or 8 indices that one load brings.
    /// On x86-64 each further index is a rotate and a mask, which take no load slot.
    LetIndices8 {
        /// 4 or 8 indices.
        indices: Vec<Index>,
        /// The first byte; that many bytes are read.
        addr: Addr,
        /// Below 16; a shift that makes an entry's size the scale 1.
        shift: u8,
    },
    /// W bytes to memory.
    Store(Addr, Value),
    /// `memory += value`, element by element; proven not to wrap.
    Accumulate(Element, Addr, Value),
    /// A hint to bring the cache line at the address near. May point past the operand; never faults.
    Prefetch(Addr),
    /// A counted loop.
    Loop(Loop),
}

/// A loop with a constant trip count (at least 1) and values carried from one turn to the next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Loop {
    /// The counter.
    pub counter: Counter,
    /// How many turns.
    pub trip: usize,
    /// Carried values.
    pub carried: Vec<Carried>,
    /// The body.
    pub body: Vec<Stmt>,
}

/// One carried value. After the loop, `result` names what `next` was in the last turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Carried {
    /// Before the first turn (defined outside).
    pub init: Value,
    /// Inside the body.
    pub param: Value,
    /// At the end of the body (defined inside, or another param, or outside).
    pub next: Value,
    /// After the loop.
    pub result: Value,
}

/// A micro-kernel: what one call does.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// The kernel's name: the spec's text, plus a suffix for a stage.
    pub name: String,
    /// Vector width.
    pub width: Width,
    /// Size and promise of each operand, in [`Operand::ALL`] order; `None` where unused.
    pub extents: [Option<Extent>; Operand::COUNT],
    /// The data behind [`Operand::Consts`].
    pub consts: Vec<u8>,
    /// The steps.
    pub body: Vec<Stmt>,
    /// Number of vector values (ids are below it).
    pub n_values: u32,
    /// Number of indices.
    pub n_indices: u32,
    /// Number of loops.
    pub n_counters: u32,
}

impl Program {
    /// The extent of `operand`, if the program uses it.
    pub fn extent(&self, operand: Operand) -> Option<&Extent> {
        self.extents[operand as usize].as_ref()
    }

    /// Bytes of `operand`; 0 if unused.
    pub fn bytes(&self, operand: Operand) -> usize {
        self.extent(operand).map_or(0, |e| e.bytes)
    }

    /// Whether the program takes `operand` (scratch) as zeros and leaves it so: it accumulates there or drains.
    pub fn keeps_zero(&self, operand: Operand) -> bool {
        fn any(body: &[Stmt], operand: Operand) -> bool {
            body.iter().any(|s| match s {
                Stmt::Let(_, Op::Drain(a)) | Stmt::Accumulate(_, a, _) => a.operand == operand,
                Stmt::Loop(l) => any(&l.body, operand),
                _ => false,
            })
        }
        operand != Operand::Out && any(&self.body, operand)
    }
}

impl Op {
    /// The values that the op reads, in order.
    pub fn inputs(&self) -> Vec<Value> {
        use Op::*;
        match *self {
            Splat8(_) | Splat16(_) | Splat32(_) | Load(_) | LoadBcast32(_) | LoadBcast128(_)
            | Drain(_) => vec![],
            Shr16(a, _)
            | Shl16(a, _)
            | Sar16(a, _)
            | Shr32(a, _)
            | Shl32(a, _)
            | Sar32(a, _)
            | F32(a) => vec![a],
            And(a, b)
            | Or(a, b)
            | Xor(a, b)
            | Add8(a, b)
            | Sub8(a, b)
            | SubSatU8(a, b)
            | MinU8(a, b)
            | Add16(a, b)
            | Sub16(a, b)
            | Add32(a, b)
            | Sub32(a, b)
            | MulLo32(a, b)
            | AddF32(a, b)
            | MulF32(a, b)
            | MaddI16(a, b)
            | InterleaveLo8(a, b)
            | InterleaveHi8(a, b)
            | InterleaveLo16(a, b)
            | InterleaveHi16(a, b) => vec![a, b],
            MaddU8I8 { u, s } => vec![u, s],
            DotU8I8 { acc, u, s } => vec![acc, u, s],
            Shuffle16 { table, idx } | Lut64 { table, idx } => vec![table, idx],
            Lut128 { lo, hi, idx } => vec![lo, hi, idx],
        }
    }

    /// The address that the op reads, if it reads memory.
    pub fn addr(&self) -> Option<&Addr> {
        match self {
            Op::Load(a) | Op::LoadBcast32(a) | Op::LoadBcast128(a) | Op::Drain(a) => Some(a),
            _ => None,
        }
    }
}
