#![expect(
    unsafe_code,
    reason = "uses the vector instructions of a level that was detected"
)]
//! [`Vector`]: 32 floats in registers, for the loops of attention.
//!
//! Plain loops over arrays come out as good code or as code thirty times slower, depending on what stands around them;
//! here the instructions are named. A product and a sum are never fused, so every level gives the same bits.

use crate::sequence::SLAB;
use half::f16;

/// [`SLAB`] floats, and what attention does with them.
pub trait Vector: Copy {
    /// Floats as they are.
    fn floats(x: &[f32; SLAB]) -> Self;

    /// Halves as floats.
    fn halves(x: &[f16; SLAB]) -> Self;

    /// Integers as floats.
    fn bytes(x: &[i8; SLAB]) -> Self;

    /// `self += x · v`, in two roundings.
    fn add_scaled(&mut self, x: f32, v: Self);

    /// Writes all of it.
    fn write(self, out: &mut [f32; SLAB]);
}

/// For any CPU.
impl Vector for [f32; SLAB] {
    fn floats(x: &[f32; SLAB]) -> Self {
        *x
    }

    fn halves(x: &[f16; SLAB]) -> Self {
        x.map(f16::to_f32)
    }

    fn bytes(x: &[i8; SLAB]) -> Self {
        x.map(f32::from)
    }

    fn add_scaled(&mut self, x: f32, v: Self) {
        for (sum, v) in self.iter_mut().zip(v) {
            *sum += x * v;
        }
    }

    fn write(self, out: &mut [f32; SLAB]) {
        *out = self;
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Wide256, Wide512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{SLAB, Vector, f16};
    use std::arch::x86_64::*;
    use std::array::from_fn;

    /// For [`crate::lanes::Level::Avx2`] and nothing below.
    #[derive(Clone, Copy)]
    pub struct Wide256([__m256; 4]);

    /// For [`crate::lanes::Level::Avx512`] and nothing below.
    #[derive(Clone, Copy)]
    pub struct Wide512([__m512; 2]);

    impl Vector for Wide256 {
        #[inline(always)]
        fn floats(x: &[f32; SLAB]) -> Self {
            // SAFETY: eight readable floats; the level has AVX.
            Self(from_fn(|i| unsafe {
                _mm256_loadu_ps(x.as_ptr().wrapping_add(8 * i))
            }))
        }

        #[inline(always)]
        fn halves(x: &[f16; SLAB]) -> Self {
            Self(from_fn(|i| {
                let at = x.as_ptr().wrapping_add(8 * i);
                // SAFETY: 16 readable bytes.
                let halves = unsafe { _mm_loadu_si128(at.cast()) };
                // SAFETY: the level has F16C.
                unsafe { _mm256_cvtph_ps(halves) }
            }))
        }

        #[inline(always)]
        fn bytes(x: &[i8; SLAB]) -> Self {
            Self(from_fn(|i| {
                let at = x.as_ptr().wrapping_add(8 * i);
                // SAFETY: eight readable bytes.
                let bytes = unsafe { _mm_loadl_epi64(at.cast()) };
                // SAFETY: the level has AVX2.
                let integers = unsafe { _mm256_cvtepi8_epi32(bytes) };
                // SAFETY: as above.
                unsafe { _mm256_cvtepi32_ps(integers) }
            }))
        }

        #[inline(always)]
        fn add_scaled(&mut self, x: f32, v: Self) {
            // SAFETY: the level has AVX.
            let x = unsafe { _mm256_set1_ps(x) };
            for (sum, v) in self.0.iter_mut().zip(v.0) {
                // SAFETY: as above.
                let product = unsafe { _mm256_mul_ps(x, v) };
                // SAFETY: as above.
                *sum = unsafe { _mm256_add_ps(*sum, product) };
            }
        }

        #[inline(always)]
        fn write(self, out: &mut [f32; SLAB]) {
            for (i, part) in self.0.into_iter().enumerate() {
                // SAFETY: eight writable floats; the level has AVX.
                unsafe { _mm256_storeu_ps(out.as_mut_ptr().wrapping_add(8 * i), part) };
            }
        }
    }

    impl Vector for Wide512 {
        #[inline(always)]
        fn floats(x: &[f32; SLAB]) -> Self {
            // SAFETY: sixteen readable floats; the level has AVX-512 F.
            Self(from_fn(|i| unsafe {
                _mm512_loadu_ps(x.as_ptr().wrapping_add(16 * i))
            }))
        }

        #[inline(always)]
        fn halves(x: &[f16; SLAB]) -> Self {
            Self(from_fn(|i| {
                let at = x.as_ptr().wrapping_add(16 * i);
                // SAFETY: 32 readable bytes.
                let halves = unsafe { _mm256_loadu_si256(at.cast()) };
                // SAFETY: the level has AVX-512 F.
                unsafe { _mm512_cvtph_ps(halves) }
            }))
        }

        #[inline(always)]
        fn bytes(x: &[i8; SLAB]) -> Self {
            Self(from_fn(|i| {
                let at = x.as_ptr().wrapping_add(16 * i);
                // SAFETY: 16 readable bytes.
                let bytes = unsafe { _mm_loadu_si128(at.cast()) };
                // SAFETY: the level has AVX-512 F.
                let integers = unsafe { _mm512_cvtepi8_epi32(bytes) };
                // SAFETY: as above.
                unsafe { _mm512_cvtepi32_ps(integers) }
            }))
        }

        #[inline(always)]
        fn add_scaled(&mut self, x: f32, v: Self) {
            // SAFETY: the level has AVX-512 F.
            let x = unsafe { _mm512_set1_ps(x) };
            for (sum, v) in self.0.iter_mut().zip(v.0) {
                // SAFETY: as above.
                let product = unsafe { _mm512_mul_ps(x, v) };
                // SAFETY: as above.
                *sum = unsafe { _mm512_add_ps(*sum, product) };
            }
        }

        #[inline(always)]
        fn write(self, out: &mut [f32; SLAB]) {
            for (i, part) in self.0.into_iter().enumerate() {
                // SAFETY: sixteen writable floats; the level has AVX-512 F.
                unsafe { _mm512_storeu_ps(out.as_mut_ptr().wrapping_add(16 * i), part) };
            }
        }
    }
}
