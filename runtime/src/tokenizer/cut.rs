//! Cutting text at the matches of a regular expression, however long its runs of white space are, and never for long.
//!
//! `\s+(?!\S)` is the one look-ahead of all pre-tokenisers. A backtracking engine keeps a stack entry per space and
//! gives up on long runs; the `tokenizers` crate then leaves the rest of the text uncut and says nothing. Here the
//! run is matched without look-ahead by a linear engine, and its last space is given back where text follows.
//!
//! Expressions come from files. Their size is bounded when they are compiled; when they run, backtracking is bounded
//! a match and time a text ([`Watch`]), since matches that each look far ahead add up even on a linear engine.

use std::time::{Duration, Instant};

use fancy_regex::{Regex, RegexBuilder};

use super::error::{TokenizerError, shorten};

/// How expressions of this family end, and what they end in here: a white run that reaches text leaves it one space.
const ENDINGS: [&str; 2] = [r"|\s+(?!\S)|\s+", r"|\s+(?!\S)"];
const RUN: &str = r"|(?<white_run>\s+)";

/// Bytes of an expression that are compiled; those of models have some hundred.
const MAX_REGEX_BYTES: usize = 8 << 10;

/// The same for an expression that needs backtracking, whose every part is compiled for itself.
const MAX_FANCY_BYTES: usize = 512;

/// What a compiled part may take, and its cache.
const COMPILED_BYTES: usize = 2 << 20;
const FANCY_PART_BYTES: usize = 256 << 10;

/// Marks of [`FANCY_MARKS`] in one expression; those of models have one or two. Each makes a part, and even one that is
/// found too large takes some ten milliseconds to compile.
const MAX_FANCY_MARKS: usize = 12;

/// Steps back that one match may take.
const BACKTRACKS: usize = 100_000;

/// Marks of what only a backtracking engine can do. One too many costs nothing but the tighter limits.
const FANCY_MARKS: [&str; 13] = [
    "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?(", "\\k", "\\g", "\\G", "\\K", "*+", "++", "?+",
];

/// Marks of what may need the backtracking engine; without one the linear engine does.
fn fancy_marks(regex: &str) -> usize {
    let backreference = |pair: &[u8]| pair[0] == b'\\' && pair[1].is_ascii_digit();
    // `{2,3}+`, but not `\p{L}+`.
    let possessive =
        |three: &[u8]| three[1..] == *b"}+" && (three[0].is_ascii_digit() || three[0] == b',');
    let marks = FANCY_MARKS.iter().map(|mark| regex.matches(mark).count());
    marks.sum::<usize>()
        + regex
            .as_bytes()
            .windows(2)
            .filter(|w| backreference(w))
            .count()
        + regex
            .as_bytes()
            .windows(3)
            .filter(|w| possessive(w))
            .count()
}

/// Where matches and gaps lie, in order, covering the text; true for matches.
pub type Matches = Vec<((usize, usize), bool)>;

/// How long the expressions of one text may take. No text of a sane tokenizer comes near it.
pub struct Watch {
    since: Instant,
    allowed: Duration,
}

impl Watch {
    /// Starts the clock: one second, and ten microseconds a byte.
    pub fn start(text_bytes: usize) -> Self {
        let bytes = u64::try_from(text_bytes).unwrap_or(u64::MAX);
        Self {
            since: Instant::now(),
            allowed: Duration::from_secs(1) + Duration::from_micros(bytes.saturating_mul(10)),
        }
    }

    fn expired(&self) -> bool {
        self.since.elapsed() > self.allowed
    }
}

/// A regular expression whose matches and gaps are pieces.
pub struct Cutter {
    regex: Regex,
    /// Whether the expression was changed to match whole runs, and whether it matched lone spaces before text.
    run: Option<LoneSpace>,
    /// Looks at the clock after each match, not after each few.
    fancy: bool,
    /// Whose expression it is, for messages.
    label: String,
    source: String,
}

/// What the expression makes of one white character that text follows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LoneSpace {
    Match,
    Gap,
}

impl Cutter {
    /// Compiles `regex`; `label` says in messages whose it is.
    ///
    /// # Errors
    /// When it is not a regular expression, or compiles only into something too large.
    pub fn new(label: &str, regex: &str) -> Result<Self, TokenizerError> {
        let refuse = |why: String| TokenizerError::Regex {
            stage: label.to_owned(),
            regex: shorten(regex),
            why,
        };
        let ending = ENDINGS.iter().find_map(|ending| regex.strip_suffix(ending));
        let (linear, run) = match ending {
            Some(rest) if regex.ends_with(ENDINGS[0]) => {
                (format!("{rest}{RUN}"), Some(LoneSpace::Match))
            }
            Some(rest) => (format!("{rest}{RUN}"), Some(LoneSpace::Gap)),
            None => (regex.to_owned(), None),
        };
        let marks = fancy_marks(&linear);
        let fancy = marks > 0;
        let (max_bytes, part_bytes) = match fancy {
            true => (MAX_FANCY_BYTES, FANCY_PART_BYTES),
            false => (MAX_REGEX_BYTES, COMPILED_BYTES),
        };
        if linear.len() > max_bytes {
            let why = format!("it has {} bytes, more than {max_bytes}", linear.len());
            return Err(refuse(why));
        }
        if marks > MAX_FANCY_MARKS {
            let why = format!("it looks around or back {marks} times, more than {MAX_FANCY_MARKS}");
            return Err(refuse(why));
        }
        let regex_of_parts = RegexBuilder::new(&linear)
            .backtrack_limit(BACKTRACKS)
            .delegate_size_limit(part_bytes)
            .delegate_dfa_size_limit(part_bytes)
            .build()
            .map_err(|error| refuse(error.to_string()))?;
        Ok(Self {
            regex: regex_of_parts,
            run,
            fancy,
            label: label.to_owned(),
            source: shorten(regex),
        })
    }

    /// The first match at or after `from`: where it lies, and whether the expression as given matches there.
    fn find(&self, text: &str, from: usize) -> fancy_regex::Result<Option<(usize, usize, bool)>> {
        let Some(found) = self.regex.find_from_pos(text, from)? else {
            return Ok(None);
        };
        let (start, end) = (found.start(), found.end());
        let Some(lone) = self.run else {
            return Ok(Some((start, end, true)));
        };
        if end == text.len() || !found.as_str().chars().all(char::is_whitespace) {
            return Ok(Some((start, end, true)));
        }
        let groups = self.regex.captures_from_pos(text, start)?;
        if groups.is_none_or(|groups| groups.name("white_run").is_none()) {
            return Ok(Some((start, end, true)));
        }
        let last = found.as_str().chars().next_back().map_or(0, char::len_utf8);
        Ok(Some(match end - last > start {
            true => (start, end - last, true),
            false => (start, end, lone == LoneSpace::Match),
        }))
    }

    /// All matches and gaps of `text`.
    ///
    /// # Errors
    /// When the expression takes too long.
    pub fn matches(&self, text: &str, watch: &Watch) -> Result<Matches, TokenizerError> {
        if text.is_empty() {
            return Ok(vec![((0, 0), false)]);
        }
        let gave_up = |why: &str| TokenizerError::Slow {
            stage: self.label.clone(),
            regex: self.source.clone(),
            why: why.to_owned(),
        };
        let (mut pieces, mut done, mut from) = (Vec::new(), 0, 0);
        for n_found in 0usize.. {
            let found = self
                .find(text, from)
                .map_err(|error| gave_up(&error.to_string()))?;
            // Looking at the clock costs as much as a short match.
            if (self.fancy || n_found % 16 == 15) && watch.expired() {
                return Err(gave_up("too much time"));
            }
            let Some((start, end, matches)) = found else {
                break;
            };
            if !matches {
                from = end;
                continue;
            }
            if start > done {
                pieces.push(((done, start), false));
            }
            let after_a_match = matches!(pieces.last(), Some(((_, last), true)) if *last == start);
            if end > start || !after_a_match {
                pieces.push(((start, end), true));
            }
            (done, from) = (end, end);
            if end == start {
                // A match of nothing cuts there, or is replaced, and the search moves on.
                let step = text[end..].chars().next().map(char::len_utf8);
                let Some(step) = step else { break };
                from = end + step;
            }
        }
        if done < text.len() {
            pieces.push(((done, text.len()), false));
        }
        Ok(pieces)
    }
}

#[cfg(test)]
mod tests {
    use tokenizers::tokenizer::pattern::Pattern as _;

    use super::*;

    fn matches(cutter: &Cutter, text: &str) -> Matches {
        cutter.matches(text, &Watch::start(text.len())).unwrap()
    }

    /// The same cuts as the expression itself, run by the backtracking engine.
    #[test]
    fn the_linear_form_cuts_as_the_expression_does() {
        use proptest::prelude::*;
        let expressions = [
            r"\p{L}+|\s*[\r\n]+|\s+(?!\S)|\s+",
            r" ?\p{L}+| ?[^\s\p{L}]+|\s+(?!\S)",
            r"x|\s+(?!\S)",
        ];
        for expression in expressions {
            let cutter = Cutter::new("a test", expression).unwrap();
            assert!(cutter.run.is_some() && !cutter.fancy);
            let regex = Regex::new(expression).unwrap();
            proptest!(|(text in "[ \n\r\ta.\u{a0}\u{2003}x]{0,20}")| {
                prop_assert_eq!(matches(&cutter, &text), (&regex).find_matches(&text).unwrap());
            });
        }
    }

    #[test]
    fn expressions_that_match_nothing_end() {
        let cutter = Cutter::new("a test", "x*").unwrap();
        let pieces = matches(&cutter, "axxé");
        assert_eq!(pieces.first().unwrap().0.0, 0);
        assert_eq!(pieces.last().unwrap().0.1, "axxé".len());
        for pair in pieces.windows(2) {
            assert_eq!(pair[0].0.1, pair[1].0.0, "{pieces:?}");
        }
        let regex = Regex::new("x*").unwrap();
        for text in ["axxé", "", "x", "ax", "日xx"] {
            let theirs = (&regex).find_matches(text).unwrap();
            assert_eq!(matches(&cutter, text), theirs, "{text}");
        }
    }
}
