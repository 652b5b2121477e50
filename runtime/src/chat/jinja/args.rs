//! What a function, filter or macro is called with.

use super::budget::Budget;
use super::failure::{Failure, Result};
use super::value::Value;

/// Values by place and by name.
#[derive(Default)]
pub struct Args {
    /// In order.
    pub positional: Vec<Value>,
    /// As `name=value`.
    pub named: Vec<(String, Value)>,
}

impl Args {
    /// One value or none.
    pub fn of(value: Option<Value>) -> Self {
        Self {
            positional: value.into_iter().collect(),
            named: Vec::new(),
        }
    }

    /// The same again, for the next element.
    pub fn copied(&self, budget: &Budget) -> Result<Self> {
        let names: usize = self.named.iter().map(|(name, _)| name.len()).sum();
        budget.steps(self.positional.len() + self.named.len() + names)?;
        Ok(Self {
            positional: self.positional.clone(),
            named: self.named.clone(),
        })
    }

    /// The values for parameters of these names.
    pub fn bind<const N: usize>(self, what: &str, names: [&str; N]) -> Result<[Option<Value>; N]> {
        if self.positional.len() > N {
            return Err(Failure::wrong(format!("{what} takes at most {N} values")));
        }
        let mut bound = [const { None }; N];
        for (slot, value) in bound.iter_mut().zip(self.positional) {
            *slot = Some(value);
        }
        for (name, value) in self.named {
            match names.iter().position(|known| *known == name) {
                Some(at) if bound[at].is_none() => bound[at] = Some(value),
                _ => {
                    let why = format!("{what} takes no value called {name:?} here");
                    return Err(Failure::wrong(why));
                }
            }
        }
        Ok(bound)
    }
}

/// The text among `values`, or what there is without.
pub fn text_or(what: &str, value: Option<Value>, default: &str) -> Result<String> {
    match value {
        None => Ok(default.to_owned()),
        Some(value) => text(what, Some(&value)).map(str::to_owned),
    }
}

/// A text that must be there.
pub fn text<'v>(what: &str, value: Option<&'v Value>) -> Result<&'v str> {
    let found = value.and_then(Value::as_str);
    found.ok_or_else(|| wanted(what, "a text", value))
}

/// The whole number, or what there is without.
pub fn int_or(what: &str, value: Option<Value>, default: i64) -> Result<i64> {
    match value {
        None => Ok(default),
        Some(value) => {
            let number = value.as_int();
            number.ok_or_else(|| wanted(what, "a whole number", Some(&value)))
        }
    }
}

/// The condition, or what there is without.
pub fn flag_or(value: Option<Value>, default: bool) -> bool {
    value.map_or(default, |value| value.is_true())
}

fn wanted(what: &str, expected: &str, got: Option<&Value>) -> Box<Failure> {
    let got = got.map_or("nothing", Value::kind);
    Failure::wrong(format!("{what} wants {expected}, not {got}"))
}
