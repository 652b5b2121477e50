//! The alphabet of byte-level BPE: every byte as one printable character, so that vocabularies are valid text.
//!
//! Bytes 33–126, 161–172 and 174–255 stand for themselves; the other 68, in ascending order, become U+0100,
//! U+0101, … A space is thus `Ġ` (U+0120) and a line feed `Ċ` (U+010A).

/// The character that stands for `byte`.
pub fn byte_to_char(byte: u8) -> char {
    let below = match byte {
        33..=126 | 161..=172 | 174..=255 => return char::from(byte),
        0..=32 => u32::from(byte),
        127..=160 => 33 + u32::from(byte) - 127,
        173 => 67,
    };
    char::from_u32(0x100 + below).expect("U+0100 to U+0143 are characters")
}

/// The byte that `c` stands for, if it is a letter of the alphabet.
pub fn char_to_byte(c: char) -> Option<u8> {
    let code = u32::from(c);
    match code {
        33..=126 | 161..=172 | 174..=255 => u8::try_from(code).ok(),
        0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        0x121..=0x142 => u8::try_from(code - 0x121 + 127).ok(),
        0x143 => Some(173),
        _ => None,
    }
}

/// The raw bytes that `token` stands for; a character outside the alphabet stands for its own UTF-8.
pub fn token_bytes(token: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(token.len());
    for c in token.chars() {
        match char_to_byte(c) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_character_and_comes_back() {
        let mut seen = std::collections::HashSet::new();
        for byte in 0..=u8::MAX {
            let c = byte_to_char(byte);
            assert!(seen.insert(c), "{byte} shares {c:?} with another byte");
            assert_eq!(char_to_byte(c), Some(byte), "{c:?}");
            assert!(!c.is_whitespace() && !c.is_control(), "{byte} became {c:?}");
        }
        // Nothing else is a letter of the alphabet.
        let letters = (0..=0x10ffff)
            .filter_map(char::from_u32)
            .filter(|&c| char_to_byte(c).is_some());
        assert_eq!(letters.count(), 256);
    }

    #[test]
    fn the_moved_bytes_are_numbered_in_ascending_order() {
        let moved: Vec<u8> = (0..=u8::MAX)
            .filter(|&b| byte_to_char(b) != char::from(b))
            .collect();
        assert_eq!(moved.len(), 68);
        for (i, byte) in moved.into_iter().enumerate() {
            assert_eq!(u32::from(byte_to_char(byte)), 0x100 + i as u32);
        }
        assert_eq!(byte_to_char(b' '), 'Ġ');
        assert_eq!(byte_to_char(b'\n'), 'Ċ');
    }
}
