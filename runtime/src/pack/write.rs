//! Writing a pack: kernels in, bytes out. The same kernels in the same order give the same bytes.

use super::container;
use super::manifest::{CODE_ALIGN, Code, Manifest, Row, names};
use crate::graph::Product;
use crate::profile::{self, GENERATOR, M_BUCKETS, Profile};
use bitnet_codegen::abi::{ABI, PREFETCH_LINES, prefetch_stub};
use bitnet_codegen::coded::CodedKernel;
use bitnet_codegen::isa::Arch;
use bitnet_codegen::kernel::Piece;
use bitnet_codegen::{Features, Kernel, Key};
use std::collections::HashMap;
use std::ops::Range;

/// Every kernel is interpreted, so there is no code to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no code to write: every kernel would be interpreted on such a CPU")]
pub struct Empty;

/// A pack in the making.
pub struct Builder {
    cpu: Features,
    manifest: Manifest,
    profile: Profile,
    code: Vec<u8>,
    places: HashMap<Key, Range<usize>>,
}

impl Builder {
    /// A pack for a CPU of the family `arch` with the features `cpu`, of kernels that `profile` chose for `threads`.
    pub fn new(arch: Arch, cpu: Features, profile: Profile, threads: &[usize]) -> Self {
        let mut this = Self {
            cpu,
            manifest: Manifest {
                target: arch.name().to_owned(),
                abi: ABI.to_owned(),
                generator: GENERATOR.to_owned(),
                threads: threads.to_vec(),
                ..Manifest::default()
            },
            profile,
            code: Vec::new(),
            places: HashMap::new(),
        };
        for lines in PREFETCH_LINES {
            let (key, code) = (Key::of_stub(arch, lines), prefetch_stub(arch, lines));
            let name = format!("prefetch of {lines} lines");
            this.put(key, name, Features::NONE, &code);
        }
        this
    }

    /// Adds the choice of `kernel` for a product of as many tokens as bucket `bucket` has; whether there is code.
    pub fn add(
        &mut self,
        (product, bucket): (Product, usize),
        threads: usize,
        origin: &str,
        kernel: &Kernel,
    ) -> bool {
        let Some(at) = self.pieces(kernel.pieces()) else {
            return false;
        };
        let next = M_BUCKETS.get(bucket + 1);
        self.manifest.kernels.push(Row {
            n: product.n,
            k: product.k,
            m_from: M_BUCKETS[bucket].first,
            m_to: next.map(|b| b.first - 1),
            threads: Some(threads),
            spec: kernel.spec().to_string(),
            origin: origin.to_owned(),
            offset: at.start,
            length: at.len(),
            alignment: CODE_ALIGN,
        });
        true
    }

    /// Adds the code of `kernel`, which choosing builds and no choice names.
    pub fn add_spare(&mut self, kernel: &Kernel) {
        self.pieces(kernel.pieces());
    }

    /// Adds the kernel of a head with `vocab` rows.
    pub fn add_head(&mut self, vocab: usize, kernel: &CodedKernel) {
        if let Some(at) = self.pieces(kernel.pieces()) {
            self.manifest.kernels.push(Row {
                n: vocab,
                k: kernel.packing().k,
                m_from: 1,
                m_to: Some(1),
                threads: None,
                spec: kernel.spec().to_string(),
                origin: "head".to_owned(),
                offset: at.start,
                length: at.len(),
                alignment: CODE_ALIGN,
            });
        }
    }

    /// Where the pieces of one kernel lie, which are put there if they are new.
    fn pieces<'k>(&mut self, pieces: impl Iterator<Item = Piece<'k>>) -> Option<Range<usize>> {
        let at = |piece: Piece<'_>| {
            let key = Key::of(piece.isa, piece.program);
            let needs = piece.isa.needs(self.cpu);
            self.put(key, piece.program.name.clone(), needs, piece.code)
        };
        pieces
            .map(at)
            .reduce(|a, b| a.start.min(b.start)..a.end.max(b.end))
    }

    fn put(&mut self, key: Key, name: String, needs: Features, code: &[u8]) -> Range<usize> {
        if let Some(at) = self.places.get(&key) {
            return at.clone();
        }
        self.code
            .resize(self.code.len().next_multiple_of(CODE_ALIGN), 0);
        let at = self.code.len()..self.code.len() + code.len();
        self.code.extend(code);
        self.manifest.codes.push(Code {
            name,
            key: key.to_string(),
            features: names(needs),
            offset: at.start,
            length: at.len(),
        });
        self.places.insert(key, at.clone());
        at
    }

    /// Bytes of code so far.
    pub fn code_bytes(&self) -> usize {
        self.code.len()
    }

    /// The file, and what is in it.
    ///
    /// # Errors
    /// [`Empty`].
    pub fn finish(mut self) -> Result<(Vec<u8>, Manifest), Empty> {
        if self.manifest.kernels.is_empty() {
            return Err(Empty);
        }
        let of_all = self.manifest.codes.iter().flat_map(|c| &c.features);
        let mut all: Vec<String> = of_all.cloned().collect();
        all.sort();
        all.dedup();
        self.manifest.features = all;
        let profile = profile::render(&self.profile);
        let bytes = container::seal(&self.manifest.render(), &profile, &self.code);
        Ok((bytes, self.manifest))
    }
}
