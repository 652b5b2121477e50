//! Signals, for the binaries alone: the library installs no handler. Work that looks at [`STOP`] holds a [`Watch`];
//! then the first INT, TERM or HUP asks it to stop and keep what is known. Where nobody looks (a model is being
//! loaded, a pipe blocks) and for a second signal the program ends at once. Whatever ends it, files that
//! are half written are removed, and the exit status is that of the signal.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

/// Set by INT, TERM and HUP; whoever holds a [`Watch`] looks at it between two steps.
pub static STOP: AtomicBool = AtomicBool::new(false);

/// The signal that set [`STOP`]; 0 before.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// Whether the work saw [`STOP`] and left something out for it.
static CUT: AtomicBool = AtomicBool::new(false);

/// How many [`Watch`]es are held.
static WATCHES: AtomicUsize = AtomicUsize::new(0);

/// Writes to standard output begun and ended: while they differ, nobody looks at [`STOP`].
static WRITES_BEGUN: AtomicUsize = AtomicUsize::new(0);
static WRITES_ENDED: AtomicUsize = AtomicUsize::new(0);

/// Held by work that looks at [`STOP`] between two steps.
#[must_use = "dropped at once, nothing is watched"]
pub struct Watch(());

/// From here on the work looks at [`STOP`].
pub fn watch() -> Watch {
    WATCHES.fetch_add(1, Ordering::SeqCst);
    Watch(())
}

impl Drop for Watch {
    fn drop(&mut self) {
        WATCHES.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Whether the work is to stop. A `true` counts as seen: the work is cut short.
pub fn asked() -> bool {
    let asked = STOP.load(Ordering::SeqCst);
    if asked {
        CUT.store(true, Ordering::SeqCst);
    }
    asked
}

/// For a conversation: whether a Ctrl-C stopped the answer and no more than that. It is forgotten then.
pub fn was_only_ctrl_c() -> bool {
    let only = STOP.load(Ordering::SeqCst) && SIGNAL.load(Ordering::SeqCst) == INTERRUPT;
    if only {
        STOP.store(false, Ordering::SeqCst);
    }
    only
}

/// The exit code of work that was cut short: 128 and the number of the signal.
pub fn cut() -> Option<ExitCode> {
    let code = 128u8.wrapping_add(SIGNAL.load(Ordering::SeqCst) as u8);
    CUT.load(Ordering::SeqCst).then(|| ExitCode::from(code))
}

/// Writes to standard output, which may block as long as its reader likes.
pub(crate) fn while_writing<T>(write: impl FnOnce() -> T) -> T {
    WRITES_BEGUN.fetch_add(1, Ordering::SeqCst);
    let result = write();
    WRITES_ENDED.fetch_add(1, Ordering::SeqCst);
    result
}

/// SIGINT, wherever there are signals.
const INTERRUPT: i32 = 2;

#[cfg(unix)]
pub use unix::install;

#[cfg(not(unix))]
/// Without signals the system ends the program.
pub fn install() {}

#[cfg(unix)]
mod unix {
    use super::{Ordering, SIGNAL, STOP, WATCHES, WRITES_BEGUN, WRITES_ENDED};
    use bitnet_runtime::new_file::remove_unfinished;
    use signal_hook::consts::signal::*;
    use signal_hook::iterator::Signals;
    use signal_hook::low_level::emulate_default_handler;
    use std::io::Write as _;
    use std::thread;
    use std::time::Duration;

    /// They ask a program to stop.
    const ASKING: &[i32] = &[SIGINT, SIGTERM, SIGHUP];

    /// They end a program that does nothing about them.
    const ENDING: &[i32] = &[
        SIGQUIT, SIGABRT, SIGALRM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGPROF, SIGXCPU, SIGXFSZ,
    ];

    /// A program whose reader takes nothing for this long does not come to its next look at [`STOP`].
    const PATIENCE: Duration = Duration::from_secs(1);

    /// How long a program may take to tell of a failure before the signal that comes with it ends it.
    const LAST_WORDS: Duration = Duration::from_millis(100);

    /// Starts listening; what the caller was told to ignore (by `nohup`, say) stays ignored.
    pub fn install() {
        let ignored = ignored();
        let wanted: Vec<i32> = [ASKING, ENDING]
            .concat()
            .into_iter()
            .filter(|signal| ignored & (1 << (signal - 1)) == 0)
            .collect();
        // The thread comes first: signals that are caught and then heard by nobody would be lost.
        let (ready, is_ready) = std::sync::mpsc::channel();
        let listener = thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                let signals = Signals::new(wanted);
                let heard = signals.as_ref().map(drop).map_err(ToString::to_string);
                // Whoever started this thread waits for the word.
                let _ = ready.send(heard);
                if let Ok(signals) = signals {
                    listen(signals);
                }
            });
        let heard = match listener {
            Ok(_) => is_ready.recv().unwrap_or(Ok(())),
            Err(e) => Err(e.to_string()),
        };
        if let Err(e) = heard {
            let _ = writeln!(
                std::io::stderr(),
                "note: a signal ends the program at once: {e}"
            );
        }
    }

    /// The signals that are ignored, a bit each, where the system tells.
    fn ignored() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status
            .lines()
            .find_map(|line| line.strip_prefix("SigIgn:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.unwrap_or(0)
    }

    fn listen(mut signals: Signals) {
        for signal in signals.forever() {
            if ASKING.contains(&signal) {
                SIGNAL.store(signal, Ordering::SeqCst);
                let again = STOP.swap(true, Ordering::SeqCst);
                if again || WATCHES.load(Ordering::SeqCst) == 0 {
                    end(signal);
                }
                end_if_blocked(signal);
            } else {
                if signal == SIGXFSZ {
                    // The write that was too much fails as well, and its error says more.
                    thread::sleep(LAST_WORDS);
                }
                remove_unfinished();
                // It does not return for a signal that ends programs.
                let _ = emulate_default_handler(signal);
            }
        }
    }

    fn end(signal: i32) -> ! {
        remove_unfinished();
        std::process::exit(128 + signal)
    }

    /// Ends the program if it is within one and the same write for as long as [`PATIENCE`].
    fn end_if_blocked(signal: i32) {
        let state = || {
            let ended = WRITES_ENDED.load(Ordering::SeqCst);
            (WRITES_BEGUN.load(Ordering::SeqCst), ended)
        };
        let watchdog = move || {
            // A write that is to come may be the one that blocks: it is looked at when it has begun.
            thread::sleep(PATIENCE);
            let before = state();
            thread::sleep(PATIENCE);
            if before.0 != before.1 && state() == before {
                end(signal);
            }
        };
        // Without a thread a second signal still ends the program.
        let _ = thread::Builder::new().spawn(watchdog);
    }
}
