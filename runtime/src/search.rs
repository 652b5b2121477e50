//! A set of texts that are looked for at one place of another text, all at once: a file may have any number of them.

/// Texts, each with a number.
#[derive(Default)]
pub struct TextSet {
    /// In order, each once.
    texts: Vec<(Box<str>, u32)>,
    /// Bytes that a text begins with.
    firsts: Vec<u8>,
}

impl TextSet {
    /// A set of texts with their numbers; of equal ones the lowest number counts, and an empty one is nowhere.
    pub fn new(texts: impl IntoIterator<Item = (Box<str>, u32)>) -> Self {
        let texts = texts.into_iter().filter(|(text, _)| !text.is_empty());
        let mut texts: Vec<_> = texts.collect();
        texts.sort_unstable();
        texts.dedup_by(|later, first| later.0 == first.0);
        let mut firsts: Vec<u8> = texts.iter().map(|(text, _)| text.as_bytes()[0]).collect();
        firsts.dedup();
        Self { texts, firsts }
    }

    /// Places where a text may begin.
    pub fn places<'a>(&'a self, text: &'a str) -> impl Iterator<Item = usize> + 'a {
        let starts = |(at, byte): (usize, u8)| match self.firsts.as_slice() {
            [] => None,
            [first] => (byte == *first).then_some(at),
            firsts => firsts.binary_search(&byte).is_ok().then_some(at),
        };
        // The first byte of a character is the middle of none.
        text.bytes().enumerate().filter_map(starts)
    }

    /// The longest text that `rest` begins with: its length and its number.
    pub fn longest(&self, mut rest: &str) -> Option<(usize, u32)> {
        loop {
            // Whatever begins `rest` comes before it, and so does all that lies between and begins alike.
            let n_before = self.texts.partition_point(|(text, _)| **text <= *rest);
            let (before, number) = &self.texts[n_before.checked_sub(1)?];
            if rest.starts_with(&**before) {
                return Some((before.len(), *number));
            }
            let letters = rest.char_indices().zip(before.chars());
            let same = letters.take_while(|&((_, a), b)| a == b).last();
            let ((at, c), _) = same?;
            rest = &rest[..at + c.len_utf8()];
        }
    }

    /// Whether a text begins with `part` and goes on.
    pub fn goes_on(&self, part: &str) -> bool {
        let n_before = self.texts.partition_point(|(text, _)| **text <= *part);
        let next = self.texts.get(n_before);
        !part.is_empty() && next.is_some_and(|(text, _)| text.starts_with(part))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(texts: &[String]) -> TextSet {
        TextSet::new(texts.iter().map(|text| text.as_str().into()).zip(0u32..))
    }

    proptest! {
        #[test]
        fn the_longest_is_found_wherever_one_begins(
            texts in proptest::collection::vec("[a<é>]{0,4}", 0..6),
            content in "[a<é>]{0,20}",
        ) {
            let set = set(&texts);
            let places: Vec<usize> = set.places(&content).collect();
            for (at, _) in content.char_indices() {
                let rest = &content[at..];
                let begins = texts.iter().filter(|text| !text.is_empty() && rest.starts_with(text.as_str()));
                let longest = begins.map(|text| text.len()).max();
                prop_assert_eq!(set.longest(rest).map(|(len, _)| len), longest);
                prop_assert!(longest.is_none() || places.contains(&at));
                let goes_on = texts.iter().any(|text| text.len() > rest.len() && text.starts_with(rest));
                prop_assert_eq!(set.goes_on(rest), goes_on);
            }
        }
    }

    #[test]
    fn of_equal_texts_the_lowest_number_counts() {
        let set = set(&["b".to_owned(), "a".to_owned(), "b".to_owned()]);
        assert_eq!(set.longest("bab"), Some((1, 0)));
        assert_eq!(TextSet::default().longest("a"), None);
    }

    #[test]
    fn a_hundred_thousand_texts_take_no_longer_than_one() {
        let texts: Vec<String> = (0..100_000).map(|i| format!("<|{i:05}|>")).collect();
        let set = set(&texts);
        let content = "<|0000 <|99999|> ".repeat(50_000);
        let found = set
            .places(&content)
            .filter_map(|at| set.longest(&content[at..]));
        assert!(found.eq(std::iter::repeat_n((9, 99_999), 50_000)));
    }
}
