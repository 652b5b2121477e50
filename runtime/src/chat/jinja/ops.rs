//! Operators: sums, comparisons, look-ups and slices, with Python's rules.

use std::cmp::Ordering;

use super::budget::{Budget, Text};
use super::failure::{Failure, Result};
use super::percent;
use super::print::show;
use super::value::{List, Value};

/// What two numbers are combined by.
#[derive(Clone, Copy)]
pub enum Arithmetic {
    /// `-`
    Sub,
    /// `/`
    Div,
    /// `//`
    FloorDiv,
    /// `%`
    Rem,
    /// `**`
    Pow,
}

fn mismatch(op: &str, a: &Value, b: &Value) -> Box<Failure> {
    let (a, b) = (a.kind(), b.kind());
    Failure::wrong(format!("{a} {op} {b} has no meaning"))
}

fn overflow() -> Box<Failure> {
    Failure::wrong("a number is too large")
}

/// `a + b`: numbers, texts, lists.
pub fn add(budget: &Budget, a: &Value, b: &Value) -> Result<Value> {
    match (a, b) {
        (Value::Str(a), Value::Str(b)) => join(budget, &[a, b]),
        (Value::List(a), Value::List(b)) => Value::list(budget, chained(budget, a, b)?),
        (Value::Tuple(a), Value::Tuple(b)) => Value::tuple(budget, chained(budget, a, b)?),
        _ => match (a.as_int(), b.as_int()) {
            (Some(a), Some(b)) => a.checked_add(b).map(Value::Int).ok_or_else(overflow),
            _ => match (a.as_float(), b.as_float()) {
                (Some(a), Some(b)) => Ok(Value::Float(a + b)),
                _ => Err(mismatch("+", a, b)),
            },
        },
    }
}

/// Paid for by whom makes a list of it, but not before it is copied.
fn chained(budget: &Budget, a: &List, b: &List) -> Result<Vec<Value>> {
    budget.steps(a.items().len() + b.items().len())?;
    Ok(a.items().iter().chain(b.items()).cloned().collect())
}

fn join(budget: &Budget, texts: &[&str]) -> Result<Value> {
    let mut out = Text::new(budget);
    for text in texts {
        out.push(text)?;
    }
    Ok(Value::paid(out.finish()))
}

/// `a ~ b`: what both are written as.
pub fn concat(budget: &Budget, a: &Value, b: &Value) -> Result<Value> {
    let mut out = Text::new(budget);
    show(&mut out, a)?;
    show(&mut out, b)?;
    Ok(Value::paid(out.finish()))
}

/// `a * b`: numbers, and texts and lists so many times.
pub fn mul(budget: &Budget, a: &Value, b: &Value) -> Result<Value> {
    match (a, b) {
        (Value::Str(text), times) | (times, Value::Str(text)) => {
            let times = times.as_int().ok_or_else(|| mismatch("*", a, b))?;
            let mut out = Text::new(budget);
            out.repeat(text, usize::try_from(times).unwrap_or(0))?;
            Ok(Value::paid(out.finish()))
        }
        (Value::List(list), times) | (times, Value::List(list)) => {
            let times = times.as_int().ok_or_else(|| mismatch("*", a, b))?;
            let times = usize::try_from(times).unwrap_or(0);
            let n = list.items().len().saturating_mul(times);
            budget.bytes(n.saturating_mul(size_of::<Value>()))?;
            let items = list.items().iter().cycle().take(n).cloned();
            Value::list(budget, items.collect())
        }
        _ => match (a.as_int(), b.as_int()) {
            (Some(a), Some(b)) => a.checked_mul(b).map(Value::Int).ok_or_else(overflow),
            _ => match (a.as_float(), b.as_float()) {
                (Some(a), Some(b)) => Ok(Value::Float(a * b)),
                _ => Err(mismatch("*", a, b)),
            },
        },
    }
}

/// The operators that know numbers only, and `text % values`.
pub fn arithmetic(budget: &Budget, op: Arithmetic, a: &Value, b: &Value) -> Result<Value> {
    let sign = match op {
        Arithmetic::Sub => "-",
        Arithmetic::Div => "/",
        Arithmetic::FloorDiv => "//",
        Arithmetic::Rem => "%",
        Arithmetic::Pow => "**",
    };
    if let (Arithmetic::Rem, Value::Str(format)) = (op, a) {
        let values = match b {
            Value::Tuple(list) => list.items().to_vec(),
            other => vec![other.clone()],
        };
        return percent::format(budget, format, values, Vec::new());
    }
    if let (Some(x), Some(y)) = (a.as_int(), b.as_int()) {
        return integers(op, x, y);
    }
    let (Some(x), Some(y)) = (a.as_float(), b.as_float()) else {
        return Err(mismatch(sign, a, b));
    };
    if y == 0.0 && matches!(op, Arithmetic::Div | Arithmetic::FloorDiv | Arithmetic::Rem) {
        return Err(Failure::wrong("a division by zero"));
    }
    Ok(Value::Float(match op {
        Arithmetic::Sub => x - y,
        Arithmetic::Div => x / y,
        Arithmetic::FloorDiv => (x / y).floor(),
        Arithmetic::Rem => x - y * (x / y).floor(),
        Arithmetic::Pow => x.powf(y),
    }))
}

fn integers(op: Arithmetic, x: i64, y: i64) -> Result<Value> {
    if y == 0 && matches!(op, Arithmetic::Div | Arithmetic::FloorDiv | Arithmetic::Rem) {
        return Err(Failure::wrong("a division by zero"));
    }
    let whole = match op {
        Arithmetic::Div => return Ok(Value::Float(x as f64 / y as f64)),
        Arithmetic::Pow if y < 0 => return Ok(Value::Float((x as f64).powf(y as f64))),
        Arithmetic::Sub => x.checked_sub(y),
        Arithmetic::FloorDiv => floor_div(x, y),
        Arithmetic::Rem => floor_div(x, y).and_then(|q| x.checked_sub(q.checked_mul(y)?)),
        Arithmetic::Pow => u32::try_from(y).ok().and_then(|y| x.checked_pow(y)),
    };
    whole.map(Value::Int).ok_or_else(overflow)
}

fn floor_div(x: i64, y: i64) -> Option<i64> {
    let quotient = x.checked_div(y)?;
    let inexact = x.checked_rem(y)? != 0;
    Some(quotient - i64::from(inexact && (x < 0) != (y < 0)))
}

/// `-a`.
pub fn negate(a: &Value) -> Result<Value> {
    match a {
        Value::Float(number) => Ok(Value::Float(-number)),
        other => match other.as_int() {
            Some(number) => number.checked_neg().map(Value::Int).ok_or_else(overflow),
            None => Err(Failure::wrong(format!("-{} has no meaning", other.kind()))),
        },
    }
}

/// `a == b`, through lists and mappings.
pub fn equal(budget: &Budget, a: &Value, b: &Value) -> Result<bool> {
    budget.steps(1)?;
    Ok(match (a, b) {
        (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
        (Value::Str(a), Value::Str(b)) => {
            if a.len() == b.len() {
                budget.search(a.len())?;
            }
            a == b
        }
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            let (a, b) = (a.items(), b.items());
            if a.len() != b.len() {
                return Ok(false);
            }
            for (a, b) in a.iter().zip(b) {
                if !equal(budget, a, b)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Dict(a), Value::Dict(b)) => {
            if a.entries().len() != b.entries().len() {
                return Ok(false);
            }
            for (key, value) in a.entries() {
                match b.get(budget, key)? {
                    Some(other) if equal(budget, value, other)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        (Value::Namespace(a), Value::Namespace(b)) => std::rc::Rc::ptr_eq(a, b),
        (Value::Macro(a), Value::Macro(b)) => a == b,
        (Value::Function(a), Value::Function(b)) => a == b,
        _ => match (a.as_int(), b.as_int()) {
            (Some(a), Some(b)) => a == b,
            _ => match (a.as_float(), b.as_float()) {
                (Some(a), Some(b)) => a == b,
                _ => false,
            },
        },
    })
}

/// The order of two numbers, texts or lists; `None` with a number that is none.
pub fn compare(budget: &Budget, a: &Value, b: &Value) -> Result<Option<Ordering>> {
    budget.steps(1)?;
    Ok(match (a, b) {
        (Value::Str(a), Value::Str(b)) => {
            budget.search(a.len().min(b.len()))?;
            Some(a.cmp(b))
        }
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            for (a, b) in a.items().iter().zip(b.items()) {
                if !equal(budget, a, b)? {
                    return compare(budget, a, b);
                }
            }
            Some(a.items().len().cmp(&b.items().len()))
        }
        _ => match (a.as_int(), b.as_int()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => match (a.as_float(), b.as_float()) {
                (Some(a), Some(b)) => a.partial_cmp(&b),
                _ => return Err(mismatch("<", a, b)),
            },
        },
    })
}

/// `a in b`.
pub fn contains(budget: &Budget, within: &Value, what: &Value) -> Result<bool> {
    match within {
        Value::Undefined(_) => Ok(false),
        Value::Str(text) => {
            let Some(part) = what.as_str() else {
                return Err(mismatch("in", what, within));
            };
            budget.search(text.len())?;
            Ok(text.contains(part))
        }
        Value::List(list) | Value::Tuple(list) => {
            for item in list.items() {
                if equal(budget, item, what)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Dict(dict) => Ok(dict.get(budget, what)?.is_some()),
        _ => Err(mismatch("in", what, within)),
    }
}

/// `value[key]`, undefined where there is none.
pub fn item(budget: &Budget, value: &Value, key: &Value) -> Result<Value> {
    let found = match (value, key) {
        (Value::Undefined(name), _) => return Err(no_parts(name.as_deref())),
        (Value::Dict(dict), key) => dict.get(budget, key)?.cloned(),
        (Value::Namespace(namespace), Value::Str(name)) => namespace.get(name),
        (Value::List(list) | Value::Tuple(list), key) => {
            let items = list.items();
            let at = key.as_int().and_then(|at| position(at, items.len()));
            at.map(|at| items[at].clone())
        }
        (Value::Str(text), key) => match key.as_int() {
            None => None,
            Some(at) => {
                budget.search(text.len())?;
                let at = position(at, text.chars().count());
                let letter = at.and_then(|at| text.chars().nth(at));
                letter.map(|c| Value::paid(c.to_string()))
            }
        },
        _ => None,
    };
    let name = key
        .as_str()
        .map(|name| super::failure::cut(name, 60).into());
    Ok(found.unwrap_or(Value::Undefined(name)))
}

/// What is said of looking into nothing.
pub fn no_parts(name: Option<&str>) -> Box<Failure> {
    match name {
        Some(name) => Failure::wrong(format!("{name:?} is undefined")),
        None => Failure::wrong("the value is undefined"),
    }
}

fn position(at: i64, n: usize) -> Option<usize> {
    let at = match at < 0 {
        true => at.checked_add(i64::try_from(n).ok()?)?,
        false => at,
    };
    usize::try_from(at).ok().filter(|&at| at < n)
}

/// `value[start:stop:step]` of a text or a list.
pub fn slice(budget: &Budget, value: &Value, [start, stop, step]: [Value; 3]) -> Result<Value> {
    let number = |bound: &Value| match bound {
        Value::None => Ok(None),
        other => match other.as_int() {
            Some(number) => Ok(Some(number)),
            None => Err(Failure::wrong(format!(
                "{} is no bound of a slice",
                other.kind()
            ))),
        },
    };
    let bounds = (number(&start)?, number(&stop)?, number(&step)?.unwrap_or(1));
    match value {
        Value::Str(text) => {
            budget.bytes(text.len().saturating_mul(size_of::<char>() + 1))?;
            let letters: Vec<char> = text.chars().collect();
            let taken = indices(letters.len(), bounds)?.map(|at| letters[at]);
            Ok(Value::paid(taken.collect()))
        }
        Value::List(list) | Value::Tuple(list) => {
            let items = list.items();
            budget.steps(items.len())?;
            let taken = indices(items.len(), bounds)?
                .map(|at| items[at].clone())
                .collect();
            match value {
                Value::Tuple(_) => Value::tuple(budget, taken),
                _ => Value::list(budget, taken),
            }
        }
        Value::Undefined(name) => Err(no_parts(name.as_deref())),
        other => Err(Failure::wrong(format!("{} cannot be sliced", other.kind()))),
    }
}

/// The places that a slice of `n` elements takes, in its order.
fn indices(
    n: usize,
    (start, stop, step): (Option<i64>, Option<i64>, i64),
) -> Result<Box<dyn Iterator<Item = usize>>> {
    let n = i64::try_from(n).map_err(|_| overflow())?;
    let clamp = |bound: i64, low: i64, high: i64| {
        let bound = if bound < 0 {
            bound.saturating_add(n)
        } else {
            bound
        };
        bound.clamp(low, high)
    };
    let stride = usize::try_from(step.unsigned_abs()).unwrap_or(usize::MAX);
    let index = |at: i64| usize::try_from(at).expect("a bound is clamped to the list");
    match step {
        0 => Err(Failure::wrong("a slice with a step of zero")),
        1.. => {
            let (from, to) = (
                start.map_or(0, |b| clamp(b, 0, n)),
                stop.map_or(n, |b| clamp(b, 0, n)),
            );
            Ok(Box::new((from..to).step_by(stride).map(index)))
        }
        _ => {
            let from = start.map_or(n - 1, |b| clamp(b, -1, n - 1));
            let to = stop.map_or(-1, |b| clamp(b, -1, n - 1));
            Ok(Box::new(
                (to + 1..from + 1).rev().step_by(stride).map(index),
            ))
        }
    }
}
