//! `'%s has %d' % (a, b)`: Python's older way to put values into a text, as far as templates use it.

use super::budget::{Budget, Text};
use super::failure::{Failure, Result};
use super::print::{float, repr, show};
use super::value::Value;

/// Digits after the point that a number may be asked for.
const MAX_PRECISION: usize = 1000;

/// One `%…` of a format.
#[derive(Default)]
struct Field {
    name: Option<String>,
    left: bool,
    zero: bool,
    plus: bool,
    space: bool,
    alternate: bool,
    width: usize,
    precision: Option<usize>,
}

/// `format % positional`, or `format % named`.
pub fn format(
    budget: &Budget,
    format: &str,
    positional: Vec<Value>,
    named: Vec<(String, Value)>,
) -> Result<Value> {
    let mut out = Text::new(budget);
    let mut values = positional.iter();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push(&rest[..at])?;
        let (field, conversion, after) = parse(&rest[at + 1..])?;
        rest = after;
        if conversion == '%' {
            out.push("%")?;
            continue;
        }
        let value = match &field.name {
            None => values.next().cloned(),
            Some(name) => match positional.first() {
                Some(Value::Dict(dict)) => dict.get_str(budget, name)?.cloned(),
                _ => named
                    .iter()
                    .find(|(known, _)| known == name)
                    .map(|(_, value)| value.clone()),
            },
        };
        let value = value.ok_or_else(|| Failure::wrong("a format has more fields than values"))?;
        let text = convert(budget, &field, conversion, &value)?;
        pad(&mut out, &field, &text, conversion)?;
    }
    out.push(rest)?;
    let used_by_name = matches!(positional.as_slice(), [Value::Dict(_)]) || !named.is_empty();
    if values.next().is_some() && !used_by_name {
        return Err(Failure::wrong("a format has fewer fields than values"));
    }
    Ok(Value::paid(out.finish()))
}

/// What follows a `%`: the field, its conversion, and the rest.
fn parse(text: &str) -> Result<(Field, char, &str)> {
    let bad = || Failure::wrong("a format ends within a field");
    let mut field = Field::default();
    let mut rest = text;
    if let Some(named) = rest.strip_prefix('(') {
        let (name, after) = named.split_once(')').ok_or_else(bad)?;
        field.name = Some(name.to_owned());
        rest = after;
    }
    let flags = rest.len() - rest.trim_start_matches(['-', '0', '+', ' ', '#']).len();
    for flag in rest[..flags].chars() {
        match flag {
            '-' => field.left = true,
            '0' => field.zero = true,
            '+' => field.plus = true,
            ' ' => field.space = true,
            _ => field.alternate = true,
        }
    }
    rest = &rest[flags..];
    let number = |rest: &mut &str| {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let value = rest[..digits].parse::<usize>();
        *rest = &rest[digits..];
        // More digits than a number holds is more than can be paid for.
        value.unwrap_or(if digits == 0 { 0 } else { usize::MAX })
    };
    field.width = number(&mut rest);
    if let Some(after) = rest.strip_prefix('.') {
        rest = after;
        field.precision = Some(number(&mut rest));
    }
    rest = rest.trim_start_matches(['h', 'l', 'L']);
    let conversion = rest.chars().next().ok_or_else(bad)?;
    Ok((field, conversion, &rest[conversion.len_utf8()..]))
}

fn convert(budget: &Budget, field: &Field, conversion: char, value: &Value) -> Result<String> {
    let wanted = || Failure::wrong(format!("%{conversion} of {}", value.kind()));
    if !matches!(conversion, 's' | 'r') && field.precision.is_some_and(|n| n > MAX_PRECISION) {
        return Err(Failure::costly("digits of a number"));
    }
    match conversion {
        's' | 'r' => {
            let mut text = Text::new(budget);
            match conversion {
                's' => show(&mut text, value)?,
                _ => repr(&mut text, value)?,
            }
            let text = text.finish();
            Ok(match field.precision {
                Some(n) => text.chars().take(n).collect(),
                None => text,
            })
        }
        'd' | 'i' | 'u' => match value.as_int() {
            Some(number) => Ok(number.to_string()),
            None => match value.as_float() {
                Some(number) if number.abs() < 9e18 => Ok((number as i64).to_string()),
                _ => Err(wanted()),
            },
        },
        'f' | 'F' => {
            let number = value.as_float().ok_or_else(wanted)?;
            match number.is_finite() {
                true => Ok(format!("{number:.*}", field.precision.unwrap_or(6))),
                false => Ok(float(number)),
            }
        }
        'x' | 'X' | 'o' => {
            let number = value.as_int().ok_or_else(wanted)?;
            let (digits, size) = (if number < 0 { "-" } else { "" }, number.unsigned_abs());
            Ok(match (conversion, field.alternate) {
                ('x', false) => format!("{digits}{size:x}"),
                ('x', true) => format!("{digits}{size:#x}"),
                ('X', false) => format!("{digits}{size:X}"),
                ('X', true) => format!("{digits}0X{size:X}"),
                (_, false) => format!("{digits}{size:o}"),
                (_, true) => format!("{digits}{size:#o}"),
            })
        }
        'c' => match (value.as_int(), value.as_str()) {
            (Some(code), _) => u32::try_from(code)
                .ok()
                .and_then(char::from_u32)
                .map(String::from)
                .ok_or_else(wanted),
            (None, Some(text)) if text.chars().nth(1).is_none() => Ok(text.to_owned()),
            _ => Err(wanted()),
        },
        other => Err(Failure::wrong(format!(
            "%{other} is no field of a format here"
        ))),
    }
}

/// Adds the field with its sign and padding.
fn pad(out: &mut Text<'_>, field: &Field, text: &str, conversion: char) -> Result<()> {
    let is_number = !matches!(conversion, 's' | 'r' | 'c');
    let sign = match is_number && !text.starts_with('-') {
        true if field.plus => "+",
        true if field.space => " ",
        _ => "",
    };
    let n_chars = text.chars().count() + sign.len();
    let missing = field.width.saturating_sub(n_chars);
    match (field.left, field.zero && is_number) {
        (true, _) => {
            out.push(sign)?;
            out.push(text)?;
            out.repeat(" ", missing)
        }
        (false, true) => {
            let (minus, digits) = text.split_at(usize::from(text.starts_with('-')));
            out.push(sign)?;
            out.push(minus)?;
            out.repeat("0", missing)?;
            out.push(digits)
        }
        (false, false) => {
            out.repeat(" ", missing)?;
            out.push(sign)?;
            out.push(text)
        }
    }
}
