//! What follows `is`: the tests of the dialect.

use std::cmp::Ordering;

use super::args::Args;
use super::budget::Budget;
use super::failure::{Failure, Result};
use super::ops::{compare, contains, equal};
use super::value::Value;

/// `value is name(args)`.
pub fn holds(budget: &Budget, name: &str, value: &Value, args: Args) -> Result<bool> {
    budget.steps(1)?;
    let other = |args: Args| {
        let [other] = args.bind(name, ["other"])?;
        other.ok_or_else(|| Failure::wrong(format!("the test {name} wants a value")))
    };
    let number = || {
        let number = value.as_int();
        number.ok_or_else(|| Failure::wrong(format!("the test {name} of {}", value.kind())))
    };
    let ordered = |args: Args| compare(budget, value, &other(args)?);
    let letters = |keep: fn(char) -> bool, drop: fn(char) -> bool| {
        let text = value.as_str().unwrap_or("");
        budget.search(text.len())?;
        Ok::<_, Box<Failure>>(text.chars().any(keep) && !text.chars().any(drop))
    };
    Ok(match name {
        "defined" => !matches!(value, Value::Undefined(_)),
        "undefined" => matches!(value, Value::Undefined(_)),
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => value.as_float().is_some(),
        "string" => matches!(value, Value::Str(_)),
        "mapping" => matches!(value, Value::Dict(_)),
        "sequence" => matches!(
            value,
            Value::Str(_) | Value::List(_) | Value::Tuple(_) | Value::Dict(_) | Value::Undefined(_)
        ),
        "iterable" => matches!(
            value,
            Value::Str(_)
                | Value::List(_)
                | Value::Tuple(_)
                | Value::Dict(_)
                | Value::Undefined(_)
                | Value::Loop(_)
        ),
        "callable" => matches!(
            value,
            Value::Macro(_) | Value::Caller(_) | Value::Function(_) | Value::Method(_)
        ),
        "escaped" => false,
        "odd" => number()?.rem_euclid(2) == 1,
        "even" => number()?.rem_euclid(2) == 0,
        "divisibleby" => {
            let by = other(args)?.as_int().filter(|&by| by != 0);
            let by = by.ok_or_else(|| Failure::wrong("divisibleby wants a number but zero"))?;
            number()?.checked_rem(by) == Some(0)
        }
        "lower" => letters(char::is_lowercase, char::is_uppercase)?,
        "upper" => letters(char::is_uppercase, char::is_lowercase)?,
        "in" => contains(budget, &other(args)?, value)?,
        "eq" | "equalto" | "==" => equal(budget, value, &other(args)?)?,
        "sameas" => {
            let other = other(args)?;
            let same_kind = std::mem::discriminant(value) == std::mem::discriminant(&other);
            same_kind && equal(budget, value, &other)?
        }
        "ne" | "!=" => !equal(budget, value, &other(args)?)?,
        "lt" | "lessthan" | "<" => ordered(args)? == Some(Ordering::Less),
        "gt" | "greaterthan" | ">" => ordered(args)? == Some(Ordering::Greater),
        "le" | "<=" => matches!(ordered(args)?, Some(Ordering::Less | Ordering::Equal)),
        "ge" | ">=" => matches!(ordered(args)?, Some(Ordering::Greater | Ordering::Equal)),
        _ => return Err(Failure::wrong(format!("there is no test {name:?}"))),
    })
}
