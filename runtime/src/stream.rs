//! Bytes of tokens in, text for a terminal out: whole characters only, and nothing of a stop string.

/// Joins the bytes that tokens print into valid UTF-8, and watches for stop strings.
///
/// A character that is still incomplete is held back, and so is text that may be the beginning of a stop string.
/// Bytes that can no longer become a character are U+FFFD.
#[derive(Clone, Debug, Default)]
pub struct TextStream {
    /// The start of a character.
    bytes: Vec<u8>,
    /// Text that may be the start of a stop string.
    held: String,
    stops: Vec<String>,
    stopped: bool,
}

impl TextStream {
    /// A stream that ends before the first of `stops`; empty ones are ignored.
    pub fn new(stops: impl IntoIterator<Item = String>) -> Self {
        Self {
            stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect(),
            ..Self::default()
        }
    }

    /// Whether a stop string has come; nothing is printed from then on.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Takes the bytes of a token and appends to `out` what may be printed now.
    pub fn push(&mut self, bytes: &[u8], out: &mut String) {
        if self.stopped {
            return;
        }
        self.bytes.extend_from_slice(bytes);
        self.take_characters();
        self.release(out);
    }

    /// Appends what was held back; an incomplete character becomes U+FFFD.
    pub fn finish(&mut self, out: &mut String) {
        if self.stopped {
            return;
        }
        let rest = String::from_utf8_lossy(&self.bytes);
        self.held.push_str(&rest);
        self.bytes.clear();
        self.release(out);
        out.push_str(&self.held);
        self.held.clear();
    }

    /// Moves complete characters from `bytes` to `held`.
    fn take_characters(&mut self) {
        let mut done = 0;
        while done < self.bytes.len() {
            match std::str::from_utf8(&self.bytes[done..]) {
                Ok(text) => {
                    self.held.push_str(text);
                    done = self.bytes.len();
                }
                Err(error) => {
                    let valid = done + error.valid_up_to();
                    self.held
                        .push_str(&String::from_utf8_lossy(&self.bytes[done..valid]));
                    done = valid;
                    let Some(bad) = error.error_len() else { break };
                    self.held.push(char::REPLACEMENT_CHARACTER);
                    done += bad;
                }
            }
        }
        self.bytes.drain(..done);
    }

    /// Moves text from `held` to `out`, up to a stop string or what may become one.
    fn release(&mut self, out: &mut String) {
        let first_stop = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()))
            .min();
        if let Some(at) = first_stop {
            out.push_str(&self.held[..at]);
            self.held.clear();
            self.bytes.clear();
            self.stopped = true;
            return;
        }
        let safe = (0..=self.held.len())
            .filter(|&at| self.held.is_char_boundary(at))
            .find(|&at| {
                self.stops
                    .iter()
                    .any(|stop| stop.starts_with(&self.held[at..]))
            })
            .unwrap_or(self.held.len());
        out.push_str(&self.held[..safe]);
        self.held.drain(..safe);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stream(pieces: &[&[u8]], stops: &[&str]) -> (Vec<String>, bool) {
        let mut stream = TextStream::new(stops.iter().map(|&stop| stop.to_owned()));
        let mut printed = Vec::new();
        for piece in pieces {
            let mut out = String::new();
            stream.push(piece, &mut out);
            printed.push(out);
        }
        let mut out = String::new();
        stream.finish(&mut out);
        printed.push(out);
        (printed, stream.stopped())
    }

    #[test]
    fn characters_wait_until_they_are_whole() {
        let (printed, _) = stream(&[b"a\xe6", b"\x97", b"\xa5b", b"\xf0\x9f"], &[]);
        assert_eq!(printed, ["a", "", "日b", "", "\u{fffd}"]);
        // A byte that cannot go on is replaced at once.
        let (printed, _) = stream(&[b"\xe6\x97", b"x"], &[]);
        assert_eq!(printed, ["", "\u{fffd}x", ""]);
    }

    #[test]
    fn stop_strings_and_their_beginnings_are_held_back() {
        let (printed, stopped) = stream(&[b"Hi\nUs", b"er", b": you"], &["\nUser:"]);
        assert_eq!((printed.concat().as_str(), stopped), ("Hi", true));
        let (printed, stopped) = stream(&[b"Hi\nUs", b"ed"], &["\nUser:"]);
        assert_eq!(printed, ["Hi", "\nUsed", ""]);
        assert!(!stopped);
        let (printed, stopped) = stream(&[b"Hi\nUs"], &["\nUser:"]);
        assert_eq!((printed.concat().as_str(), stopped), ("Hi\nUs", false));
        // The earliest of several wins; nothing comes after it.
        let (printed, stopped) = stream(&[b"a.b;c", b"d"], &[";", ".", ""]);
        assert_eq!((printed.concat().as_str(), stopped), ("a", true));
    }

    proptest! {
        #[test]
        fn any_cutting_prints_the_same(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), proptest::sample::select("aé日🙂".as_bytes().to_vec())], 0..40),
            cuts in proptest::collection::vec(0usize..40, 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let (printed, _) = stream(&pieces, &[]);
            prop_assert_eq!(printed.concat(), String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn stops_end_the_text_wherever_it_is_cut(
            text in "[abé]{0,20}",
            stop in "[abé]{1,4}",
            cuts in proptest::collection::vec(0usize..40, 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
            let (printed, stopped) = stream(&pieces, &[&stop]);
            let expected = text.split(stop.as_str()).next().unwrap();
            prop_assert_eq!(printed.concat(), expected);
            prop_assert_eq!(stopped, text.contains(&stop));
        }
    }
}
