//! Hardware profiles: a right one with lines, keys and values spoiled.

use super::draw::Draw;
use super::readable;
use super::text::{damage, text};
use bitnet_runtime::profile::{self, SHIPPED};
use std::sync::OnceLock;

/// The head of a shipped profile and its first entries.
fn right() -> &'static str {
    static RIGHT: OnceLock<String> = OnceLock::new();
    RIGHT.get_or_init(|| {
        let shipped = SHIPPED.first().expect("a shipped profile");
        let entries: Vec<&str> = shipped.text.split("[[kernel]]").take(4).collect();
        entries.join("[[kernel]]")
    })
}

fn spoil(draw: &mut Draw, lines: &mut Vec<String>) {
    if lines.is_empty() {
        return;
    }
    let at = draw.below(lines.len());
    match draw.below(5) {
        0 => drop(lines.remove(at)),
        1 => lines.insert(at, lines[at].clone()),
        2 => {
            let key = lines[at].split('=').next().unwrap_or_default().to_owned();
            let value = match draw.below(5) {
                0 => draw.number().to_string(),
                1 => format!("{:?}", draw.float()),
                2 => format!("{:?}", text(draw)),
                3 => "[".repeat(draw.below(300)),
                _ => "\"i2s-i2s-1x65536c65536-avx2\"".into(),
            };
            lines[at] = format!("{key}= {value}");
        }
        3 => lines[at] = text(draw),
        _ => {
            let other = draw.below(lines.len());
            lines.swap(at, other);
        }
    }
}

/// One execution.
///
/// # Errors
/// What was found.
pub fn run(draw: &mut Draw) -> Result<(), String> {
    let mut lines: Vec<String> = right().lines().map(str::to_owned).collect();
    for _ in 0..1 + draw.below(4) {
        spoil(draw, &mut lines);
    }
    let mut bytes = lines.join("\n").into_bytes();
    if draw.one_in(3) {
        let head = bytes.len();
        damage(draw, &mut bytes, head);
    }
    let text = String::from_utf8_lossy(&bytes);
    match profile::parse(&text) {
        Err(e) => readable(&e),
        Ok(read) => {
            let written = profile::render(&read);
            match profile::parse(&written) {
                Ok(again) if profile::render(&again) == written => Ok(()),
                Ok(_) => Err("a profile changes when it is written again".into()),
                Err(e) => Err(format!("a written profile is refused: {e}")),
            }
        }
    }
}
