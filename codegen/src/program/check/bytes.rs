//! Abstract bytes: a constant, a set of values, or an exact function of the byte that one load brought.
//!
//! Functions are what makes decoders provable: `min(b, b − 84)` is a remainder only because both sides
//! are the same `b`, and no interval knows that. Sets and tables are interned and every operation on
//! them is remembered, so that unrolled code costs one hash look-up a step.

use super::byte_set::ByteSet;
use super::hash::HashMap;

/// An interned [`ByteSet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SetId(u32);

/// An interned function of a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TableId(u32);

/// Every value.
pub(super) const ANY: SetId = SetId(0);

/// The identity.
const IDENTITY: TableId = TableId(0);

/// What is known of a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Byte {
    Const(u8),
    Set(SetId),
    /// `table[r]` where `r`, in `domain`, is the byte at the same place of the value `root`;
    /// the bits of `unknown` may be anything (and are 0 in the table).
    Of {
        root: u32,
        domain: SetId,
        table: TableId,
        unknown: u8,
    },
}

/// The bytewise operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Bytewise {
    And,
    Or,
    Xor,
    Add,
    Sub,
    SubSat,
    Min,
}

impl Bytewise {
    fn apply(self, a: u8, b: u8) -> u8 {
        match self {
            Bytewise::And => a & b,
            Bytewise::Or => a | b,
            Bytewise::Xor => a ^ b,
            Bytewise::Add => a.wrapping_add(b),
            Bytewise::Sub => a.wrapping_sub(b),
            Bytewise::SubSat => a.saturating_sub(b),
            Bytewise::Min => a.min(b),
        }
    }
}

/// Keys of remembered results.
#[derive(PartialEq, Eq, Hash)]
enum Key {
    Tables(Bytewise, TableId, TableId, u8),
    Sets(Bytewise, SetId, SetId),
    Image(SetId, TableId, u8),
    Shift(TableId, i8),
    Compose(TableId, TableId),
    Union(SetId, SetId),
}

/// Interned sets and tables, and the results of operations on them.
pub(super) struct Arena {
    sets: Vec<(ByteSet, Bounds)>,
    set_ids: HashMap<ByteSet, SetId>,
    tables: Vec<[u8; 256]>,
    table_ids: HashMap<[u8; 256], TableId>,
    memo: HashMap<Key, u32>,
}

/// The bounds of a set, computed once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) u8: (u8, u8),
    pub(super) i8: (i8, i8),
    /// Bits that are 1 in some value.
    pub(super) maybe: u8,
}

impl Arena {
    pub(super) fn new() -> Self {
        let mut this = Self {
            sets: Vec::new(),
            set_ids: HashMap::default(),
            tables: Vec::new(),
            table_ids: HashMap::default(),
            memo: HashMap::default(),
        };
        let any = this.set(ByteSet::ALL);
        let identity = this.table(std::array::from_fn(|i| i as u8));
        assert!(any == ANY && identity == IDENTITY);
        this
    }

    pub(super) fn set(&mut self, set: ByteSet) -> SetId {
        if let Some(&id) = self.set_ids.get(&set) {
            return id;
        }
        let id = SetId(self.sets.len() as u32);
        let signed = || set.iter().map(|v| v as i8);
        let bounds = Bounds {
            u8: (set.min(), set.max()),
            i8: (signed().min().unwrap_or(0), signed().max().unwrap_or(0)),
            maybe: set.iter().fold(0, |m, v| m | v),
        };
        self.sets.push((set, bounds));
        self.set_ids.insert(set, id);
        id
    }

    pub(super) fn table(&mut self, table: [u8; 256]) -> TableId {
        if let Some(&id) = self.table_ids.get(&table) {
            return id;
        }
        let id = TableId(self.tables.len() as u32);
        self.tables.push(table);
        self.table_ids.insert(table, id);
        id
    }

    pub(super) fn values(&self, id: SetId) -> &ByteSet {
        &self.sets[id.0 as usize].0
    }

    fn remember(&mut self, key: Key, make: impl FnOnce(&mut Self) -> u32) -> u32 {
        if let Some(&known) = self.memo.get(&key) {
            return known;
        }
        let new = make(self);
        self.memo.insert(key, new);
        new
    }

    /// A byte that is any of `set`.
    pub(super) fn among(&mut self, set: ByteSet) -> Byte {
        if set.len() == 1 {
            return Byte::Const(set.min());
        }
        Byte::Set(self.set(set))
    }

    /// A byte brought by the load that defines value `root`.
    pub(super) fn loaded(&mut self, root: u32, set: ByteSet) -> Byte {
        let domain = self.set(set);
        Byte::Of {
            root,
            domain,
            table: IDENTITY,
            unknown: 0,
        }
    }

    /// The values that `b` may have, relation to its root forgotten.
    pub(super) fn set_of(&mut self, b: Byte) -> SetId {
        match b {
            Byte::Const(c) => self.set(ByteSet::of([c])),
            Byte::Set(s) => s,
            Byte::Of {
                domain,
                table,
                unknown,
                ..
            } => {
                if table == IDENTITY && unknown == 0 {
                    return domain;
                }
                let id = self.remember(Key::Image(domain, table, unknown), |a| {
                    let mut image = ByteSet::default();
                    let t = &a.tables[table.0 as usize];
                    for r in a.values(domain).iter() {
                        let mut bits = unknown;
                        loop {
                            image.insert(t[r as usize] | bits);
                            if bits == 0 {
                                break;
                            }
                            bits = (bits - 1) & unknown;
                        }
                    }
                    a.set(image).0
                });
                SetId(id)
            }
        }
    }

    /// The byte without its relation to a root.
    pub(super) fn forget(&mut self, b: Byte) -> Byte {
        match b {
            Byte::Of { .. } => Byte::Set(self.set_of(b)),
            other => other,
        }
    }

    pub(super) fn bounds(&mut self, b: Byte) -> Bounds {
        let id = self.set_of(b);
        self.sets[id.0 as usize].1
    }

    /// Either `a` or `b`.
    pub(super) fn join(&mut self, a: Byte, b: Byte) -> Byte {
        let (a, b) = (self.forget(a), self.forget(b));
        if a == b {
            return a;
        }
        let (x, y) = (self.set_of(a), self.set_of(b));
        let id = self.remember(Key::Union(x, y), |arena| {
            let set = arena.values(x).union(*arena.values(y));
            arena.set(set).0
        });
        Byte::Set(SetId(id))
    }

    /// `op` on two bytes at the same place.
    pub(super) fn bytewise(&mut self, op: Bytewise, a: Byte, b: Byte) -> Byte {
        if let (Byte::Const(a), Byte::Const(b)) = (a, b) {
            return Byte::Const(op.apply(a, b));
        }
        if let Some(related) = self.related(op, a, b) {
            return related;
        }
        let (x, y) = (self.set_of(a), self.set_of(b));
        let id = self.remember(Key::Sets(op, x, y), |arena| {
            let set = arena.unrelated(op, x, y);
            arena.set(set).0
        });
        let set = *self.values(SetId(id));
        self.among(set)
    }

    /// `op` where both sides are functions of one root (or one is a constant).
    fn related(&mut self, op: Bytewise, a: Byte, b: Byte) -> Option<Byte> {
        let parts = |b: Byte| match b {
            Byte::Of {
                root,
                domain,
                table,
                unknown,
            } => Some((Some((root, domain)), Ok(table), unknown)),
            Byte::Const(c) => Some((None, Err(c), 0)),
            Byte::Set(_) => None,
        };
        let (root_a, ta, ua) = parts(a)?;
        let (root_b, tb, ub) = parts(b)?;
        let (root, domain) = match (root_a, root_b) {
            (Some(x), Some(y)) if x == y => x,
            (Some(x), None) | (None, Some(x)) => x,
            _ => return None,
        };
        let unknown = match op {
            _ if ua | ub == 0 => 0,
            Bytewise::And => (ua & self.bounds(b).maybe) | (ub & self.bounds(a).maybe),
            Bytewise::Or | Bytewise::Xor => ua | ub,
            _ => return None,
        };
        let mut id = |t: Result<TableId, u8>| t.unwrap_or_else(|c| self.table([c; 256]));
        let (ta, tb) = (id(ta), id(tb));
        let table = self.remember(Key::Tables(op, ta, tb, unknown), |arena| {
            let (x, y) = (&arena.tables[ta.0 as usize], &arena.tables[tb.0 as usize]);
            let t = std::array::from_fn(|i| op.apply(x[i], y[i]) & !unknown);
            arena.table(t).0
        });
        Some(Byte::Of {
            root,
            domain,
            table: TableId(table),
            unknown,
        })
    }

    fn unrelated(&self, op: Bytewise, x: SetId, y: SetId) -> ByteSet {
        let ((a, ba), (b, bb)) = (self.sets[x.0 as usize], self.sets[y.0 as usize]);
        if a.len() * b.len() <= 4096 {
            let mut out = ByteSet::default();
            for u in a.iter() {
                for v in b.iter() {
                    out.insert(op.apply(u, v));
                }
            }
            return out;
        }
        let ((al, ah), (bl, bh)) = (ba.u8, bb.u8);
        let within = |lo: u8, hi: u8, bits: u8| ByteSet::of((lo..=hi).filter(|v| v & !bits == 0));
        match op {
            Bytewise::And => within(0, ah.min(bh), ba.maybe & bb.maybe),
            Bytewise::Or => within(al.max(bl), 255, ba.maybe | bb.maybe),
            Bytewise::Xor => within(0, 255, ba.maybe | bb.maybe),
            Bytewise::Add => match ah.checked_add(bh) {
                Some(hi) => within(al + bl, hi, 255),
                None => within(0, 255, 255),
            },
            Bytewise::Sub if al >= bh => within(al - bh, ah - bl, 255),
            Bytewise::Sub => within(0, 255, 255),
            Bytewise::SubSat => within(al.saturating_sub(bh), ah.saturating_sub(bl), 255),
            Bytewise::Min => within(al.min(bl), ah.min(bh), 255),
        }
    }

    /// `b << by`, or `b >> −by`, where the vacated bits take any of `fill`'s bits that land in them.
    /// `moved`: the byte also changes its place, so it is no function of its root any more.
    pub(super) fn shift(&mut self, b: Byte, by: i8, fill: u8, moved: bool) -> Byte {
        let one = |v: u8| {
            if by >= 0 { v << by } else { v >> -by }
        };
        if let (Byte::Const(c), 0) = (b, fill) {
            return Byte::Const(one(c));
        }
        let shifted = match b {
            Byte::Of {
                root,
                domain,
                table,
                unknown,
            } => {
                let t = self.remember(Key::Shift(table, by), |a| {
                    let t = a.tables[table.0 as usize].map(one);
                    a.table(t).0
                });
                Byte::Of {
                    root,
                    domain,
                    table: TableId(t),
                    unknown: one(unknown) | fill,
                }
            }
            other => {
                let domain = self.set_of(other);
                let t = self.remember(Key::Shift(IDENTITY, by), |a| {
                    let t = std::array::from_fn(|i| one(i as u8));
                    a.table(t).0
                });
                // No load defines this root: the function is evaluated at once.
                let image = Byte::Of {
                    root: u32::MAX,
                    domain,
                    table: TableId(t),
                    unknown: fill,
                };
                self.forget(image)
            }
        };
        if moved { self.forget(shifted) } else { shifted }
    }

    /// `entries[b]`.
    pub(super) fn look_up(&mut self, entries: TableId, b: Byte) -> Byte {
        let b = match b {
            Byte::Of { unknown, .. } if unknown != 0 => self.forget(b),
            other => other,
        };
        match b {
            Byte::Const(c) => Byte::Const(self.tables[entries.0 as usize][c as usize]),
            Byte::Set(domain) => {
                let image = Byte::Of {
                    root: u32::MAX,
                    domain,
                    table: entries,
                    unknown: 0,
                };
                self.forget(image)
            }
            Byte::Of {
                root,
                domain,
                table,
                ..
            } => {
                let t = self.remember(Key::Compose(entries, table), |a| {
                    let outer = a.tables[entries.0 as usize];
                    let t = a.tables[table.0 as usize].map(|v| outer[v as usize]);
                    a.table(t).0
                });
                Byte::Of {
                    root,
                    domain,
                    table: TableId(t),
                    unknown: 0,
                }
            }
        }
    }

    /// Whether `pred` holds for every pair of values that `a` and `b` may have together.
    pub(super) fn always(&mut self, a: Byte, b: Byte, pred: impl Fn(u8, u8) -> bool) -> bool {
        if let (
            Byte::Of {
                root: ra,
                domain,
                table: ta,
                unknown: 0,
            },
            Byte::Of {
                root: rb,
                table: tb,
                unknown: 0,
                ..
            },
        ) = (a, b)
            && ra == rb
        {
            let (x, y) = (&self.tables[ta.0 as usize], &self.tables[tb.0 as usize]);
            return self
                .values(domain)
                .iter()
                .all(|r| pred(x[r as usize], y[r as usize]));
        }
        let (x, y) = (self.set_of(a), self.set_of(b));
        self.values(x)
            .iter()
            .all(|u| self.values(y).iter().all(|v| pred(u, v)))
    }
}

impl Arena {
    /// Entries 0 to 63 of `lo`, then those of `hi`, repeated.
    pub(super) fn halves(&mut self, lo: TableId, hi: TableId) -> TableId {
        let (l, h) = (self.tables[lo.0 as usize], self.tables[hi.0 as usize]);
        self.table(std::array::from_fn(|i| match i % 128 {
            i if i < 64 => l[i],
            i => h[i - 64],
        }))
    }
}
