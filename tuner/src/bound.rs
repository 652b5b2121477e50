//! The roofline: how fast a product can be at best, given what this machine was measured to do.

/// What the machine can do with a given number of threads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peaks {
    /// Memory read bandwidth.
    pub read_gb_per_s: f64,
    /// int8 multiply-accumulates by the dot-product instruction.
    pub dot_gmac_per_s: f64,
}

/// The floor of a product's time, and which side sets it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Floor {
    /// Nanoseconds that no kernel of this kind should undercut.
    pub ns: f64,
    /// Whether memory (and not the dot-product unit) sets it.
    pub memory_bound: bool,
}

/// The floor of a product of `macs` byte multiply-accumulates with `weight_bytes` of packed weights read once.
///
/// Kernels that look sums up instead of multiplying may pass the compute side: the fraction is
/// reported as it is, never clamped.
pub fn floor(macs: u64, weight_bytes: usize, cold: bool, peaks: Peaks) -> Floor {
    let memory = if cold {
        weight_bytes as f64 / peaks.read_gb_per_s
    } else {
        0.0
    };
    let compute = macs as f64 / peaks.dot_gmac_per_s;
    Floor {
        ns: memory.max(compute),
        memory_bound: memory >= compute,
    }
}

/// `floor / measured`: 1 is the roofline.
pub fn fraction(floor: Floor, measured_ns: f64) -> f64 {
    floor.ns / measured_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEAKS: Peaks = Peaks {
        read_gb_per_s: 40.0,
        dot_gmac_per_s: 500.0,
    };

    #[test]
    fn decode_is_bound_by_memory_and_prefill_by_arithmetic() {
        let bytes = 6912 * 2560 / 4;
        let decode = floor(6912 * 2560, bytes, true, PEAKS);
        assert!(decode.memory_bound);
        assert_eq!(decode.ns, bytes as f64 / 40.0);
        let prefill = floor(128 * 6912 * 2560, bytes, true, PEAKS);
        assert!(!prefill.memory_bound);
        assert_eq!(fraction(prefill, 2.0 * prefill.ns), 0.5);
        assert!(
            !floor(64 * 64, 1024, false, PEAKS).memory_bound,
            "hot weights cost no reads"
        );
    }
}
