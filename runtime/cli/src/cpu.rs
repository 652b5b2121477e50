//! What kernels may use of this CPU: what it announces and does not fault on.

use crate::terminal::Terminal;
use bitnet_codegen::Features;
use bitnet_runtime::proven::proven;
use std::sync::OnceLock;

/// Tries what the CPU announces, once a run, and says what was struck off.
pub fn features(terminal: &Terminal) -> Features {
    static PROVEN: OnceLock<Features> = OnceLock::new();
    *PROVEN.get_or_init(|| {
        let proven = proven();
        if let Some(note) = proven.note() {
            terminal.note(&format!("note: {note}"));
        }
        proven.features
    })
}
