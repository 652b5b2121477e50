//! [`KvCache`]: keys and values of all layers, in pages that are taken as positions are used.
//!
//! Everything is f32: squared ReLU makes values of 1e6, which f16 cannot hold, and an f32 cache keeps a prompt
//! that is processed at once equal to one processed token by token without a rule for when to round.
//!
//! A page holds [`PAGE`] positions of every layer, `[layers, kv_heads, keys | values]`: the keys of a head in blocks
//! of [`KEY_BLOCK`] positions, transposed (`[blocks, head_dim, KEY_BLOCK]`), so that a score is one lane of a vector;
//! its values as rows (`[positions, head_dim]`). Forks share the pages that are full and copy the one they write.

use crate::graph::ModelConfig;
use crate::memory::HugeBytes;
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
    /// Columns of a head.
    pub head_dim: usize,
}

impl CacheShape {
    /// The cache of a model.
    pub fn of(config: &ModelConfig) -> Self {
        Self {
            layers: config.n_layers,
            kv_heads: config.n_kv_heads,
            head_dim: config.head_dim,
        }
    }

    /// Bytes of one position.
    pub fn position_bytes(&self) -> usize {
        self.layers * self.kv_heads * 2 * self.head_dim * size_of::<f32>()
    }

    /// Floats of the keys of one head and page; as many values follow.
    fn keys_len(&self) -> usize {
        PAGE * self.head_dim
    }

    /// Bytes of keys and values of one head and page.
    fn head_bytes(&self) -> usize {
        2 * self.keys_len() * size_of::<f32>()
    }

    /// Bytes of a page; `None` beyond what can be addressed.
    fn page_bytes(&self) -> Option<usize> {
        [PAGE, self.kv_heads, self.head_dim, 2 * size_of::<f32>()]
            .into_iter()
            .try_fold(self.layers, usize::checked_mul)
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
        let head_bytes = self.shape.head_bytes();
        HeadCache {
            pages: &self.pages,
            start: (layer * self.shape.kv_heads + kv_head) * head_bytes,
            keys_len: self.shape.keys_len(),
            head_dim: self.shape.head_dim,
        }
    }

    /// Where the positions `new` of one layer are written: for each page that they touch a slot for each KV head.
    ///
    /// # Panics
    /// When [`Self::make_room`] did not make them writable.
    pub fn slots(&mut self, layer: usize, new: Range<usize>) -> impl Iterator<Item = &mut [u8]> {
        let (head_bytes, kv_heads) = (self.shape.head_bytes(), self.shape.kv_heads);
        let layer_bytes = head_bytes * kv_heads;
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

/// Writes a rotated key and a value, `[head_dim]` each, as `position` into its page's slot.
pub fn store(slot: &mut [u8], position: usize, key: &[f32], value: &[f32]) {
    let (head_dim, at) = (key.len(), position % PAGE);
    let (keys, values) = bytemuck::cast_slice_mut::<u8, f32>(slot).split_at_mut(PAGE * head_dim);
    let block = &mut keys[at / KEY_BLOCK * KEY_BLOCK * head_dim..][..KEY_BLOCK * head_dim];
    for (column, &k) in block.chunks_exact_mut(KEY_BLOCK).zip(key) {
        column[at % KEY_BLOCK] = k;
    }
    values[at * head_dim..][..head_dim].copy_from_slice(value);
}

/// Keys and values of one head in one layer.
#[derive(Clone, Copy)]
pub struct HeadCache<'a> {
    pages: &'a [Arc<Page>],
    /// Bytes before the head's keys in every page.
    start: usize,
    keys_len: usize,
    head_dim: usize,
}

impl<'a> HeadCache<'a> {
    #[inline(always)]
    fn floats(&self, position: usize, from: usize, len: usize) -> &'a [f32] {
        let page = &self.pages[position / PAGE];
        let from = self.start + from * size_of::<f32>();
        bytemuck::cast_slice(&page[from..from + len * size_of::<f32>()])
    }

    /// The keys of block `block`, `[head_dim, KEY_BLOCK]`.
    #[inline(always)]
    pub fn keys(&self, block: usize) -> &'a [f32] {
        let len = KEY_BLOCK * self.head_dim;
        let position = block * KEY_BLOCK;
        self.floats(position, position % PAGE * self.head_dim, len)
    }

    /// The key and the value of one position, `[head_dim]` each.
    pub fn read(&self, position: usize, key: &mut [f32], value: &mut [f32]) {
        let block = self.keys(position / KEY_BLOCK);
        for (k, column) in key.iter_mut().zip(block.chunks_exact(KEY_BLOCK)) {
            *k = column[position % KEY_BLOCK];
        }
        value.copy_from_slice(self.values(position..position + 1));
    }

    /// The values of `positions`, all of one page: `[positions, head_dim]`.
    #[inline(always)]
    pub fn values(&self, positions: Range<usize>) -> &'a [f32] {
        let from = self.keys_len + positions.start % PAGE * self.head_dim;
        self.floats(positions.start, from, positions.len() * self.head_dim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: CacheShape = CacheShape {
        layers: 2,
        kv_heads: 3,
        head_dim: 4,
    };

    /// What is written at a position: a number that names layer, head, position and column.
    fn row(layer: usize, head: usize, position: usize, value: bool) -> [f32; 4] {
        std::array::from_fn(|d| {
            (((layer * 3 + head) * 1000 + position) * 8 + d) as f32 + 0.5 * f32::from(value)
        })
    }

    fn fill(cache: &mut KvCache, new: Range<usize>) {
        cache.make_room(new.clone()).unwrap();
        for layer in 0..SHAPE.layers {
            let pages = pages_of(&new);
            for (i, slot) in cache.slots(layer, new.clone()).enumerate() {
                let (page, head) = (pages.start + i / SHAPE.kv_heads, i % SHAPE.kv_heads);
                for position in (page * PAGE..(page + 1) * PAGE).filter(|p| new.contains(p)) {
                    let (key, value) = (
                        row(layer, head, position, false),
                        row(layer, head, position, true),
                    );
                    store(slot, position, &key, &value);
                }
            }
        }
    }

    fn check(cache: &KvCache, len: usize) {
        for (layer, head) in
            (0..SHAPE.layers).flat_map(|l| (0..SHAPE.kv_heads).map(move |h| (l, h)))
        {
            let cache = cache.head(layer, head);
            let (mut key, mut value) = ([0f32; 4], [0f32; 4]);
            for position in 0..len {
                cache.read(position, &mut key, &mut value);
                assert_eq!(key, row(layer, head, position, false), "key {position}");
                assert_eq!(value, row(layer, head, position, true), "value {position}");
            }
        }
    }

    #[test]
    fn positions_are_found_where_they_were_stored() {
        let mut cache = KvCache::new(SHAPE);
        assert_eq!(cache.bytes(), 0);
        let mut held = 0;
        for end in [1, 31, 33, PAGE, PAGE + 1, 3 * PAGE + 7] {
            fill(&mut cache, held..end);
            held = end;
            check(&cache, held);
            assert_eq!(
                cache.bytes(),
                held.div_ceil(PAGE) * PAGE * SHAPE.position_bytes()
            );
        }
    }

    #[test]
    fn forks_share_what_is_full_and_never_write_to_each_other() {
        let mut cache = KvCache::new(SHAPE);
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
        store(slot, PAGE + 5, &[9.0; 4], &[9.0; 4]);
        check(&cache, PAGE + 9);
        check(&fork, PAGE + 5);
        assert_eq!(fork.head(0, 0).values(PAGE + 5..PAGE + 6), [9.0; 4]);
        // A shared page of which nothing is held is not copied.
        let mut other = cache.fork(PAGE + 9);
        other.make_room(PAGE..PAGE + 1).unwrap();
        assert_eq!(other.head(0, 0).values(PAGE + 3..PAGE + 4), [0.0; 4]);
        cache.release_after(PAGE);
        assert_eq!(cache.bytes(), PAGE * SHAPE.position_bytes());
    }

    #[test]
    fn a_page_beyond_memory_is_an_answer() {
        let shape = CacheShape {
            layers: usize::MAX / 2,
            ..SHAPE
        };
        let refused = KvCache::new(shape).make_room(0..1);
        assert_eq!(refused, Err(NoMemory { bytes: usize::MAX }));
    }
}
