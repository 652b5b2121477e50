#![expect(
    unsafe_code,
    reason = "takes the user's word for a file of code, as a shell does for a program"
)]
//! The pack that the user named: mapped once a run; one that cannot be used is said, and the next source of code is asked.

use crate::terminal::Terminal;
use bitnet_codegen::Features;
use bitnet_runtime::pack::Pack;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// The pack in `path` for a CPU with `features`, which the only `--pack` of this run names.
pub fn open(terminal: &Terminal, path: &Path, features: Features) -> Option<Arc<Pack>> {
    static OPENED: OnceLock<Option<Arc<Pack>>> = OnceLock::new();
    let opened = OPENED.get_or_init(|| {
        // SAFETY: the user names the file as code to run, and trusts it as any program that they start by its name;
        // that it must not change meanwhile is as true of those.
        match unsafe { Pack::open(path, features) } {
            Ok(pack) => Some(Arc::new(pack)),
            Err(why) => {
                terminal.note(&format!("note: {why}; its kernels are not used"));
                None
            }
        }
    });
    opened.clone()
}
