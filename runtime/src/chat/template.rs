//! The Jinja dialect of chat templates: what transformers adds to the engine, and limits on what a file may cost.

use std::io::{self, Write};
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use fancy_regex::Regex;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind, context};

use super::{ChatError, Message};
use crate::date::civil;

const NAME: &str = "chat_template";

/// Instructions that one rendering may take. A template is part of a file: it must not be able to hang the program.
const FUEL: u64 = 5_000_000;

/// Bytes that a template may write, beside four times the messages.
const OUTPUT_LIMIT: usize = 1 << 20;

/// Bytes of template text that are read.
const SOURCE_LIMIT: usize = 1 << 20;

/// Tags that mark the model's words for training and render as nothing.
static GENERATION: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\{%(-?)\s*generation\s*(-?)%\}").expect("a valid expression"));
static END_GENERATION: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\{%(-?)\s*endgeneration\s*(-?)%\}").expect("a valid expression"));

/// An engine with `source` as its one template.
///
/// # Errors
/// When `source` is not valid Jinja.
pub fn engine(source: &str) -> Result<Environment<'static>, ChatError> {
    if source.len() > SOURCE_LIMIT {
        let why = format!("it has {} bytes, more than {SOURCE_LIMIT}", source.len());
        return Err(ChatError::Template { why });
    }
    let bad = |error: Error| ChatError::Template {
        why: error.to_string(),
    };
    let source = GENERATION.replace_all(source, "{%${1} if true ${2}%}");
    let source = END_GENERATION.replace_all(&source, "{%${1} endif ${2}%}");
    let mut engine = Environment::new();
    let syntax = minijinja::syntax::SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
        .map_err(bad)?;
    engine.set_syntax(syntax);
    engine.set_fuel(Some(FUEL));
    engine.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    engine.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    engine.add_function("raise_exception", raise_exception);
    engine.add_function("strftime_now", |format: String| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        strftime(since.map_or(0, |time| time.as_secs()), &format)
    });
    engine.add_filter("tojson", tojson);
    engine
        .add_template_owned(NAME, source.into_owned())
        .map_err(bad)?;
    Ok(engine)
}

/// Renders the engine's template for a conversation that the model is to continue.
///
/// # Errors
/// When the template raises an exception or fails.
pub fn render(
    engine: &Environment<'_>,
    messages: &[Message],
    bos: &str,
    eos: &str,
) -> Result<String, ChatError> {
    let bad = |error: Error| ChatError::Render {
        why: match error.detail() {
            Some(detail) if error.kind() == ErrorKind::InvalidOperation => detail.to_owned(),
            _ => error.to_string(),
        },
    };
    let template = engine.get_template(NAME).map_err(bad)?;
    let turn = |message: &Message| {
        Value::from_pairs([("role", message.role.name()), ("content", &message.content)])
    };
    let turns: Vec<Value> = messages.iter().map(turn).collect();
    let variables = context! {
        messages => Value::from(turns),
        bos_token => bos,
        eos_token => eos,
        add_generation_prompt => true,
    };
    let n_content: usize = messages.iter().map(|message| message.content.len()).sum();
    let mut text = Limited {
        bytes: Vec::new(),
        limit: OUTPUT_LIMIT + 4 * n_content,
    };
    template
        .render_captured_to(variables, &mut text)
        .map_err(bad)?;
    String::from_utf8(text.bytes).map_err(|error| ChatError::Render {
        why: error.to_string(),
    })
}

/// Text that may not grow beyond a limit.
struct Limited {
    bytes: Vec<u8>,
    limit: usize,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.limit {
            return Err(io::Error::other(format!(
                "more than {} bytes of text",
                self.limit
            )));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn raise_exception(message: String) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// As Python's `json.dumps` with `ensure_ascii=False`: the engine's own filter escapes for HTML, which chat is not.
fn tojson(value: &Value, indent: Option<Value>, options: Kwargs) -> Result<String, Error> {
    // Other options of Python's do not change what chat templates write.
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get("indent")?,
    };
    let indent = match indent {
        Some(indent) if !indent.is_none() => Some(indent),
        _ => None,
    };
    let html =
        minijinja::filters::tojson(value, indent, Kwargs::from_iter::<[(&str, Value); 0]>([]))?;
    let html = html.to_string();
    let mut json = String::with_capacity(html.len());
    let mut rest = html.as_str();
    while let Some(at) = rest.find('\\') {
        json.push_str(&rest[..at]);
        let escapes = [
            ("\\u003c", "<"),
            ("\\u003e", ">"),
            ("\\u0026", "&"),
            ("\\u0027", "'"),
        ];
        let escape = escapes
            .iter()
            .find(|(escape, _)| rest[at..].starts_with(escape));
        let (taken, plain) = match escape {
            Some((escape, plain)) => (escape.len(), *plain),
            // Another escape: its second character must not start one of ours.
            None => (2, &rest[at..at + 2]),
        };
        json.push_str(plain);
        rest = &rest[at + taken..];
    }
    json.push_str(rest);
    Ok(json)
}

/// The parts of C's strftime that templates use, in universal time.
fn strftime(seconds: u64, format: &str) -> String {
    const DAYS: [&str; 7] = [
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
        "Monday",
        "Tuesday",
        "Wednesday",
    ];
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let days = seconds / 86_400;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let (year, month, day) = civil(days);
    let weekday = DAYS[(days % 7) as usize];
    let month_name = MONTHS[month as usize - 1];
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('Y') => out.push_str(&year.to_string()),
            Some('y') => out.push_str(&format!("{:02}", year % 100)),
            Some('m') => out.push_str(&format!("{month:02}")),
            Some('d') => out.push_str(&format!("{day:02}")),
            Some('e') => out.push_str(&format!("{day:2}")),
            Some('B') => out.push_str(month_name),
            Some('b' | 'h') => out.push_str(&month_name[..3]),
            Some('A') => out.push_str(weekday),
            Some('a') => out.push_str(&weekday[..3]),
            Some('H') => out.push_str(&format!("{hour:02}")),
            Some('I') => out.push_str(&format!("{:02}", (hour + 11) % 12 + 1)),
            Some('p') => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            Some('M') => out.push_str(&format!("{minute:02}")),
            Some('S') => out.push_str(&format!("{second:02}")),
            Some('F') => out.push_str(&format!("{year}-{month:02}-{day:02}")),
            Some('T') => out.push_str(&format!("{hour:02}:{minute:02}:{second:02}")),
            Some('%') => out.push('%'),
            Some(other) => out.extend(['%', other]),
            None => out.push('%'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days() {
        let date = |seconds| strftime(seconds, "%Y-%m-%d %a %d %b %Y %H:%M:%S %I %p %y %e %B %%");
        assert_eq!(
            date(0),
            "1970-01-01 Thu 01 Jan 1970 00:00:00 12 AM 70  1 January %"
        );
        assert_eq!(
            date(951_782_400),
            "2000-02-29 Tue 29 Feb 2000 00:00:00 12 AM 00 29 February %"
        );
        assert_eq!(
            date(1_709_251_199),
            "2024-02-29 Thu 29 Feb 2024 23:59:59 11 PM 24 29 February %"
        );
        assert_eq!(
            date(1_709_251_200),
            "2024-03-01 Fri 01 Mar 2024 00:00:00 12 AM 24  1 March %"
        );
        assert_eq!(
            date(4_102_444_800),
            "2100-01-01 Fri 01 Jan 2100 00:00:00 12 AM 00  1 January %"
        );
        // Every day of four centuries follows the day before it.
        let mut before = civil(0);
        for days in 1..146_097 {
            let today = civil(days);
            let next = today == (before.0, before.1, before.2 + 1)
                || today == (before.0, before.1 + 1, 1)
                || today == (before.0 + 1, 1, 1);
            assert!(
                next && today.1 <= 12 && today.2 <= 31,
                "{before:?} then {today:?}"
            );
            before = today;
        }
        assert_eq!(before, (2369, 12, 31));
    }

    #[test]
    fn json_is_not_escaped_for_html() {
        let engine =
            engine(r#"{{ messages[0] | tojson }}{{ {"a": [1, "\\u003c"]} | tojson(indent=2) }}"#)
                .unwrap();
        let messages = [Message {
            role: super::super::Role::User,
            content: "<a href='x'> & \"b\" \\u003c é".to_owned(),
        }];
        let text = render(&engine, &messages, "", "").unwrap();
        let expected = "{\"role\": \"user\", \"content\": \"<a href='x'> & \\\"b\\\" \\\\u003c é\"}{\n  \"a\": [\n    1,\n    \"\\\\u003c\"\n  ]\n}";
        assert_eq!(text, expected);
    }

    #[test]
    fn templates_cannot_hang_or_exhaust_the_program() {
        let bombs = [
            "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}",
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "{% include 'chat_template' %}",
            "{{ 'x' * 1000000000000 }}",
            "{% for a in range(9999) %}{{ 'x' * 9999 }}{% endfor %}",
        ];
        for bomb in bombs {
            let result = engine(bomb).and_then(|engine| render(&engine, &[], "", ""));
            assert!(result.is_err(), "{bomb} ended");
        }
        assert!(engine(&"x".repeat(SOURCE_LIMIT + 1)).is_err());
    }
}
