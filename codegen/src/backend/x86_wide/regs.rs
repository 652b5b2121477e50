//! Register files: who owns which register, and the most that were ever needed at once.

use iced_x86::Register;

/// Registers of one kind. Numbers past the real ones may be handed out, so that the attempt runs to its
/// end and says how many registers it would take.
pub(super) struct File {
    owned: Vec<bool>,
    /// Registers that a loop's parameter will come back to; others avoid them while there is choice.
    reserved: Vec<u32>,
    live: usize,
    /// The most registers owned at once.
    pub peak: usize,
    /// The highest number handed out, plus one.
    pub used: usize,
}

impl File {
    /// `limit` free registers.
    pub fn new(limit: usize) -> Self {
        Self {
            owned: vec![false; limit],
            reserved: vec![0; limit],
            live: 0,
            peak: 0,
            used: 0,
        }
    }

    /// Whether register `r` is free.
    pub fn is_free(&self, r: usize) -> bool {
        !self.owned[r]
    }

    /// Takes `r`, which must be free.
    pub fn take(&mut self, r: usize) {
        assert!(!self.owned[r], "register {r} is taken");
        self.owned[r] = true;
        self.live += 1;
        self.peak = self.peak.max(self.live);
        self.used = self.used.max(r + 1);
    }

    /// Takes `wish` if it is free, else a register that nobody waits for, else any.
    pub fn get(&mut self, wish: Option<usize>) -> usize {
        let free = |r: &usize| !self.owned[*r];
        let r = wish
            .filter(free)
            .or_else(|| (0..self.owned.len()).find(|r| free(r) && self.reserved[*r] == 0))
            .or_else(|| (0..self.owned.len()).find(free));
        let r = r.unwrap_or_else(|| {
            self.owned.push(false);
            self.reserved.push(0);
            self.owned.len() - 1
        });
        self.take(r);
        r
    }

    /// Gives `r` back.
    pub fn give(&mut self, r: usize) {
        assert!(self.owned[r], "register {r} is free already");
        self.owned[r] = false;
        self.live -= 1;
    }

    /// Asks others to avoid `r`.
    pub fn reserve(&mut self, r: usize) {
        self.reserved[r] += 1;
    }

    /// Ends [`Self::reserve`].
    pub fn unreserve(&mut self, r: usize) {
        self.reserved[r] -= 1;
    }
}

/// General registers in the order of use: those that a callee may change first. `rdi` holds the argument.
const GENERAL: [Register; 14] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RSI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
    Register::RBX,
    Register::RBP,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];

/// How many of [`general`] may be changed without saving.
const SCRATCH: usize = 8;

/// How many general registers there are.
pub(super) const GENERAL_COUNT: usize = GENERAL.len();

/// General register `n`, 64 bits.
pub(super) fn general(n: usize) -> Register {
    GENERAL[n % GENERAL.len()]
}

/// The registers to save when the first `used` were handed out.
pub(super) fn to_save(used: usize) -> &'static [Register] {
    &GENERAL[SCRATCH..used.clamp(SCRATCH, GENERAL.len())]
}

/// The low byte of a general register.
pub(super) fn low8(r: Register) -> Register {
    use Register::*;
    const LOW: [Register; 14] = [
        AL, CL, DL, SIL, R8L, R9L, R10L, R11L, BL, BPL, R12L, R13L, R14L, R15L,
    ];
    let n = GENERAL.iter().position(|&g| g == r);
    LOW[n.expect("a general register that is handed out")]
}
