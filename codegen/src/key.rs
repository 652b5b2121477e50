//! [`Key`]: what a piece of code is found by, whoever emitted it and wherever it lies: a hash of the convention, of the
//! instruction set and of the whole text of the program.
//!
//! The text says everything that a program is but for how many values it numbers, so two programs of one key are one
//! program. It does not say which encodings were chosen: what code asks of the CPU is kept beside the key.

use crate::abi::ABI;
use crate::isa::{Arch, Isa};
use crate::program::Program;
use sha2::{Digest, Sha256};
use std::fmt::{self, Display, Formatter, Write};
use std::str::FromStr;

/// SHA-256 of what code computes and how it is called.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key([u8; 32]);

/// Text that is hashed as it comes.
struct Hashed(Sha256);

impl Write for Hashed {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text);
        Ok(())
    }
}

impl Key {
    /// Of the code of `program` for `isa`.
    pub fn of(isa: Isa, program: &Program) -> Self {
        Self::hash(format_args!("{ABI}\n{isa}\n{program}"))
    }

    /// Of the stub that prefetches `lines` lines on `arch`.
    pub fn of_stub(arch: Arch, lines: usize) -> Self {
        Self::hash(format_args!("{ABI}\n{}\nprefetch {lines}", arch.name()))
    }

    fn hash(text: fmt::Arguments<'_>) -> Self {
        let mut hash = Hashed(Sha256::new());
        hash.write_fmt(text).expect("hashing does not fail");
        Self(hash.0.finalize().into())
    }
}

impl Display for Key {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

/// Text that is no [`Key`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no key: 64 hexadecimal digits are")]
pub struct BadKey(pub String);

impl FromStr for Key {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let bad = || BadKey(text.chars().take(64).collect());
        let digits: Vec<u8> = text
            .chars()
            .map(|c| c.to_digit(16).map(|d| d as u8).ok_or_else(bad))
            .collect::<Result<_, _>>()?;
        let bytes: Vec<u8> = digits
            .chunks(2)
            .map(|d| 16 * d[0] + d.get(1).unwrap_or(&0))
            .collect();
        match (digits.len(), bytes.try_into()) {
            (64, Ok(bytes)) => Ok(Self(bytes)),
            _ => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::KernelSpec;
    use crate::variant::plan;

    #[test]
    fn a_key_tells_programs_and_instruction_sets_apart_and_survives_its_text() {
        let program = |text: &str, k| {
            let spec: KernelSpec = text.parse().expect("a spec");
            plan(&spec, k).expect("it exists").main.remove(0).1
        };
        let base = program("i2s-i2s-1x16c16-avx2-f0-u1", 64);
        let key = Key::of(Isa::Avx2, &base);
        assert_eq!(
            key,
            Key::of(Isa::Avx2, &program("i2s-i2s-1x16c16-avx2-f0-u1", 64))
        );
        assert_eq!(key.to_string().parse(), Ok(key));
        let mut consts = base.clone();
        consts.consts.push(0);
        for other in [
            Key::of(Isa::AvxVnni, &base),
            Key::of(Isa::Avx2, &program("i2s-i2s-1x16c16-avx2-f0-u1", 80)),
            Key::of(Isa::Avx2, &program("i2s-i2s-1x16c16-avx2-f1-u1", 64)),
            Key::of(Isa::Avx2, &consts),
            Key::of_stub(Arch::X86_64, 1),
        ] {
            assert_ne!(key, other);
        }
        for bad in ["", "abc", &"g".repeat(64), &"0".repeat(63), &"0".repeat(66)] {
            assert!(bad.parse::<Key>().is_err(), "{bad}");
        }
    }
}
