//! The meaning of every op that does not touch memory, on arrays.

use crate::program::{Op, Value};

/// The i16 elements of a vector, of which the first `W / 2` exist.
pub(super) fn words16<const W: usize>(v: &[u8; W]) -> impl Fn(usize) -> i16 {
    |i| i16::from_le_bytes([v[2 * i], v[2 * i + 1]])
}

/// The i32 elements of a vector, of which the first `W / 4` exist.
pub(super) fn words32<const W: usize>(v: &[u8; W]) -> impl Fn(usize) -> i32 {
    |i| i32::from_le_bytes([v[4 * i], v[4 * i + 1], v[4 * i + 2], v[4 * i + 3]])
}

fn from16<const W: usize>(f: impl Fn(usize) -> i16) -> [u8; W] {
    let mut out = [0; W];
    for (i, bytes) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        *bytes = f(i).to_le_bytes();
    }
    out
}

fn from32<const W: usize>(f: impl Fn(usize) -> i32) -> [u8; W] {
    let mut out = [0; W];
    for (i, bytes) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        *bytes = f(i).to_le_bytes();
    }
    out
}

fn zip8<const W: usize>(a: &[u8; W], b: &[u8; W], f: impl Fn(u8, u8) -> u8) -> [u8; W] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

pub(super) fn zip16<const W: usize>(
    a: &[u8; W],
    b: &[u8; W],
    f: impl Fn(i16, i16) -> i16,
) -> [u8; W] {
    let (a, b) = (words16(a), words16(b));
    from16(|i| f(a(i), b(i)))
}

pub(super) fn zip32<const W: usize>(
    a: &[u8; W],
    b: &[u8; W],
    f: impl Fn(i32, i32) -> i32,
) -> [u8; W] {
    let (a, b) = (words32(a), words32(b));
    from32(|i| f(a(i), b(i)))
}

fn zip_f32<const W: usize>(a: &[u8; W], b: &[u8; W], f: impl Fn(f32, f32) -> f32) -> [u8; W] {
    let float = |bits: i32| f32::from_bits(bits as u32);
    zip32(a, b, |a, b| f(float(a), float(b)).to_bits() as i32)
}

/// What `op` makes of `values`, which its inputs name. Wrapping where the contract says "proven not to wrap":
/// the proof is [`crate::program::check`]'s, and lane tests compare wrapped results, too.
///
/// # Panics
/// When `op` reads memory, names a value that is not there, or a shuffle's index is 16 or more.
pub fn eval<const W: usize>(op: &Op, values: &[[u8; W]]) -> [u8; W] {
    let v = |v: Value| &values[v.0 as usize];
    match *op {
        Op::Splat8(x) => [x; W],
        Op::Splat16(x) => from16(|_| x),
        Op::Splat32(x) => from32(|_| x),
        Op::And(a, b) => zip8(v(a), v(b), |a, b| a & b),
        Op::Or(a, b) => zip8(v(a), v(b), |a, b| a | b),
        Op::Xor(a, b) => zip8(v(a), v(b), |a, b| a ^ b),
        Op::Add8(a, b) => zip8(v(a), v(b), u8::wrapping_add),
        Op::Sub8(a, b) => zip8(v(a), v(b), u8::wrapping_sub),
        Op::SubSatU8(a, b) => zip8(v(a), v(b), u8::saturating_sub),
        Op::MinU8(a, b) => zip8(v(a), v(b), u8::min),
        Op::Add16(a, b) => zip16(v(a), v(b), i16::wrapping_add),
        Op::Sub16(a, b) => zip16(v(a), v(b), i16::wrapping_sub),
        Op::Add32(a, b) => zip32(v(a), v(b), i32::wrapping_add),
        Op::Sub32(a, b) => zip32(v(a), v(b), i32::wrapping_sub),
        Op::MulLo32(a, b) => zip32(v(a), v(b), i32::wrapping_mul),
        Op::Shr16(a, s) => map16(v(a), |x| (x as u16 >> s) as i16),
        Op::Shl16(a, s) => map16(v(a), |x| x << s),
        Op::Sar16(a, s) => map16(v(a), |x| x >> s),
        Op::Shr32(a, s) => map32(v(a), |x| (x as u32 >> s) as i32),
        Op::Shl32(a, s) => map32(v(a), |x| x << s),
        Op::Sar32(a, s) => map32(v(a), |x| x >> s),
        Op::F32(a) => map32(v(a), |x| (x as f32).to_bits() as i32),
        Op::AddF32(a, b) => zip_f32(v(a), v(b), |a, b| a + b),
        Op::MulF32(a, b) => zip_f32(v(a), v(b), |a, b| a * b),
        Op::DotU8I8 { acc, u, s } => {
            let (acc, u, s) = (words32(v(acc)), v(u), v(s));
            from32(|i| {
                (4 * i..4 * i + 4).fold(acc(i), |sum, j| {
                    sum.wrapping_add(u[j] as i32 * s[j] as i8 as i32)
                })
            })
        }
        Op::MaddU8I8 { u, s } => {
            let (u, s) = (v(u), v(s));
            let p = |j: usize| u[j] as i32 * s[j] as i8 as i32;
            from16(|i| (p(2 * i) + p(2 * i + 1)).clamp(i16::MIN as i32, i16::MAX as i32) as i16)
        }
        Op::MaddI16(a, b) => {
            let (a, b) = (words16(v(a)), words16(v(b)));
            let p = |j: usize| a(j) as i32 * b(j) as i32;
            from32(|i| p(2 * i).wrapping_add(p(2 * i + 1)))
        }
        Op::Shuffle16 { table, idx } => {
            let (table, idx) = (v(table), v(idx));
            std::array::from_fn(|i| {
                assert!(idx[i] < 16, "shuffle index {} of 16", idx[i]);
                table[i / 16 * 16 + idx[i] as usize]
            })
        }
        Op::Lut64 { table, idx } => {
            let (table, idx) = (v(table), v(idx));
            std::array::from_fn(|i| table[idx[i] as usize % 64])
        }
        Op::Lut128 { lo, hi, idx } => {
            let (lo, hi, idx) = (v(lo), v(hi), v(idx));
            std::array::from_fn(|i| match idx[i] as usize % 128 {
                j if j < 64 => lo[j],
                j => hi[j - 64],
            })
        }
        Op::InterleaveLo8(a, b) => interleave::<W, 1>(v(a), v(b), 0),
        Op::InterleaveHi8(a, b) => interleave::<W, 1>(v(a), v(b), 8),
        Op::InterleaveLo16(a, b) => interleave::<W, 2>(v(a), v(b), 0),
        Op::InterleaveHi16(a, b) => interleave::<W, 2>(v(a), v(b), 8),
        Op::Load(_) | Op::LoadBcast32(_) | Op::LoadBcast128(_) | Op::Drain(_) => {
            unreachable!("reads memory")
        }
    }
}

fn map16<const W: usize>(a: &[u8; W], f: impl Fn(i16) -> i16) -> [u8; W] {
    let a = words16(a);
    from16(|i| f(a(i)))
}

fn map32<const W: usize>(a: &[u8; W], f: impl Fn(i32) -> i32) -> [u8; W] {
    let a = words32(a);
    from32(|i| f(a(i)))
}

/// Elements of `E` bytes, in turn from `a` and `b`, each lane from its byte `from` on.
fn interleave<const W: usize, const E: usize>(a: &[u8; W], b: &[u8; W], from: usize) -> [u8; W] {
    std::array::from_fn(|i| {
        let (lane, at) = (i / 16 * 16, i % 16);
        let of = [a, b][at / E % 2];
        of[lane + from + at / (2 * E) * E + at % E]
    })
}
