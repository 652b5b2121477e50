//! Abstract vectors: what is known of a value at every place, under every reading of its bits.
//!
//! Bytes are kept by their place in an i32 (four of them), i16 and i32 as intervals over all elements.
//! All are true at once, so that an op may use whichever reading it is defined on.

use super::byte_set::ByteSet;
use super::bytes::{Arena, Byte, TableId};
use crate::program::Value;

/// A closed interval of integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Range {
    /// The least value.
    pub lo: i64,
    /// The greatest value.
    pub hi: i64,
}

pub(super) const I16: Range = Range::new(i16::MIN as i64, i16::MAX as i64);
pub(super) const I32: Range = Range::new(i32::MIN as i64, i32::MAX as i64);

/// Bounds of saturating interval arithmetic: far above every i32, far below every overflow.
const FAR: i128 = 1 << 60;

impl Range {
    /// `lo..=hi`.
    pub const fn new(lo: i64, hi: i64) -> Self {
        Self { lo, hi }
    }

    pub(super) const fn exact(v: i64) -> Self {
        Self::new(v, v)
    }

    fn wide(lo: i128, hi: i128) -> Self {
        Self::new(lo.clamp(-FAR, FAR) as i64, hi.clamp(-FAR, FAR) as i64)
    }

    /// Whether every value of `self` is in `other`.
    pub const fn within(self, other: Range) -> bool {
        self.lo >= other.lo && self.hi <= other.hi
    }

    pub(super) fn add(self, o: Range) -> Self {
        Self::wide(
            self.lo as i128 + o.lo as i128,
            self.hi as i128 + o.hi as i128,
        )
    }

    pub(super) fn sub(self, o: Range) -> Self {
        Self::wide(
            self.lo as i128 - o.hi as i128,
            self.hi as i128 - o.lo as i128,
        )
    }

    pub(super) fn mul(self, o: Range) -> Self {
        let p = |a: i64, b: i64| a as i128 * b as i128;
        let all = [
            p(self.lo, o.lo),
            p(self.lo, o.hi),
            p(self.hi, o.lo),
            p(self.hi, o.hi),
        ];
        let lo = all.iter().copied().min().unwrap_or(0);
        Self::wide(lo, all.iter().copied().max().unwrap_or(0))
    }

    pub(super) fn times(self, n: usize) -> Self {
        Self::wide(
            (self.lo as i128).saturating_mul(n as i128),
            (self.hi as i128).saturating_mul(n as i128),
        )
    }

    pub(super) fn hull(self, o: Range) -> Self {
        Self::new(self.lo.min(o.lo), self.hi.max(o.hi))
    }

    pub(super) fn meet(self, o: Range) -> Self {
        Self::new(self.lo.max(o.lo), self.hi.min(o.hi))
    }

    /// The interval if it fits `kind`, else all of `kind`.
    pub(super) fn or_all(self, kind: Range) -> Self {
        if self.within(kind) { self } else { kind }
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}..={}", self.lo, self.hi)
    }
}

/// Element type in which a value grows by a bounded amount a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    I16,
    I32,
}

/// `param + delta`, where `param` is a value that a loop carries. No kind: the param itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Linear {
    pub(super) param: Value,
    pub(super) kind: Option<Kind>,
    pub(super) delta: Range,
}

/// One half of a table whose i16 entries are split into planes of bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Plane {
    pub(super) high: bool,
    /// Which record: a number for each distinct address.
    pub(super) record: u32,
    /// The indices that it was looked up with; none for the table itself.
    pub(super) idx: Option<Value>,
    /// What the joined entries are.
    pub(super) entries: Range,
}

/// What is known of one value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Abs {
    pub(super) b: [Byte; 4],
    pub(super) w16: Range,
    pub(super) w32: Range,
    /// Known bytes that repeat every 16, 64 or 128; the table is extended to 256 entries.
    pub(super) table: Option<(TableId, u8)>,
    pub(super) plane: Option<Plane>,
    pub(super) linear: Option<Linear>,
}

impl Abs {
    pub(super) fn of_bytes(arena: &mut Arena, b: [Byte; 4]) -> Self {
        Self::new(arena, b, I16, I32)
    }

    pub(super) fn uniform(arena: &mut Arena, b: Byte) -> Self {
        Self::of_bytes(arena, [b; 4])
    }

    pub(super) fn any(arena: &mut Arena) -> Self {
        Self::uniform(arena, Byte::Set(super::bytes::ANY))
    }

    pub(super) fn of_i16(arena: &mut Arena, w16: Range) -> Self {
        Self::new(arena, [Byte::Set(super::bytes::ANY); 4], w16, I32)
    }

    pub(super) fn of_i32(arena: &mut Arena, w32: Range) -> Self {
        Self::new(arena, [Byte::Set(super::bytes::ANY); 4], I16, w32)
    }

    /// The readings sharpened by each other.
    pub(super) fn new(arena: &mut Arena, mut b: [Byte; 4], w16: Range, w32: Range) -> Self {
        if w16 != I16 && b.iter().all(|&b| b == Byte::Set(super::bytes::ANY)) {
            b = bytes_of_i16(arena, w16);
        }
        let bounds = b.map(|b| arena.bounds(b));
        let half = |i: usize| {
            Range::new(
                bounds[i].u8.0 as i64 + 256 * bounds[i + 1].i8.0 as i64,
                bounds[i].u8.1 as i64 + 256 * bounds[i + 1].i8.1 as i64,
            )
        };
        let (low, high) = (half(0), half(2));
        let w16 = w16.meet(low.hull(high));
        // The upper half counts 65536, the lower half as unsigned.
        let unsigned = |r: Range| {
            if r.lo >= 0 { r } else { Range::new(0, 65535) }
        };
        let low = unsigned(low.meet(w16)).meet(Range::new(
            bounds[0].u8.0 as i64 + 256 * bounds[1].u8.0 as i64,
            bounds[0].u8.1 as i64 + 256 * bounds[1].u8.1 as i64,
        ));
        let whole = high.meet(w16).times(65536).add(low);
        Self {
            b,
            w16,
            w32: w32.meet(whole),
            table: None,
            plane: None,
            linear: None,
        }
    }

    /// Either `self` or `other`, in some turn: relations to roots are forgotten.
    pub(super) fn join(&self, arena: &mut Arena, other: &Abs) -> Self {
        let b = std::array::from_fn(|i| arena.join(self.b[i], other.b[i]));
        Self::new(arena, b, self.w16.hull(other.w16), self.w32.hull(other.w32))
    }

    /// The same value seen from another turn or from outside the loop.
    pub(super) fn forget(&self, arena: &mut Arena) -> Self {
        Self {
            b: self.b.map(|b| arena.forget(b)),
            plane: None,
            linear: None,
            ..*self
        }
    }

    pub(super) fn u8(&self, arena: &mut Arena) -> Range {
        let bounds = self.b.map(|b| arena.bounds(b).u8);
        hull(bounds.map(|(l, h)| Range::new(l as i64, h as i64)))
    }

    pub(super) fn i8(&self, arena: &mut Arena) -> Range {
        let bounds = self.b.map(|b| arena.bounds(b).i8);
        hull(bounds.map(|(l, h)| Range::new(l as i64, h as i64)))
    }

    /// All bytes, wherever they stand.
    pub(super) fn any_byte(&self, arena: &mut Arena) -> Byte {
        let [a, b, c, d] = self.b.map(|b| arena.forget(b));
        let (x, y) = (arena.join(a, b), arena.join(c, d));
        arena.join(x, y)
    }
}

fn hull(parts: [Range; 4]) -> Range {
    parts[0].hull(parts[1]).hull(parts[2].hull(parts[3]))
}

/// The bytes of i16 elements in `w`.
fn bytes_of_i16(arena: &mut Arena, w: Range) -> [Byte; 4] {
    let (top_lo, top_hi) = (w.lo >> 8, w.hi >> 8);
    let high = arena.among(ByteSet::of((top_lo..=top_hi).map(|v| v as u8)));
    let low = if top_lo == top_hi {
        arena.among(ByteSet::of((w.lo..=w.hi).map(|v| v as u8)))
    } else {
        Byte::Set(super::bytes::ANY)
    };
    [low, high, low, high]
}
