//! Methods of a text: Python's.

use super::args::{Args, flag_or, int_or, text, text_or};
use super::budget::{Budget, Text};
use super::failure::{Failure, Result};
use super::ops;
use super::print::show;
use super::value::Value;

/// All there are.
pub const METHODS: &[&str] = &[
    "strip",
    "lstrip",
    "rstrip",
    "split",
    "rsplit",
    "splitlines",
    "startswith",
    "endswith",
    "upper",
    "lower",
    "title",
    "capitalize",
    "swapcase",
    "casefold",
    "replace",
    "find",
    "rfind",
    "index",
    "rindex",
    "count",
    "join",
    "format",
    "partition",
    "rpartition",
    "removeprefix",
    "removesuffix",
    "ljust",
    "rjust",
    "center",
    "zfill",
    "isdigit",
    "isdecimal",
    "isnumeric",
    "isalpha",
    "isalnum",
    "isspace",
    "isupper",
    "islower",
];

/// What Python takes for white space.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// A method of a text.
pub fn call(budget: &Budget, s: &str, name: &str, args: Args) -> Result<Value> {
    // Methods look at the whole text a few times; what they make of it is paid for where it is made.
    budget.search(4 * s.len())?;
    match name {
        "strip" | "lstrip" | "rstrip" => strip(budget, s, name, args),
        "split" | "rsplit" => split(budget, s, name, args),
        "partition" | "rpartition" => partition(budget, s, name, args),
        "splitlines" => {
            let [keep] = args.bind(name, ["keepends"])?;
            let lines = s
                .split_inclusive('\n')
                .map(|line| match flag_or(keep.clone(), false) {
                    true => line,
                    false => line.trim_end_matches(['\n', '\r']),
                });
            pieces(budget, lines)
        }
        "startswith" | "endswith" => {
            let [part] = args.bind(name, ["prefix"])?;
            let is = |part: &str| match name {
                "startswith" => s.starts_with(part),
                _ => s.ends_with(part),
            };
            let parts = match &part {
                Some(Value::Tuple(parts)) => parts.items(),
                other => other.as_slice(),
            };
            for part in parts {
                budget.steps(1)?;
                if is(text(name, Some(part))?) {
                    return Ok(Value::Bool(true));
                }
            }
            match parts {
                [] if part.is_none() => Err(Failure::wrong(format!("{name} wants a text"))),
                _ => Ok(Value::Bool(false)),
            }
        }
        "upper" | "lower" | "casefold" | "swapcase" | "capitalize" | "title" => {
            letters(budget, s, name)
        }
        "replace" => {
            let [old, new, count] = args.bind(name, ["old", "new", "count"])?;
            let (old, new) = (text(name, old.as_ref())?, text(name, new.as_ref())?);
            replace(budget, s, old, new, int_or(name, count, -1)?)
        }
        "find" | "rfind" | "index" | "rindex" | "count" => find(budget, s, name, args),
        "join" => {
            let [items] = args.bind(name, ["iterable"])?;
            let items = items.ok_or_else(|| Failure::wrong("join wants a list"))?;
            let mut out = Text::new(budget);
            for (index, item) in items.iterate(budget)?.items().iter().enumerate() {
                if index > 0 {
                    out.push(s)?;
                }
                out.push(text(name, Some(item))?)?;
            }
            Ok(Value::paid(out.finish()))
        }
        "format" => format(budget, s, args),
        "removeprefix" | "removesuffix" => {
            let [part] = args.bind(name, ["part"])?;
            let part = text(name, part.as_ref())?;
            let rest = match name {
                "removeprefix" => s.strip_prefix(part),
                _ => s.strip_suffix(part),
            };
            Value::text(budget, rest.unwrap_or(s))
        }
        "ljust" | "rjust" | "center" | "zfill" => justify(budget, s, name, args),
        _ => is_all(s, name)
            .map(Value::Bool)
            .ok_or_else(|| Failure::wrong(format!("a text has no method {name:?}"))),
    }
}

fn pieces<'s>(budget: &Budget, parts: impl Iterator<Item = &'s str>) -> Result<Value> {
    let parts: Vec<Value> = parts
        .map(|part| Value::text(budget, part))
        .collect::<Result<_>>()?;
    Value::list(budget, parts)
}

fn strip(budget: &Budget, s: &str, name: &str, args: Args) -> Result<Value> {
    let [chars] = args.bind(name, ["chars"])?;
    let chars = match &chars {
        None | Some(Value::None) => None,
        Some(chars) => Some(text(name, Some(chars))?),
    };
    if let Some(chars) = chars {
        budget.search(s.len().saturating_mul(chars.len()))?;
    }
    let drop = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let mut kept = s;
    if name != "rstrip" {
        kept = kept.trim_start_matches(drop);
    }
    if name != "lstrip" {
        kept = kept.trim_end_matches(drop);
    }
    Value::text(budget, kept)
}

fn split(budget: &Budget, s: &str, name: &str, args: Args) -> Result<Value> {
    let [between, limit] = args.bind(name, ["sep", "maxsplit"])?;
    let limit = usize::try_from(int_or(name, limit, -1)?).unwrap_or(usize::MAX);
    let n_parts = limit.saturating_add(1);
    let mut parts = Vec::new();
    match between {
        None | Some(Value::None) if limit == usize::MAX => {
            return pieces(budget, s.split(is_space).filter(|word| !word.is_empty()));
        }
        None | Some(Value::None) => return words(budget, s, name, limit),
        Some(between) => {
            let between = text(name, Some(&between))?;
            if between.is_empty() {
                return Err(Failure::wrong("split at an empty text"));
            }
            match name {
                "split" => {
                    for part in s.splitn(n_parts, between) {
                        parts.push(Value::text(budget, part)?);
                    }
                }
                _ => {
                    for part in s.rsplitn(n_parts, between) {
                        parts.push(Value::text(budget, part)?);
                    }
                    parts.reverse();
                }
            }
        }
    }
    Value::list(budget, parts)
}

/// Words, of which the last or the first is what is left after `limit` cuts.
fn words(budget: &Budget, s: &str, name: &str, limit: usize) -> Result<Value> {
    let (mut parts, mut rest) = (Vec::new(), s);
    loop {
        rest = match name {
            "split" => rest.trim_start_matches(is_space),
            _ => rest.trim_end_matches(is_space),
        };
        if rest.is_empty() {
            break;
        }
        let cut = match name {
            "split" => rest.find(is_space),
            _ => rest.rfind(is_space),
        };
        let Some(cut) = cut.filter(|_| parts.len() < limit) else {
            parts.push(Value::text(budget, rest)?);
            break;
        };
        let width = rest[cut..].chars().next().map_or(0, char::len_utf8);
        let word = match name {
            "split" => &rest[..cut],
            _ => &rest[cut + width..],
        };
        parts.push(Value::text(budget, word)?);
        rest = match name {
            "split" => &rest[cut..],
            _ => &rest[..cut],
        };
    }
    if name != "split" {
        parts.reverse();
    }
    Value::list(budget, parts)
}

fn partition(budget: &Budget, s: &str, name: &str, args: Args) -> Result<Value> {
    let [between] = args.bind(name, ["sep"])?;
    let between = text(name, between.as_ref())?;
    let at = match name {
        "partition" => s.find(between),
        _ => s.rfind(between),
    };
    let parts = match (at, name) {
        (Some(at), _) => [&s[..at], between, &s[at + between.len()..]],
        (None, "partition") => [s, "", ""],
        (None, _) => ["", "", s],
    };
    let parts = parts.into_iter().map(|part| Value::text(budget, part));
    Value::tuple(budget, parts.collect::<Result<_>>()?)
}

fn letters(budget: &Budget, s: &str, name: &str) -> Result<Value> {
    // No letter becomes more than three.
    budget.bytes(3 * s.len())?;
    let mut out = String::with_capacity(s.len());
    let mut begins = true;
    for c in s.chars() {
        let upper = match name {
            "upper" => true,
            "swapcase" => c.is_lowercase(),
            "capitalize" | "title" => begins,
            _ => false,
        };
        match upper {
            true => out.extend(c.to_uppercase()),
            false => out.extend(c.to_lowercase()),
        }
        begins = name == "title" && !c.is_alphabetic();
    }
    Ok(Value::paid(out))
}

/// At most `count` replacements, any number where that is negative.
pub fn replace(budget: &Budget, s: &str, old: &str, new: &str, count: i64) -> Result<Value> {
    let mut left = usize::try_from(count).unwrap_or(usize::MAX);
    let mut out = Text::new(budget);
    if old.is_empty() {
        // Before every letter, and at the end.
        for c in s.chars() {
            if left > 0 {
                out.push(new)?;
                left -= 1;
            }
            out.push_char(c)?;
        }
        if left > 0 {
            out.push(new)?;
        }
        return Ok(Value::paid(out.finish()));
    }
    let mut rest = s;
    while left > 0
        && let Some(at) = rest.find(old)
    {
        out.push(&rest[..at])?;
        out.push(new)?;
        rest = &rest[at + old.len()..];
        left -= 1;
    }
    out.push(rest)?;
    Ok(Value::paid(out.finish()))
}

fn find(budget: &Budget, s: &str, name: &str, args: Args) -> Result<Value> {
    let [part, start, end] = args.bind(name, ["sub", "start", "end"])?;
    let part = text(name, part.as_ref())?;
    let bounds = [
        start.unwrap_or(Value::None),
        end.unwrap_or(Value::None),
        Value::None,
    ];
    let n_before = match bounds[0].as_int() {
        Some(from) if from < 0 => {
            let n = i64::try_from(s.chars().count()).unwrap_or(i64::MAX);
            n.saturating_add(from).max(0)
        }
        Some(from) => from,
        None => 0,
    };
    let within = ops::slice(budget, &Value::text(budget, s)?, bounds)?;
    let within = within.as_str().unwrap_or("");
    if name == "count" {
        let n = match part.is_empty() {
            true => within.chars().count() + 1,
            false => within.matches(part).count(),
        };
        return Ok(Value::Int(i64::try_from(n).unwrap_or(i64::MAX)));
    }
    let at = match name {
        "find" | "index" => within.find(part),
        _ => within.rfind(part),
    };
    match at {
        Some(at) => {
            let n = i64::try_from(within[..at].chars().count()).unwrap_or(i64::MAX);
            Ok(Value::Int(n_before.saturating_add(n)))
        }
        None if name.ends_with("find") => Ok(Value::Int(-1)),
        None => Err(Failure::wrong("index of a text that is not there")),
    }
}

/// `'{} {name}'.format(a, name=b)`, without anything after a colon.
fn format(budget: &Budget, s: &str, args: Args) -> Result<Value> {
    let mut out = Text::new(budget);
    let (mut rest, mut next) = (s, 0);
    while let Some(at) = rest.find(['{', '}']) {
        out.push(&rest[..at])?;
        let here = &rest[at..];
        if here.starts_with("{{") || here.starts_with("}}") {
            out.push(&here[..1])?;
            rest = &here[2..];
            continue;
        }
        let field = here
            .strip_prefix('{')
            .and_then(|field| field.split_once('}'));
        let Some((field, after)) = field else {
            return Err(Failure::wrong("a lone brace in a format"));
        };
        let value = if field.is_empty() {
            next += 1;
            args.positional.get(next - 1)
        } else if let Ok(at) = field.parse::<usize>() {
            args.positional.get(at)
        } else {
            budget.steps(args.named.len())?;
            args.named
                .iter()
                .find(|(name, _)| name == field)
                .map(|(_, value)| value)
        };
        let why = || Failure::wrong(format!("a format has no value for {{{field}}}"));
        show(&mut out, value.ok_or_else(why)?)?;
        rest = after;
    }
    out.push(rest)?;
    Ok(Value::paid(out.finish()))
}

fn justify(budget: &Budget, s: &str, name: &str, args: Args) -> Result<Value> {
    let [width, fill] = args.bind(name, ["width", "fillchar"])?;
    let width = usize::try_from(int_or(name, width, 0)?).unwrap_or(0);
    let fill = match name {
        "zfill" => "0".to_owned(),
        _ => text_or(name, fill, " ")?,
    };
    let missing = width.saturating_sub(s.chars().count());
    let mut out = Text::new(budget);
    // Python puts the odd one to the left where the width is odd, too.
    let left = missing / 2 + (missing & width & 1);
    let (sign, digits) = match name == "zfill" && s.starts_with(['-', '+']) {
        true => s.split_at(1),
        false => ("", s),
    };
    let (before, after) = match name {
        "ljust" => (0, missing),
        "center" => (left, missing - left),
        _ => (missing, 0),
    };
    out.push(sign)?;
    out.repeat(&fill, before)?;
    out.push(digits)?;
    out.repeat(&fill, after)?;
    Ok(Value::paid(out.finish()))
}

/// What all letters are; `None` for no such method.
fn is_all(s: &str, name: &str) -> Option<bool> {
    let all = |is: fn(char) -> bool| !s.is_empty() && s.chars().all(is);
    Some(match name {
        "isdigit" | "isdecimal" | "isnumeric" => all(char::is_numeric),
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        "isspace" => all(is_space),
        "isupper" => s.chars().any(char::is_uppercase) && !s.chars().any(char::is_lowercase),
        "islower" => s.chars().any(char::is_lowercase) && !s.chars().any(char::is_uppercase),
        _ => return None,
    })
}
