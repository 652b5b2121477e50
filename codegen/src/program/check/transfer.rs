//! What each op makes of abstract vectors, and the obligations of its contract.

use super::abs::{Abs, I16, I32, Kind, Linear, Plane, Range};
use super::byte_set::ByteSet;
use super::bytes::{Byte, Bytewise};
use super::fault::{Fault, FaultKind};
use super::flow::Flow;
use crate::program::{Addr, Op, Operand, Promise, Value};

/// An i16 or i32 that is 0 or −1: a mask.
const MASK: Range = Range::new(-1, 0);

impl Flow<'_> {
    /// The abstract result of `op`, which defines `v`.
    pub(super) fn transfer(&mut self, v: Value, op: &Op) -> Result<Abs, Fault> {
        let a = &mut self.arena;
        Ok(match *op {
            Op::Splat8(x) => Abs::uniform(a, Byte::Const(x)),
            Op::Splat16(x) => {
                let [l, h] = x.to_le_bytes().map(Byte::Const);
                Abs::of_bytes(a, [l, h, l, h])
            }
            Op::Splat32(x) => Abs::of_bytes(a, x.to_le_bytes().map(Byte::Const)),
            Op::Load(ref addr) | Op::Drain(ref addr) => {
                let size = self.program.width.bytes();
                self.loaded(v, addr, size)
            }
            Op::LoadBcast32(ref addr) => self.loaded(v, addr, 4),
            Op::LoadBcast128(ref addr) => self.loaded(v, addr, 16),
            Op::And(x, y) => self.logic(Bytewise::And, x, y),
            Op::Or(x, y) => self.logic(Bytewise::Or, x, y),
            Op::Xor(x, y) => self.logic(Bytewise::Xor, x, y),
            Op::Add8(x, y) => self.add8(x, y)?,
            Op::Sub8(x, y) => self.bytewise(Bytewise::Sub, x, y),
            Op::SubSatU8(x, y) => self.bytewise(Bytewise::SubSat, x, y),
            Op::MinU8(x, y) => self.bytewise(Bytewise::Min, x, y),
            Op::Add16(x, y) => self.sum(Kind::I16, x, y, false)?,
            Op::Sub16(x, y) => self.sum(Kind::I16, x, y, true)?,
            Op::Add32(x, y) => self.sum(Kind::I32, x, y, false)?,
            Op::Sub32(x, y) => self.sum(Kind::I32, x, y, true)?,
            Op::MulLo32(x, y) => {
                let r = self.get(x).w32.mul(self.get(y).w32).or_all(I32);
                Abs::of_i32(&mut self.arena, r)
            }
            Op::Shr16(x, s) => self.shift(x, 2, -(s as i8)),
            Op::Shl16(x, s) => self.shift(x, 2, s as i8),
            Op::Shr32(x, s) => self.shift(x, 4, -(s as i8)),
            Op::Shl32(x, s) => self.shift(x, 4, s as i8),
            Op::Sar16(x, s) => {
                let r = self.get(x).w16;
                Abs::of_i16(&mut self.arena, Range::new(r.lo >> s, r.hi >> s))
            }
            Op::Sar32(x, s) => {
                let r = self.get(x).w32;
                Abs::of_i32(&mut self.arena, Range::new(r.lo >> s, r.hi >> s))
            }
            // Floats carry no obligation, and nothing is said of their bits.
            Op::F32(_) | Op::AddF32(..) | Op::MulF32(..) => Abs::any(&mut self.arena),
            Op::DotU8I8 { acc, u, s } => self.dot(acc, u, s)?,
            Op::MaddU8I8 { u, s } => {
                let p = self.products(u, s);
                let r = p[0].add(p[1]).hull(p[2].add(p[3]));
                self.fits("the sum of two products", r, I16)?;
                Abs::of_i16(&mut self.arena, r.or_all(I16))
            }
            Op::MaddI16(x, y) => {
                let p = self.get(x).w16.mul(self.get(y).w16);
                let r = p.add(p);
                self.fits("the sum of two products", r, I32)?;
                Abs::of_i32(&mut self.arena, r.or_all(I32))
            }
            Op::Shuffle16 { table, idx } => self.shuffle(table, idx)?,
            Op::Lut64 { table, idx } => self.lut64(table, idx),
            Op::Lut128 { lo, hi, idx } => self.lut128(lo, hi, idx),
            Op::InterleaveLo8(x, y) | Op::InterleaveHi8(x, y) => self.interleave8(x, y),
            Op::InterleaveLo16(x, y) | Op::InterleaveHi16(x, y) => {
                let (x, y) = (self.get(x), self.get(y));
                let a = &mut self.arena;
                let [x0, x1] = [0, 1].map(|i| a.join(x.b[i], x.b[i + 2]));
                let [y0, y1] = [0, 1].map(|i| a.join(y.b[i], y.b[i + 2]));
                Abs::new(a, [x0, x1, y0, y1], x.w16.hull(y.w16), I32)
            }
        })
    }

    fn fits(&self, what: &str, r: Range, kind: Range) -> Result<(), Fault> {
        if self.checking && !r.within(kind) {
            return Err(Fault::new(
                FaultKind::Overflow,
                format!("{what} is in {r}, outside {kind}"),
            ));
        }
        Ok(())
    }

    /// What a load of `size` bytes brings.
    fn loaded(&mut self, v: Value, addr: &Addr, size: usize) -> Abs {
        if addr.operand == Operand::Consts {
            return self.constants(v, addr, size);
        }
        let promise = self
            .program
            .extent(addr.operand)
            .map_or(Promise::Bits, |e| e.promise);
        let (even, words) = (self.aligned(addr, 2), self.aligned(addr, 4));
        let a = &mut self.arena;
        let bytes = |a: &mut super::bytes::Arena, set| {
            let byte = a.loaded(v.0, set);
            Abs::uniform(a, byte)
        };
        match promise {
            Promise::Codes2 => bytes(
                a,
                ByteSet::of((0..=255).filter(|b: &u8| b & (b >> 1) & 0x55 == 0)),
            ),
            Promise::U8(lo, hi) => bytes(a, ByteSet::of(lo..=hi)),
            Promise::I8(lo, hi) => bytes(a, ByteSet::of((lo..=hi).map(|b| b as u8))),
            Promise::U16(lo, hi) if hi <= i16::MAX as u16 && even => {
                Abs::of_i16(a, Range::new(lo as i64, hi as i64))
            }
            Promise::I16(lo, hi) if even => Abs::of_i16(a, Range::new(lo as i64, hi as i64)),
            Promise::I32(lo, hi) if words => Abs::of_i32(a, Range::new(lo as i64, hi as i64)),
            Promise::I16Planes(lo, hi) if size == 16 => {
                self.plane(addr, Range::new(lo as i64, hi as i64))
            }
            _ => bytes(a, ByteSet::of(0..=255)),
        }
    }

    /// Sixteen bytes of a table of planes.
    fn plane(&mut self, addr: &Addr, entries: Range) -> Abs {
        let high = addr.offset % 32 == 16;
        let mut record = addr.clone();
        record.offset -= if high { 16 } else { 0 };
        if !self.aligned(&record, 32) || addr.operand.is_writable() {
            return Abs::any(&mut self.arena);
        }
        let next = self.records.len() as u32;
        let record = *self.records.entry(record).or_insert(next);
        let byte = if high {
            let (lo, hi) = (entries.lo >> 8, entries.hi >> 8);
            self.arena.among(ByteSet::of((lo..=hi).map(|v| v as u8)))
        } else {
            self.arena.among(ByteSet::of(0..=255))
        };
        let mut abs = Abs::uniform(&mut self.arena, byte);
        abs.plane = Some(Plane {
            high,
            record,
            idx: None,
            entries,
        });
        abs
    }

    /// What a load from the program's own data brings: the very bytes if the address is constant.
    fn constants(&mut self, v: Value, addr: &Addr, size: usize) -> Abs {
        let data = &self.program.consts;
        let a = &mut self.arena;
        if !addr.terms.is_empty() || addr.index.is_some() {
            let byte = a.loaded(v.0, ByteSet::of(data.iter().copied()));
            return Abs::uniform(a, byte);
        }
        let bytes = &data[addr.offset..addr.offset + size];
        let b =
            std::array::from_fn(|i| a.among(ByteSet::of(bytes.iter().copied().skip(i).step_by(4))));
        let hull = |values: &mut dyn Iterator<Item = i64>| {
            values
                .map(Range::exact)
                .reduce(Range::hull)
                .unwrap_or(Range::exact(0))
        };
        let w16 = hull(
            &mut bytes
                .chunks_exact(2)
                .map(|b| i16::from_le_bytes([b[0], b[1]]) as i64),
        );
        let w32 = hull(
            &mut bytes
                .chunks_exact(4)
                .map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]) as i64),
        );
        let mut abs = Abs::new(a, b, w16, w32);
        let lanes = bytes.chunks(16).all(|lane| lane == &bytes[..lane.len()]);
        let period = match size {
            16 | 32 | 64 if lanes => Some(16),
            64 => Some(64),
            _ => None,
        };
        abs.table = period.map(|period| {
            let table = std::array::from_fn(|i| bytes[i % period]);
            (a.table(table), period as u8)
        });
        abs
    }

    fn bytewise(&mut self, op: Bytewise, x: Value, y: Value) -> Abs {
        let (x, y) = (self.get(x), self.get(y));
        let a = &mut self.arena;
        let b = if x.b.iter().all(|b| *b == x.b[0]) && y.b.iter().all(|b| *b == y.b[0]) {
            [a.bytewise(op, x.b[0], y.b[0]); 4]
        } else {
            std::array::from_fn(|i| a.bytewise(op, x.b[i], y.b[i]))
        };
        Abs::of_bytes(a, b)
    }

    /// Bitwise logic: bytes, and masks of whole elements.
    fn logic(&mut self, op: Bytewise, x: Value, y: Value) -> Abs {
        let bytes = self.bytewise(op, x, y);
        let (x, y) = (self.get(x), self.get(y));
        let masked = |v: Range, m: Range, all: Range| match op {
            Bytewise::And if m.within(MASK) => v.hull(Range::exact(0)),
            Bytewise::Xor if m.within(MASK) => v.hull(Range::new(-1 - v.hi, -1 - v.lo)),
            _ => all,
        };
        let w16 = masked(x.w16, y.w16, I16).meet(masked(y.w16, x.w16, I16));
        let w32 = masked(x.w32, y.w32, I32).meet(masked(y.w32, x.w32, I32));
        Abs::new(
            &mut self.arena,
            bytes.b,
            bytes.w16.meet(w16),
            bytes.w32.meet(w32),
        )
    }

    fn add8(&mut self, x: Value, y: Value) -> Result<Abs, Fault> {
        let sum = self.bytewise(Bytewise::Add, x, y);
        let (x, y) = (self.get(x), self.get(y));
        for i in 0..4 {
            let unsigned = |u: u8, v: u8| u.checked_add(v).is_some();
            let signed = |u: u8, v: u8| (u as i8).checked_add(v as i8).is_some();
            let (u, v) = (x.b[i], y.b[i]);
            if self.checking
                && !self.arena.always(u, v, signed)
                && !self.arena.always(u, v, unsigned)
            {
                return Err(Fault::new(
                    FaultKind::Overflow,
                    format!(
                        "the sum of bytes in {} and {} wraps, both as signed and as unsigned bytes",
                        x.u8(&mut self.arena),
                        y.u8(&mut self.arena)
                    ),
                ));
            }
        }
        Ok(sum)
    }

    /// `x + y` or `x − y` in i16 or i32.
    fn sum(&mut self, kind: Kind, x: Value, y: Value, minus: bool) -> Result<Abs, Fault> {
        let (ax, ay) = (self.get(x), self.get(y));
        let (rx, ry, all) = match kind {
            Kind::I16 => (ax.w16, ay.w16, I16),
            Kind::I32 => (ax.w32, ay.w32, I32),
        };
        let combine = |x: Range, y: Range| if minus { x.sub(y) } else { x.add(y) };
        let mut r = combine(rx, ry);
        if minus && let Some(negated) = self.negated(kind, x, y) {
            r = r.meet(negated);
        }
        self.fits(if minus { "the difference" } else { "the sum" }, r, all)?;
        let fits = |l: &Linear| l.kind.is_none_or(|k| k == kind);
        let linear = match (ax.linear.filter(fits), ay.linear.filter(fits)) {
            (Some(l), None) => Some((l, combine(l.delta, ry))),
            (None, Some(l)) if !minus => Some((l, l.delta.add(rx))),
            _ => None,
        };
        let r = r.or_all(all);
        let a = &mut self.arena;
        let mut abs = match kind {
            Kind::I16 => Abs::of_i16(a, r),
            Kind::I32 => Abs::of_i32(a, r),
        };
        abs.linear = linear.map(|(l, delta)| Linear {
            kind: Some(kind),
            delta,
            ..l
        });
        Ok(abs)
    }

    /// `(x ^ m) − m` where `m` is a mask: each element is `x` or `−x`.
    fn negated(&self, kind: Kind, x: Value, m: Value) -> Option<Range> {
        let Some(&Op::Xor(p, q)) = self.ops[x.0 as usize] else {
            return None;
        };
        let v = match (p == m, q == m) {
            (false, true) => p,
            (true, false) => q,
            _ => return None,
        };
        let (v, m) = (self.get(v), self.get(m));
        let (v, m) = match kind {
            Kind::I16 => (v.w16, m.w16),
            Kind::I32 => (v.w32, m.w32),
        };
        m.within(MASK).then(|| v.hull(Range::new(-v.hi, -v.lo)))
    }

    /// The products of unsigned and signed bytes at each place of an i32.
    fn products(&mut self, u: Value, s: Value) -> [Range; 4] {
        let (u, s) = (self.get(u), self.get(s));
        std::array::from_fn(|i| {
            let (ul, uh) = self.arena.bounds(u.b[i]).u8;
            let (sl, sh) = self.arena.bounds(s.b[i]).i8;
            Range::new(ul as i64, uh as i64).mul(Range::new(sl as i64, sh as i64))
        })
    }

    fn dot(&mut self, acc: Value, u: Value, s: Value) -> Result<Abs, Fault> {
        let p = self.products(u, s);
        let grow = p[0].add(p[1]).add(p[2].add(p[3]));
        let acc = self.get(acc);
        let r = acc.w32.add(grow);
        self.fits("the accumulator", r, I32)?;
        let mut abs = Abs::of_i32(&mut self.arena, r.or_all(I32));
        abs.linear = acc
            .linear
            .filter(|l| l.kind != Some(Kind::I16))
            .map(|l| Linear {
                kind: Some(Kind::I32),
                delta: l.delta.add(grow),
                ..l
            });
        Ok(abs)
    }

    /// Shifts elements of `size` bytes, left if `by` is positive; zeros come in.
    fn shift(&mut self, x: Value, size: usize, by: i8) -> Abs {
        let x = self.get(x);
        let a = &mut self.arena;
        let (whole, bits) = ((by.unsigned_abs() / 8) as usize, by.unsigned_abs() % 8);
        let left = by > 0;
        let mut b = [Byte::Const(0); 4];
        for (i, out) in b.iter_mut().enumerate() {
            // The byte that lands here, and its neighbour that brings the vacated bits.
            let (place, base) = (i % size, i - i % size);
            let source = |distance: usize| {
                if left {
                    place.checked_sub(distance)
                } else {
                    Some(place + distance).filter(|&p| p < size)
                }
                .map_or(Byte::Const(0), |p| x.b[base + p])
            };
            let (own, next) = (source(whole), source(whole + 1));
            let shift = if left { bits as i8 } else { -(bits as i8) };
            let fill = match bits {
                0 => 0,
                _ if left => a.bounds(next).maybe >> (8 - bits),
                _ => a.bounds(next).maybe << (8 - bits),
            };
            *out = a.shift(own, shift, fill, whole > 0);
        }
        let s = by.unsigned_abs();
        let moved = |r: Range, all: Range| {
            if s == 0 {
                r
            } else if left {
                Range::new(r.lo << s, r.hi << s).or_all(all)
            } else if r.lo >= 0 {
                Range::new(r.lo >> s, r.hi >> s)
            } else {
                Range::new(0, (all.hi * 2 + 1) >> s)
            }
        };
        if size == 2 {
            Abs::new(a, b, moved(x.w16, I16), I32)
        } else {
            Abs::new(a, b, I16, moved(x.w32, I32))
        }
    }

    fn shuffle(&mut self, table: Value, idx: Value) -> Result<Abs, Fault> {
        let (t, i) = (self.get(table), self.get(idx));
        let range = i.u8(&mut self.arena);
        if self.checking && range.hi > 15 {
            return Err(Fault::new(
                FaultKind::Overflow,
                format!("the indices are in {range}, outside 0..=15"),
            ));
        }
        let a = &mut self.arena;
        let mut abs = match t.table {
            Some((entries, 16)) => {
                let b = i.b.map(|b| a.look_up(entries, b));
                Abs::of_bytes(a, b)
            }
            _ => {
                let byte = t.any_byte(a);
                Abs::uniform(a, byte)
            }
        };
        abs.plane = t.plane.filter(|p| p.idx.is_none()).map(|p| Plane {
            idx: Some(idx),
            ..p
        });
        Ok(abs)
    }

    fn lut64(&mut self, table: Value, idx: Value) -> Abs {
        let (t, i) = (self.get(table), self.get(idx));
        let a = &mut self.arena;
        match t.table {
            Some((entries, _)) => {
                let b = i.b.map(|b| {
                    let low = a.bytewise(Bytewise::And, b, Byte::Const(63));
                    a.look_up(entries, low)
                });
                Abs::of_bytes(a, b)
            }
            None => {
                let byte = t.any_byte(a);
                Abs::uniform(a, byte)
            }
        }
    }

    fn lut128(&mut self, lo: Value, hi: Value, idx: Value) -> Abs {
        let (l, h, i) = (self.get(lo), self.get(hi), self.get(idx));
        let a = &mut self.arena;
        match (l.table, h.table) {
            (Some((l, _)), Some((h, _))) => {
                let entries = a.halves(l, h);
                let b = i.b.map(|b| {
                    let low = a.bytewise(Bytewise::And, b, Byte::Const(127));
                    a.look_up(entries, low)
                });
                Abs::of_bytes(a, b)
            }
            _ => {
                let (x, y) = (l.any_byte(a), h.any_byte(a));
                let byte = a.join(x, y);
                Abs::uniform(a, byte)
            }
        }
    }

    fn interleave8(&mut self, x: Value, y: Value) -> Abs {
        let (x, y) = (self.get(x), self.get(y));
        let a = &mut self.arena;
        let (l, h) = (x.any_byte(a), y.any_byte(a));
        let joined = match (x.plane, y.plane) {
            (Some(p), Some(q))
                if !p.high
                    && q.high
                    && p.record == q.record
                    && p.idx.is_some()
                    && p.idx == q.idx =>
            {
                p.entries
            }
            _ => I16,
        };
        Abs::new(a, [l, h, l, h], joined, I32)
    }
}
