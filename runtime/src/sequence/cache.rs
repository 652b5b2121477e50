//! [`KvCache`]: keys and values of all layers, in pages that are taken as positions are used.
//!
//! A page holds [`PAGE`] positions of every layer, `[layers, kv_heads]` heads laid out as [`HeadLayout`] says. Forks
//! share the pages that are full and copy the one they write.

use super::kv::{HeadLayout, KvType, SLAB};
use crate::graph::ModelConfig;
use crate::memory::HugeBytes;
use bytemuck::AnyBitPattern;
use std::ops::Range;
use std::sync::Arc;

/// Positions of a page: whole blocks of keys.
pub const PAGE: usize = 128;

/// Positions of a block of keys.
pub const KEY_BLOCK: usize = 32;

/// What a cache holds of each position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheShape {
    /// Transformer blocks.
    pub layers: usize,
    /// Heads of keys and of values.
    pub kv_heads: usize,
    /// How a head is stored.
    pub head: HeadLayout,
}

impl CacheShape {
    /// The cache of a model.
    pub fn of(config: &ModelConfig, kv: KvType) -> Self {
        Self {
            layers: config.n_layers,
            kv_heads: config.n_kv_heads,
            head: HeadLayout::new(kv, config.head_dim),
        }
    }

    /// Bytes of one position.
    pub fn position_bytes(&self) -> usize {
        self.layers * self.kv_heads * self.head.row_bytes()
    }

    /// Bytes of a page; `None` beyond what can be addressed.
    fn page_bytes(&self) -> Option<usize> {
        self.layers
            .checked_mul(self.kv_heads)?
            .checked_mul(self.head.bytes())
    }
}

/// The system has no memory for another page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory {
    /// What was asked for.
    pub bytes: usize,
}

type Page = HugeBytes;

/// Keys and values of one conversation.
pub struct KvCache {
    shape: CacheShape,
    pages: Vec<Arc<Page>>,
}

impl KvCache {
    /// Holds nothing yet.
    pub fn new(shape: CacheShape) -> Self {
        Self {
            shape,
            pages: Vec::new(),
        }
    }

    /// What each position holds.
    pub fn shape(&self) -> CacheShape {
        self.shape
    }

    /// Bytes of all pages, shared ones included.
    pub fn bytes(&self) -> usize {
        self.pages.iter().map(|page| page.len()).sum()
    }

    /// Makes the positions `new` writable, those before being held: new pages, and own copies of shared ones.
    ///
    /// # Errors
    /// [`NoMemory`]; what is held stays as it was.
    pub fn make_room(&mut self, new: Range<usize>) -> Result<(), NoMemory> {
        let pages = pages_of(&new);
        let bytes = self.shape.page_bytes();
        let fresh = || {
            let page = bytes.and_then(Page::try_zeroed);
            page.ok_or(NoMemory {
                bytes: bytes.unwrap_or(usize::MAX),
            })
        };
        for index in pages {
            match self.pages.get_mut(index) {
                None => self.pages.push(Arc::new(fresh()?)),
                Some(page) => {
                    if Arc::get_mut(page).is_none() {
                        let mut own = fresh()?;
                        if index * PAGE < new.start {
                            own.copy_from_slice(page);
                        }
                        *page = Arc::new(own);
                    }
                }
            }
        }
        Ok(())
    }

    /// The first `len` positions, shared until one of the two writes to their last page.
    pub fn fork(&self, len: usize) -> Self {
        Self {
            shape: self.shape,
            pages: self.pages[..len.div_ceil(PAGE)].to_vec(),
        }
    }

    /// Lets go of the pages past the first `len` positions.
    pub fn release_after(&mut self, len: usize) {
        self.pages.truncate(len.div_ceil(PAGE));
    }

    /// One head's keys and values in one layer.
    pub fn head(&self, layer: usize, kv_head: usize) -> HeadCache<'_> {
        HeadCache {
            pages: &self.pages,
            start: (layer * self.shape.kv_heads + kv_head) * self.shape.head.bytes(),
            layout: self.shape.head,
        }
    }

    /// Where the positions `new` of one layer are written: for each page that they touch a slot for each KV head.
    ///
    /// # Panics
    /// When [`Self::make_room`] did not make them writable.
    pub fn slots(&mut self, layer: usize, new: Range<usize>) -> impl Iterator<Item = &mut [u8]> {
        let head_bytes = self.shape.head.bytes();
        let layer_bytes = head_bytes * self.shape.kv_heads;
        self.pages[pages_of(&new)].iter_mut().flat_map(move |page| {
            let page = Arc::get_mut(page).expect("make_room made the page this cache's own");
            page[layer * layer_bytes..][..layer_bytes].chunks_exact_mut(head_bytes)
        })
    }
}

/// The pages that hold `positions`.
pub fn pages_of(positions: &Range<usize>) -> Range<usize> {
    positions.start / PAGE..positions.end.div_ceil(PAGE)
}

/// Keys and values of one head in one layer.
#[derive(Clone, Copy)]
pub struct HeadCache<'a> {
    pages: &'a [Arc<Page>],
    /// Bytes before the head in every page.
    start: usize,
    layout: HeadLayout,
}

impl<'a> HeadCache<'a> {
    /// How the head is stored.
    pub fn layout(&self) -> HeadLayout {
        self.layout
    }

    /// The head in the page of `position`.
    pub fn slot(&self, position: usize) -> &'a [u8] {
        &self.pages[position / PAGE][self.start..][..self.layout.bytes()]
    }

    /// The keys of block `block`, `[head_dim, KEY_BLOCK]`. `C` is the type's code.
    #[inline(always)]
    pub fn keys<C: AnyBitPattern>(&self, block: usize) -> &'a [[C; KEY_BLOCK]] {
        let position = block * KEY_BLOCK;
        let (len, at) = (self.layout.head_dim(), position % PAGE / KEY_BLOCK);
        let codes: &[C] = bytemuck::cast_slice(&self.slot(position)[..self.layout.values_at()]);
        &codes.as_chunks().0[at * len..][..len]
    }

    /// The scales of block `block` in group `group`.
    #[inline(always)]
    pub fn key_scales(&self, group: usize, block: usize) -> &'a [f32; KEY_BLOCK] {
        let position = block * KEY_BLOCK;
        let scales = bytemuck::cast_slice(&self.slot(position)[self.layout.scales_at()..]);
        let from = group * PAGE + position % PAGE;
        scales[from..]
            .first_chunk()
            .expect("scales of a whole block")
    }

    /// The values of `positions`, all of one page, in slab `slab`: `[positions, SLAB]`.
    #[inline(always)]
    pub fn values<C: AnyBitPattern>(
        &self,
        slab: usize,
        positions: Range<usize>,
    ) -> &'a [[C; SLAB]] {
        let slot = self.slot(positions.start);
        let codes: &[C] =
            bytemuck::cast_slice(&slot[self.layout.values_at()..self.layout.scales_at()]);
        let from = slab * PAGE + positions.start % PAGE;
        &codes.as_chunks().0[from..][..positions.len()]
    }

    /// The scales of the values of `positions`, all of one page, in group `group`.
    #[inline(always)]
    pub fn value_scales(&self, group: usize, positions: Range<usize>) -> &'a [f32] {
        let slot = self.slot(positions.start);
        let scales: &[f32] = bytemuck::cast_slice(&slot[self.layout.value_scales_at()..]);
        &scales[group * PAGE + positions.start % PAGE..][..positions.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(kv: KvType) -> CacheShape {
        CacheShape {
            layers: 2,
            kv_heads: 3,
            head: HeadLayout::new(kv, 36),
        }
    }

    /// What is written at a position: small integers, which every type holds as they are, that tell where they belong.
    fn row(layer: usize, head: usize, position: usize, value: bool) -> Vec<f32> {
        let of =
            |d: usize| (layer * 31 + head * 17 + position * 7 + d * 5 + usize::from(value)) % 255;
        // 127 in every group of 32 columns makes the scale of an 8-bit row 1.
        (0..36)
            .map(|d| {
                if d % 32 == 0 {
                    127.0
                } else {
                    of(d) as f32 - 127.0
                }
            })
            .collect()
    }

    fn fill(cache: &mut KvCache, new: Range<usize>) {
        cache.make_room(new.clone()).unwrap();
        let CacheShape {
            layers,
            kv_heads,
            head: layout,
        } = cache.shape();
        for layer in 0..layers {
            let pages = pages_of(&new);
            for (i, slot) in cache.slots(layer, new.clone()).enumerate() {
                let (page, head) = (pages.start + i / kv_heads, i % kv_heads);
                for position in (page * PAGE..(page + 1) * PAGE).filter(|p| new.contains(p)) {
                    let (key, value) = (
                        row(layer, head, position, false),
                        row(layer, head, position, true),
                    );
                    layout.store(slot, position, &key, &value);
                }
            }
        }
    }

    /// The key and the value of a position.
    fn read(cache: HeadCache<'_>, position: usize) -> (Vec<f32>, Vec<f32>) {
        fn of<C: AnyBitPattern>(
            cache: HeadCache<'_>,
            position: usize,
            float: impl Fn(C) -> f32,
        ) -> (Vec<f32>, Vec<f32>) {
            let block = cache.keys::<C>(position / KEY_BLOCK);
            let key = block
                .iter()
                .map(|column| float(column[position % KEY_BLOCK]))
                .collect();
            let slabs = (0..cache.layout().slabs())
                .flat_map(|s| cache.values::<C>(s, position..position + 1)[0]);
            (
                key,
                slabs.take(cache.layout().head_dim()).map(float).collect(),
            )
        }
        match cache.layout().kv() {
            KvType::F32 => of(cache, position, |c: f32| c),
            KvType::F16 => of(cache, position, half::f16::to_f32),
            KvType::Q8_0 => of(cache, position, |c: i8| c.into()),
        }
    }

    fn check(cache: &KvCache, len: usize) {
        for (layer, head) in (0..2).flat_map(|l| (0..3).map(move |h| (l, h))) {
            let cache = cache.head(layer, head);
            for position in 0..len {
                let (key, value) = read(cache, position);
                assert_eq!(key, row(layer, head, position, false), "key {position}");
                assert_eq!(value, row(layer, head, position, true), "value {position}");
                let groups = match cache.layout().kv() {
                    KvType::F32 => 0,
                    KvType::F16 => 1,
                    KvType::Q8_0 => 2,
                };
                for g in 0..groups {
                    let scale = cache.key_scales(g, position / KEY_BLOCK)[position % KEY_BLOCK];
                    assert!((scale - 1.0).abs() < 1e-6, "{scale}");
                    let scale = cache.value_scales(g, position..position + 1)[0];
                    assert!((scale - 1.0).abs() < 1e-6, "{scale}");
                }
            }
        }
    }

    #[test]
    fn positions_are_found_where_they_were_stored() {
        for kv in KvType::ALL {
            let mut cache = KvCache::new(shape(kv));
            assert_eq!(cache.bytes(), 0);
            let mut held = 0;
            for end in [1, 31, 33, PAGE, PAGE + 1, 3 * PAGE + 7] {
                fill(&mut cache, held..end);
                held = end;
                check(&cache, held);
                let page = cache.bytes() / held.div_ceil(PAGE);
                assert!(page >= PAGE * shape(kv).position_bytes(), "{kv}: {page}");
            }
        }
    }

    #[test]
    fn forks_share_what_is_full_and_never_write_to_each_other() {
        let mut cache = KvCache::new(shape(KvType::F16));
        fill(&mut cache, 0..PAGE + 9);
        let mut fork = cache.fork(PAGE + 4);
        assert!(Arc::ptr_eq(&cache.pages[0], &fork.pages[0]));
        fill(&mut fork, PAGE + 4..PAGE + 6);
        assert!(
            Arc::ptr_eq(&cache.pages[0], &fork.pages[0]),
            "full pages stay shared"
        );
        assert!(!Arc::ptr_eq(&cache.pages[1], &fork.pages[1]));
        let slot = fork.slots(0, PAGE + 5..PAGE + 6).next().unwrap();
        shape(KvType::F16)
            .head
            .store(slot, PAGE + 5, &[9.0; 36], &[9.0; 36]);
        check(&cache, PAGE + 9);
        check(&fork, PAGE + 5);
        assert_eq!(read(fork.head(0, 0), PAGE + 5).0, [9.0; 36]);
        // A shared page of which nothing is held is not copied.
        let mut other = cache.fork(PAGE + 9);
        other.make_room(PAGE..PAGE + 1).unwrap();
        assert_eq!(read(other.head(0, 0), PAGE + 3).1, [0.0; 36]);
        cache.release_after(PAGE);
        assert_eq!(cache.pages.len(), 1);
    }

    #[test]
    fn a_page_beyond_memory_is_an_answer() {
        let shape = CacheShape {
            layers: usize::MAX / 2,
            ..shape(KvType::F32)
        };
        let refused = KvCache::new(shape).make_room(0..1);
        assert_eq!(refused, Err(NoMemory { bytes: usize::MAX }));
    }
}
