//! A tokenizer for models that never learned one: every byte, a few English pieces so that merging
//! is exercised, and made-up words up to the size of the vocabulary, so that output can be read.

use crate::format::GgufWriter;
use crate::vocab::TokenType;

/// Merges in rank order; each result becomes a token.
const MERGES: [&str; 10] = [
    "i n", "t h", "h e", "Ġ a", "Ġ t", "Ġt h", "Ġth e", "a n", "o n", "r e",
];

/// The last three ids.
const SPECIALS: [&str; 3] = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"];

const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}{{ m['role'] | capitalize }}: \
    {{ m['content'] }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}Assistant: {% endif %}";

/// The characters that stand for bytes in byte-level BPE (GPT-2): printable Latin-1 stands for
/// itself, the others in ascending order for U+0100 on.
fn byte_chars() -> Vec<char> {
    let mut next = 0x100;
    let char_of = |b: u32| match b {
        33..=126 | 161..=172 | 174..=255 => b,
        _ => {
            next += 1;
            next - 1
        }
    };
    (0..256).map(char_of).filter_map(char::from_u32).collect()
}

/// The i-th made-up word: two or more syllables, no two alike.
fn word(mut i: usize) -> String {
    const FIRST: &[u8] = b"bdfgklmnprstvzjh";
    const VOWELS: &[u8] = b"aeiou";
    let base = FIRST.len() * VOWELS.len();
    // Counted in syllables without a zero, every number is a different word.
    i += base;
    let mut syllables = Vec::new();
    loop {
        syllables.push([
            FIRST[i % base / VOWELS.len()] as char,
            VOWELS[i % VOWELS.len()] as char,
        ]);
        i /= base;
        if i == 0 {
            break;
        }
        i -= 1;
    }
    std::iter::once('Ġ')
        .chain(syllables.into_iter().rev().flatten())
        .collect()
}

/// The tokens in id order. `vocab` leaves room for bytes, merges and specials.
fn tokens(vocab: usize) -> Vec<String> {
    let mut tokens: Vec<String> = byte_chars().into_iter().map(String::from).collect();
    tokens.extend(MERGES.map(|m| m.replace(' ', "")));
    let n_words = vocab - tokens.len() - SPECIALS.len();
    tokens.extend((0..n_words).map(word));
    tokens.extend(SPECIALS.map(String::from));
    tokens
}

/// Writes the tokenizer's keys.
pub(super) fn tokenizer_keys(w: &mut GgufWriter, vocab: usize) {
    let tokens = tokens(vocab);
    let specials = vocab - SPECIALS.len();
    let kind = |id: usize| {
        if id < specials {
            TokenType::Normal
        } else {
            TokenType::Control
        }
    };
    let types: Vec<i32> = (0..vocab).map(|id| kind(id) as i32).collect();
    w.str("tokenizer.ggml.model", "gpt2");
    w.str("tokenizer.ggml.pre", "llama-bpe");
    w.strings("tokenizer.ggml.tokens", &tokens);
    w.i32s("tokenizer.ggml.token_type", &types);
    w.strings("tokenizer.ggml.merges", &MERGES);
    w.u32("tokenizer.ggml.bos_token_id", specials);
    w.u32("tokenizer.ggml.eos_token_id", specials + 1);
    w.u32("tokenizer.ggml.eot_token_id", specials + 2);
    w.bool("tokenizer.ggml.add_bos_token", true);
    w.str("tokenizer.chat_template", TEMPLATE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_distinct_and_as_many_as_asked_for() {
        for vocab in [512, 32_002, 131_072] {
            let tokens = tokens(vocab);
            assert_eq!(tokens.len(), vocab);
            let distinct: std::collections::HashSet<_> = tokens.iter().collect();
            assert_eq!(
                distinct.len(),
                vocab,
                "tokens of a vocabulary of {vocab} are distinct"
            );
        }
        assert_eq!(byte_chars().len(), 256);
        assert_eq!(byte_chars()[b' ' as usize], 'Ġ');
    }
}
