//! Cutting text at the matches of a regular expression, however long its runs of white space are.
//!
//! `\s+(?!\S)` is the one look-ahead of all pre-tokenisers. A backtracking engine keeps a stack entry per space and
//! gives up on long runs; the `tokenizers` crate then leaves the rest of the text uncut and says nothing. Here the
//! run is matched without look-ahead by a linear engine, and its last space is given back where text follows.

use fancy_regex::Regex;
use tokenizers::tokenizer::pattern::Pattern;

/// How expressions of this family end, and what they end in here: a white run that reaches text leaves it one space.
const ENDINGS: [&str; 2] = [r"|\s+(?!\S)|\s+", r"|\s+(?!\S)"];
const RUN: &str = r"|(?<white_run>\s+)";

/// A regular expression whose matches and gaps are pieces.
pub struct Cutter {
    regex: Regex,
    /// Whether the expression was changed to match whole runs, and whether it matched lone spaces before text.
    run: Option<LoneSpace>,
}

/// What the expression makes of one white character that text follows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LoneSpace {
    Match,
    Gap,
}

impl Cutter {
    /// Compiles `regex`.
    ///
    /// # Errors
    /// When it is not a regular expression.
    pub fn new(regex: &str) -> Result<Self, Box<fancy_regex::Error>> {
        let ending = ENDINGS.iter().find_map(|ending| regex.strip_suffix(ending));
        let (linear, run) = match ending {
            Some(rest) if regex.ends_with(ENDINGS[0]) => {
                (format!("{rest}{RUN}"), Some(LoneSpace::Match))
            }
            Some(rest) => (format!("{rest}{RUN}"), Some(LoneSpace::Gap)),
            None => (regex.to_owned(), None),
        };
        let regex = Regex::new(&linear).map_err(Box::new)?;
        Ok(Self { regex, run })
    }

    /// The first match at or after `from`: where it lies, and whether the expression as given matches there.
    fn find(
        &self,
        text: &str,
        from: usize,
    ) -> Result<Option<(usize, usize, bool)>, Box<fancy_regex::Error>> {
        let Some(found) = self.regex.find_from_pos(text, from).map_err(Box::new)? else {
            return Ok(None);
        };
        let (start, end) = (found.start(), found.end());
        let Some(lone) = self.run else {
            return Ok(Some((start, end, true)));
        };
        if end == text.len() || !found.as_str().chars().all(char::is_whitespace) {
            return Ok(Some((start, end, true)));
        }
        let groups = self
            .regex
            .captures_from_pos(text, start)
            .map_err(Box::new)?;
        if groups.is_none_or(|groups| groups.name("white_run").is_none()) {
            return Ok(Some((start, end, true)));
        }
        let last = found.as_str().chars().next_back().map_or(0, char::len_utf8);
        Ok(Some(match end - last > start {
            true => (start, end - last, true),
            false => (start, end, lone == LoneSpace::Match),
        }))
    }
}

impl Pattern for &Cutter {
    fn find_matches(&self, inside: &str) -> tokenizers::Result<Vec<((usize, usize), bool)>> {
        if inside.is_empty() {
            return Ok(vec![((0, 0), false)]);
        }
        let (mut pieces, mut done, mut from) = (Vec::new(), 0, 0);
        while let Some((start, end, matches)) = self.find(inside, from)? {
            if !matches {
                from = end;
                continue;
            }
            if start > done {
                pieces.push(((done, start), false));
            }
            done = start;
            if end > start {
                pieces.push(((start, end), true));
                (done, from) = (end, end);
            } else {
                // An expression that matches nothing cuts there and moves on.
                let step = inside[end..].chars().next().map(char::len_utf8);
                let Some(step) = step else { break };
                from = end + step;
            }
        }
        if done < inside.len() {
            pieces.push(((done, inside.len()), false));
        }
        Ok(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let cutter = Cutter::new(expression).unwrap();
            assert!(cutter.run.is_some());
            let regex = Regex::new(expression).unwrap();
            proptest!(|(text in "[ \n\r\ta.\u{a0}\u{2003}x]{0,20}")| {
                prop_assert_eq!((&cutter).find_matches(&text).unwrap(), (&regex).find_matches(&text).unwrap());
            });
        }
    }

    #[test]
    fn expressions_that_match_nothing_end() {
        let cutter = Cutter::new("x*").unwrap();
        let pieces = (&cutter).find_matches("axxé").unwrap();
        assert_eq!(pieces.first().unwrap().0.0, 0);
        assert_eq!(pieces.last().unwrap().0.1, "axxé".len());
        for pair in pieces.windows(2) {
            assert_eq!(pair[0].0.1, pair[1].0.0, "{pieces:?}");
        }
    }
}
