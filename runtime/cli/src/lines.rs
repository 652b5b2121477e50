//! Lines of standard input, which a signal can come between: they are read on a thread of their own, since a read
//! that waits for a person hears nothing.

use crate::signals;
use std::io::{self, BufRead as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

/// How often a wait looks at whether it is to end.
const LOOK: Duration = Duration::from_millis(20);

/// The lines of standard input as they come.
pub struct Lines(Receiver<io::Result<Vec<u8>>>);

impl Lines {
    /// Starts reading.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn of_stdin() -> io::Result<Self> {
        // No line is read before the one before it was taken.
        let (send, lines) = sync_channel(0);
        std::thread::Builder::new()
            .name("stdin".into())
            .spawn(move || {
                loop {
                    let mut line = Vec::new();
                    let read = io::stdin().lock().read_until(b'\n', &mut line);
                    let more = matches!(read, Ok(n) if n > 0);
                    if !more && read.is_ok() {
                        return;
                    }
                    if send.send(read.map(|_| line)).is_err() || !more {
                        return;
                    }
                }
            })?;
        Ok(Self(lines))
    }

    /// The next line; nothing at the end of the input, or when a signal asks to stop.
    ///
    /// # Errors
    /// When standard input cannot be read.
    pub fn next(&self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if signals::asked() {
                return Ok(None);
            }
            match self.0.recv_timeout(LOOK) {
                Ok(line) => return line.map(Some),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
            }
        }
    }
}
