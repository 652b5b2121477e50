//! What follows `|`: the filters of one value. Those that go through the elements of a list are in `lists`.

use super::args::{Args, flag_or, int_or, text, text_or};
use super::budget::{Budget, Text};
use super::failure::{Failure, Result};
use super::print::{JsonStyle, json, text_of};
use super::value::Value;
use super::{lists, methods, percent, texts};

/// `value | name(args)`.
pub fn apply(budget: &Budget, name: &str, value: &Value, args: Args) -> Result<Value> {
    budget.steps(1)?;
    match name {
        "default" | "d" => default(value, args),
        "tojson" => tojson(budget, value, args),
        "string" => Ok(Value::paid(text_of(budget, value)?)),
        // Nothing here is escaped, so nothing needs to be marked as safe.
        "safe" => Ok(value.clone()),
        "escape" | "e" | "forceescape" => escape(budget, &text_of(budget, value)?),
        "int" => int(value, args),
        "float" => float(value, args),
        "abs" => abs(value),
        "round" => round(value, args),
        "attr" => {
            let [name] = args.bind("attr", ["name"])?;
            let name = text("attr", name.as_ref())?;
            match value {
                // An attribute only, never a key.
                Value::Dict(_) if !methods::has(value, name) => Ok(Value::Undefined(None)),
                _ => methods::attribute(budget, value, name),
            }
        }
        "format" => percent::format(
            budget,
            text("format", Some(value))?,
            args.positional,
            args.named,
        ),
        "capitalize" | "lower" | "upper" | "title" | "trim" | "replace" | "indent" | "truncate"
        | "wordcount" | "center" => of_text(budget, name, &text_of(budget, value)?, args),
        "reverse" => match value {
            Value::Str(text) => {
                budget.bytes(text.len())?;
                Ok(Value::paid(text.chars().rev().collect()))
            }
            other => lists::apply(budget, name, other, args),
        },
        _ => lists::apply(budget, name, value, args),
    }
}

fn of_text(budget: &Budget, name: &str, text: &str, args: Args) -> Result<Value> {
    match name {
        "trim" => {
            let [chars] = args.bind(name, ["chars"])?;
            texts::call(budget, text, "strip", Args::of(chars))
        }
        "replace" => {
            let [old, new, count] = args.bind(name, ["old", "new", "count"])?;
            let (Some(old), Some(new)) = (old, new) else {
                return Err(Failure::wrong("replace wants two texts"));
            };
            let (old, new) = (text_of(budget, &old)?, text_of(budget, &new)?);
            texts::replace(budget, text, &old, &new, int_or(name, count, -1)?)
        }
        "title" => title(budget, text),
        "indent" => indent(budget, text, args),
        "truncate" => truncate(budget, text, args),
        "wordcount" => {
            budget.search(text.len())?;
            let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
            let n_words = words.filter(|word| !word.is_empty()).count();
            Ok(Value::Int(i64::try_from(n_words).unwrap_or(i64::MAX)))
        }
        "center" => {
            let [width] = args.bind(name, ["width"])?;
            let width = width.unwrap_or(Value::Int(80));
            texts::call(budget, text, "center", Args::of(Some(width)))
        }
        // These are methods of a text, too.
        _ => texts::call(budget, text, name, args),
    }
}

fn default(value: &Value, args: Args) -> Result<Value> {
    let [default, also_false] = args.bind("default", ["default_value", "boolean"])?;
    let missing = match flag_or(also_false, false) {
        true => !value.is_true(),
        false => matches!(value, Value::Undefined(_)),
    };
    Ok(match missing {
        true => default.unwrap_or_else(|| Value::paid(String::new())),
        false => value.clone(),
    })
}

/// As transformers defines it: Python's `json.dumps`, without escapes for HTML or beyond ASCII.
fn tojson(budget: &Budget, value: &Value, args: Args) -> Result<Value> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let [ascii, indent, separators, sort] = args.bind("tojson", names)?;
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Str(text)) => Some((*text).to_owned()),
        Some(width) => {
            let width = int_or("tojson", Some(width), 0)?;
            let mut spaces = Text::new(budget);
            spaces.repeat(" ", usize::try_from(width).unwrap_or(0))?;
            Some(spaces.finish())
        }
    };
    let (item, key) = match separators {
        None | Some(Value::None) if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None | Some(Value::None) => (", ".to_owned(), ": ".to_owned()),
        Some(Value::List(pair) | Value::Tuple(pair)) if pair.items().len() == 2 => {
            let part = |at: usize| text("separators", pair.items().get(at)).map(str::to_owned);
            (part(0)?, part(1)?)
        }
        Some(_) => return Err(Failure::wrong("separators are two texts")),
    };
    let style = JsonStyle {
        indent,
        item_separator: item,
        key_separator: key,
        sort_keys: flag_or(sort, false),
        ensure_ascii: flag_or(ascii, false),
    };
    let mut out = Text::new(budget);
    json(&mut out, value, &style, 0)?;
    Ok(Value::paid(out.finish()))
}

fn escape(budget: &Budget, text: &str) -> Result<Value> {
    let mut out = Text::new(budget);
    for c in text.chars() {
        match c {
            '&' => out.push("&amp;")?,
            '<' => out.push("&lt;")?,
            '>' => out.push("&gt;")?,
            '\'' => out.push("&#39;")?,
            '"' => out.push("&#34;")?,
            c => out.push_char(c)?,
        }
    }
    Ok(Value::paid(out.finish()))
}

fn int(value: &Value, args: Args) -> Result<Value> {
    let [default, base] = args.bind("int", ["default", "base"])?;
    let base = int_or("int", base, 10)?;
    let radix = u32::try_from(base)
        .ok()
        .filter(|base| (2..=36).contains(base));
    let radix = radix.ok_or_else(|| Failure::wrong("a base is 2 to 36"))?;
    let whole = |number: f64| (number.abs() < 9e18).then_some(number as i64);
    let number = match value {
        Value::Float(number) => whole(*number),
        Value::Str(text) => {
            let digits = text.trim().replace('_', "");
            let exact = i64::from_str_radix(without_prefix(&digits, radix), radix).ok();
            exact.or_else(|| whole(digits.parse::<f64>().ok()?))
        }
        other => other.as_int(),
    };
    Ok(number.map_or_else(|| default.unwrap_or(Value::Int(0)), Value::Int))
}

/// Digits without the `0x` that their base may be written with.
fn without_prefix(digits: &str, radix: u32) -> &str {
    let prefixes: [&str; 2] = match radix {
        16 => ["0x", "0X"],
        8 => ["0o", "0O"],
        2 => ["0b", "0B"],
        _ => return digits,
    };
    let rest = prefixes
        .iter()
        .find_map(|prefix| digits.strip_prefix(prefix));
    rest.unwrap_or(digits)
}

fn float(value: &Value, args: Args) -> Result<Value> {
    let [default] = args.bind("float", ["default"])?;
    let number = match value {
        Value::Str(text) => text.trim().parse().ok(),
        other => other.as_float(),
    };
    Ok(number.map_or_else(|| default.unwrap_or(Value::Float(0.0)), Value::Float))
}

fn abs(value: &Value) -> Result<Value> {
    match value {
        Value::Float(number) => Ok(Value::Float(number.abs())),
        other => match other.as_int().and_then(i64::checked_abs) {
            Some(number) => Ok(Value::Int(number)),
            None => Err(Failure::wrong(format!("abs of {}", value.kind()))),
        },
    }
}

fn round(value: &Value, args: Args) -> Result<Value> {
    let [precision, method] = args.bind("round", ["precision", "method"])?;
    let precision = int_or("round", precision, 0)?.clamp(-300, 300);
    let method = text_or("round", method, "common")?;
    let number = value.as_float();
    let number = number.ok_or_else(|| Failure::wrong(format!("round of {}", value.kind())))?;
    let scale = 10f64.powi(i32::try_from(precision).unwrap_or(0));
    let scaled = number * scale;
    let rounded = match method.as_str() {
        "common" if precision >= 0 && value.as_int().is_some() => return Ok(value.clone()),
        "common" if precision < 0 => match value.as_int() {
            Some(_) => return Ok(Value::Int((scaled.round_ties_even() / scale) as i64)),
            None => scaled.round_ties_even(),
        },
        // Formatting rounds the number itself, not its product with a power of ten.
        "common" => {
            let n_digits = usize::try_from(precision).unwrap_or(0);
            let text = format!("{number:.n_digits$}");
            return Ok(Value::Float(text.parse().unwrap_or(number)));
        }
        "ceil" => scaled.ceil(),
        "floor" => scaled.floor(),
        other => {
            return Err(Failure::wrong(format!(
                "there is no way to round called {other:?}"
            )));
        }
    };
    Ok(Value::Float(rounded / scale))
}

/// Words begin after white space, hyphens and opening brackets; the rest of them is in small letters.
fn title(budget: &Budget, text: &str) -> Result<Value> {
    let mut out = Text::new(budget);
    let mut begins = true;
    for c in text.chars() {
        match begins {
            true => out.push(&c.to_uppercase().to_string())?,
            false => out.push(&c.to_lowercase().to_string())?,
        }
        begins = texts::is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<');
    }
    Ok(Value::paid(out.finish()))
}

fn indent(budget: &Budget, text: &str, args: Args) -> Result<Value> {
    let [width, first, blank] = args.bind("indent", ["width", "first", "blank"])?;
    let (unit, times) = match width {
        Some(Value::Str(unit)) => ((*unit).to_owned(), 1),
        width => {
            let width = int_or("indent", width, 4)?;
            (" ".to_owned(), usize::try_from(width).unwrap_or(0))
        }
    };
    let (first, blank) = (flag_or(first, false), flag_or(blank, false));
    let mut out = Text::new(budget);
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            out.push("\n")?;
        }
        let wanted = match index {
            0 => first,
            _ => blank || !line.is_empty(),
        };
        if wanted {
            out.repeat(&unit, times)?;
        }
        out.push(line)?;
    }
    Ok(Value::paid(out.finish()))
}

fn truncate(budget: &Budget, text: &str, args: Args) -> Result<Value> {
    let names = ["length", "killwords", "end", "leeway"];
    let [length, kill, end, leeway] = args.bind("truncate", names)?;
    let (length, leeway) = (
        int_or("truncate", length, 255)?,
        int_or("truncate", leeway, 5)?,
    );
    let end = text_or("truncate", end, "...")?;
    budget.search(text.len())?;
    let n_chars = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    if n_chars <= length.saturating_add(leeway) {
        return Value::text(budget, text);
    }
    let n_end = i64::try_from(end.chars().count()).unwrap_or(i64::MAX);
    let kept = usize::try_from(length.saturating_sub(n_end)).unwrap_or(0);
    let mut out = Text::new(budget);
    let at = text
        .char_indices()
        .nth(kept)
        .map_or(text.len(), |(at, _)| at);
    let cut = match flag_or(kill, false) {
        true => &text[..at],
        false => text[..at]
            .rsplit_once(' ')
            .map_or(&text[..at], |(words, _)| words),
    };
    out.push(cut)?;
    out.push(&end)?;
    Ok(Value::paid(out.finish()))
}
