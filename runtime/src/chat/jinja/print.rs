//! Values as Python writes them: `str` for output, `repr` within lists, and JSON.

use super::budget::{Budget, Text};
use super::failure::{Failure, Result};
use super::value::Value;

/// As `str` writes it: what `{{ value }}` puts out.
pub fn text_of(budget: &Budget, value: &Value) -> Result<String> {
    let mut out = Text::new(budget);
    show(&mut out, value)?;
    Ok(out.finish())
}

/// Adds what `str` writes.
pub fn show(out: &mut Text<'_>, value: &Value) -> Result<()> {
    match value {
        Value::Undefined(_) => Ok(()),
        Value::Str(text) => out.push(text),
        other => repr(out, other),
    }
}

/// Adds what `repr` writes.
pub fn repr(out: &mut Text<'_>, value: &Value) -> Result<()> {
    match value {
        Value::Undefined(_) => out.push("Undefined"),
        Value::None => out.push("None"),
        Value::Bool(true) => out.push("True"),
        Value::Bool(false) => out.push("False"),
        Value::Int(number) => out.push(&number.to_string()),
        Value::Float(number) => out.push(&float(*number)),
        Value::Str(text) => quoted(out, text),
        Value::List(list) => {
            out.push("[")?;
            separated(out, list.items())?;
            out.push("]")
        }
        Value::Tuple(list) => {
            out.push("(")?;
            separated(out, list.items())?;
            out.push(if list.items().len() == 1 { ",)" } else { ")" })
        }
        Value::Dict(dict) => {
            let entries = dict
                .entries()
                .iter()
                .map(|(key, value)| (key.clone(), value));
            braced(out, entries)
        }
        Value::Namespace(namespace) => {
            out.push("<Namespace ")?;
            let values = namespace.values();
            let entries = values
                .iter()
                .map(|(name, value)| (Value::Str(name.clone()), value));
            braced(out, entries)?;
            out.push(">")
        }
        Value::Loop(state) => {
            let (index, n) = (state.index.get() + 1, state.items.items().len());
            out.push(&format!("<LoopContext {index}/{n}>"))
        }
        Value::Macro(_) | Value::Caller(_) => out.push("<Macro>"),
        Value::Function(_) | Value::Method(_) => out.push("<function>"),
    }
}

fn separated(out: &mut Text<'_>, items: &[Value]) -> Result<()> {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(", ")?;
        }
        repr(out, item)?;
    }
    Ok(())
}

fn braced<'v>(out: &mut Text<'_>, entries: impl Iterator<Item = (Value, &'v Value)>) -> Result<()> {
    out.push("{")?;
    for (index, (key, value)) in entries.enumerate() {
        if index > 0 {
            out.push(", ")?;
        }
        repr(out, &key)?;
        out.push(": ")?;
        repr(out, value)?;
    }
    out.push("}")
}

fn quoted(out: &mut Text<'_>, text: &str) -> Result<()> {
    let quote = match text.contains('\'') && !text.contains('"') {
        true => '"',
        false => '\'',
    };
    out.push_char(quote)?;
    for c in text.chars() {
        match c {
            '\\' => out.push("\\\\")?,
            '\n' => out.push("\\n")?,
            '\r' => out.push("\\r")?,
            '\t' => out.push("\\t")?,
            c if c == quote => out.push(&format!("\\{c}"))?,
            c if is_printable(c) => out.push_char(c)?,
            c => out.push(&match u32::from(c) {
                code @ ..=0xff => format!("\\x{code:02x}"),
                code @ ..=0xffff => format!("\\u{code:04x}"),
                code => format!("\\U{code:08x}"),
            })?,
        }
    }
    out.push_char(quote)
}

/// Whether Python would print it: the standard library knows, but says so only for what does not come first.
fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    let mut buffer = String::from("x");
    buffer.push(c);
    buffer.escape_debug().count() == 2
}

/// As Python writes a number that is not whole.
pub fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    // The same digits at the same sizes; only the exponent has another form.
    let text = format!("{number:?}");
    match text.split_once('e') {
        None => text,
        Some((digits, exponent)) => {
            let (sign, exponent) = match exponent.strip_prefix('-') {
                Some(exponent) => ('-', exponent),
                None => ('+', exponent),
            };
            format!("{digits}e{sign}{exponent:0>2}")
        }
    }
}

/// What `json.dumps` is told.
pub struct JsonStyle {
    /// Written once a level; without it everything is on one line.
    pub indent: Option<String>,
    /// Between elements.
    pub item_separator: String,
    /// Between a key and its value.
    pub key_separator: String,
    /// Keys in order.
    pub sort_keys: bool,
    /// Escapes instead of letters beyond ASCII.
    pub ensure_ascii: bool,
}

/// As `json.dumps` writes it.
pub fn json(out: &mut Text<'_>, value: &Value, style: &JsonStyle, level: usize) -> Result<()> {
    match value {
        Value::None => out.push("null"),
        Value::Bool(value) => out.push(if *value { "true" } else { "false" }),
        Value::Int(number) => out.push(&number.to_string()),
        Value::Float(number) => out.push(&json_float(*number)),
        Value::Str(text) => json_text(out, text, style.ensure_ascii),
        Value::List(list) | Value::Tuple(list) => {
            let elements = list.items().iter().map(|item| (None, item)).collect();
            json_elements(out, elements, ["[", "]"], style, level)
        }
        Value::Dict(dict) => {
            let entries = dict.entries().iter();
            let mut entries: Vec<_> = entries
                .map(|(key, value)| (Some(key_text(key)), value))
                .collect();
            if style.sort_keys {
                entries.sort_by(|a, b| a.0.cmp(&b.0));
            }
            json_elements(out, entries, ["{", "}"], style, level)
        }
        other => {
            let kind = other.kind();
            Err(Failure::wrong(format!("{kind} cannot be written as JSON")))
        }
    }
}

fn json_float(number: f64) -> String {
    match float(number).as_str() {
        "nan" => "NaN".to_owned(),
        "inf" => "Infinity".to_owned(),
        "-inf" => "-Infinity".to_owned(),
        text => text.to_owned(),
    }
}

/// Keys are texts in JSON.
fn key_text(key: &Value) -> String {
    match key {
        Value::Str(text) => (**text).to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(number) => number.to_string(),
        _ => "null".to_owned(),
    }
}

fn json_elements(
    out: &mut Text<'_>,
    elements: Vec<(Option<String>, &Value)>,
    [open, close]: [&str; 2],
    style: &JsonStyle,
    level: usize,
) -> Result<()> {
    out.push(open)?;
    let line = |out: &mut Text<'_>, level: usize| match &style.indent {
        None => Ok(()),
        Some(indent) => {
            out.push("\n")?;
            out.repeat(indent, level)
        }
    };
    let is_empty = elements.is_empty();
    for (index, (key, value)) in elements.into_iter().enumerate() {
        if index > 0 {
            out.push(&style.item_separator)?;
        }
        line(out, level + 1)?;
        if let Some(key) = key {
            json_text(out, &key, style.ensure_ascii)?;
            out.push(&style.key_separator)?;
        }
        json(out, value, style, level + 1)?;
    }
    if !is_empty {
        line(out, level)?;
    }
    out.push(close)
}

fn json_text(out: &mut Text<'_>, text: &str, ensure_ascii: bool) -> Result<()> {
    out.push("\"")?;
    for c in text.chars() {
        match c {
            '"' => out.push("\\\"")?,
            '\\' => out.push("\\\\")?,
            '\n' => out.push("\\n")?,
            '\r' => out.push("\\r")?,
            '\t' => out.push("\\t")?,
            '\u{8}' => out.push("\\b")?,
            '\u{c}' => out.push("\\f")?,
            c if c < ' ' => out.push(&format!("\\u{:04x}", u32::from(c)))?,
            c if ensure_ascii && !c.is_ascii() => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push(&format!("\\u{unit:04x}"))?;
                }
            }
            c => out.push_char(c)?,
        }
    }
    out.push("\"")
}
