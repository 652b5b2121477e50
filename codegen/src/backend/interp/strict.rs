//! The contracts of ops, as checks on actual values: what [`crate::program::check`] proves is here observed.
//! Tests run mutated programs this way, so that the proof itself is tested.

use super::eval::{words16, words32};
use crate::program::{Op, Value};

/// Whether the inputs of `op`, by their names in `values`, keep its contract.
///
/// # Errors
/// What wraps or leaves its table.
pub(super) fn contract<const W: usize>(op: &Op, values: &[[u8; W]]) -> Result<(), String> {
    let all = |count: usize, good: &dyn Fn(usize) -> bool| {
        (0..count).find(|&i| !good(i)).map_or(Ok(()), |i| {
            Err(format!("{op:?} breaks its contract in element {i}"))
        })
    };
    let (halves, words) = (W / 2, W / 4);
    let v = |v: Value| &values[v.0 as usize];
    let h = |x: Value| words16(v(x));
    let w = |x: Value| words32(v(x));
    match *op {
        Op::Add8(a, b) => all(W, &|i| {
            let (a, b) = (v(a)[i], v(b)[i]);
            a.checked_add(b).is_some() || (a as i8).checked_add(b as i8).is_some()
        }),
        Op::Add16(a, b) => all(halves, &|i| h(a)(i).checked_add(h(b)(i)).is_some()),
        Op::Sub16(a, b) => all(halves, &|i| h(a)(i).checked_sub(h(b)(i)).is_some()),
        Op::Add32(a, b) => all(words, &|i| w(a)(i).checked_add(w(b)(i)).is_some()),
        Op::Sub32(a, b) => all(words, &|i| w(a)(i).checked_sub(w(b)(i)).is_some()),
        Op::DotU8I8 { acc, u, s } => all(words, &|i| {
            let sum = (4 * i..4 * i + 4)
                .map(|j| v(u)[j] as i64 * v(s)[j] as i8 as i64)
                .sum::<i64>();
            i32::try_from(w(acc)(i) as i64 + sum).is_ok()
        }),
        Op::MaddU8I8 { u, s } => all(halves, &|i| {
            let p = |j: usize| v(u)[j] as i32 * v(s)[j] as i8 as i32;
            i16::try_from(p(2 * i) + p(2 * i + 1)).is_ok()
        }),
        Op::MaddI16(a, b) => all(words, &|i| {
            let p = |j: usize| h(a)(j) as i64 * h(b)(j) as i64;
            i32::try_from(p(2 * i) + p(2 * i + 1)).is_ok()
        }),
        Op::Shuffle16 { idx, .. } => all(W, &|i| v(idx)[i] < 16),
        _ => Ok(()),
    }
}
