//! Spoiling text and bytes that have no structure of their own.

use super::draw::Draw;

/// Texts that programs take for something else.
pub const AWKWARD: &[&str] = &[
    "",
    " ",
    "\0",
    "\u{1b}[2J\u{1b}]0;x\u{7}",
    "\u{202e}abc",
    "\u{fffd}\u{feff}",
    "é\u{301}",
    "👩‍👩‍👧",
    "▁",
    "Ġ",
    "<s>",
    "<|eot_id|>",
    "<0x0A>",
    "../../etc/passwd",
    "nan",
    "-1",
    "1e999",
    "9223372036854775808",
    "true",
    "null",
    "%n%s",
    "{{ x }}",
    "a\nb\r\nc",
];

/// A text: awkward, or letters.
pub fn text(draw: &mut Draw) -> String {
    if draw.one_in(2) {
        return (*draw.pick(AWKWARD)).to_owned();
    }
    let len = if draw.one_in(20) {
        draw.below(3000)
    } else {
        draw.below(12)
    };
    (0..len)
        .map(|_| *draw.pick(&['a', 'b', ' ', 'h', '▁', 'é', '\n', '0', '.']))
        .collect()
}

/// Changes bytes in place, cuts, drops or repeats a run; within the first `head` bytes.
pub fn damage(draw: &mut Draw, bytes: &mut Vec<u8>, head: usize) {
    let head = head.min(bytes.len());
    if head == 0 {
        return;
    }
    let at = draw.below(head);
    match draw.below(6) {
        0 => bytes[at] = draw.byte(),
        1 => bytes[at] ^= 1 << draw.below(8),
        2 => {
            let value = draw.number().to_le_bytes();
            let width = *draw.pick(&[2, 4, 8]);
            bytes
                .iter_mut()
                .skip(at)
                .zip(&value[..width])
                .for_each(|(b, v)| *b = *v);
        }
        3 => bytes.truncate(at),
        4 => {
            let end = (at + 1 + draw.below(40)).min(bytes.len());
            bytes.drain(at..end);
        }
        _ => {
            let end = (at + 1 + draw.below(40)).min(bytes.len());
            let run = bytes[at..end].to_vec();
            bytes.splice(at..at, run);
        }
    }
}
