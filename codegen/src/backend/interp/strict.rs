//! The contracts of ops, as checks on actual values: what [`crate::program::check`] proves is here observed.
//! Tests run mutated programs this way, so that the proof itself is tested.

use super::{Vector, words16, words32};
use crate::program::Op;

/// Whether the inputs `v` of `op` keep its contract in the first `width` bytes; the lanes behind do not exist.
///
/// # Errors
/// What wraps or leaves its table.
pub(super) fn contract(op: &Op, v: &[Vector], width: usize) -> Result<(), String> {
    let all = |count: usize, good: &dyn Fn(usize) -> bool| {
        (0..count).find(|&i| !good(i)).map_or(Ok(()), |i| {
            Err(format!("{op:?} breaks its contract in element {i}"))
        })
    };
    let (bytes, halves, words) = (width, width / 2, width / 4);
    let h = |i: usize| v.get(i).map_or([0; 32], |v| words16(*v));
    let w = |i: usize| v.get(i).map_or([0; 16], |v| words32(*v));
    match op {
        Op::Add8(..) => all(bytes, &|i| {
            let (a, b) = (v[0][i], v[1][i]);
            a.checked_add(b).is_some() || (a as i8).checked_add(b as i8).is_some()
        }),
        Op::Add16(..) => all(halves, &|i| h(0)[i].checked_add(h(1)[i]).is_some()),
        Op::Sub16(..) => all(halves, &|i| h(0)[i].checked_sub(h(1)[i]).is_some()),
        Op::Add32(..) => all(words, &|i| w(0)[i].checked_add(w(1)[i]).is_some()),
        Op::Sub32(..) => all(words, &|i| w(0)[i].checked_sub(w(1)[i]).is_some()),
        Op::DotU8I8 { .. } => {
            let acc = w(0);
            all(words, &|i| {
                let sum = (4 * i..4 * i + 4)
                    .map(|j| v[1][j] as i64 * v[2][j] as i8 as i64)
                    .sum::<i64>();
                i32::try_from(acc[i] as i64 + sum).is_ok()
            })
        }
        Op::MaddU8I8 { .. } => all(halves, &|i| {
            let p = |j: usize| v[0][j] as i32 * v[1][j] as i8 as i32;
            i16::try_from(p(2 * i) + p(2 * i + 1)).is_ok()
        }),
        Op::MaddI16(..) => {
            let (a, b) = (h(0), h(1));
            all(words, &|i| {
                let p = |j: usize| a[j] as i64 * b[j] as i64;
                i32::try_from(p(2 * i) + p(2 * i + 1)).is_ok()
            })
        }
        Op::Shuffle16 { .. } => all(bytes, &|i| v[1][i] < 16),
        _ => Ok(()),
    }
}
