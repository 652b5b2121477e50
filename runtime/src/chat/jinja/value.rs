//! The values of a template: Python's, as far as templates use them, and never changed once made.
//!
//! Only a namespace changes, and it can be part of nothing. So values form no cycles, and a list counts how deep it
//! is when it is made: what walks a value, to print, compare, copy or drop it, goes no deeper than [`MAX_NESTING`].

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use serde_json::Value as Json;

use super::budget::Budget;
use super::failure::{Failure, Result};

/// Levels of lists and mappings in each other; JSON texts are read with less.
const MAX_NESTING: usize = 150;

/// A value; cheap to copy.
#[derive(Clone)]
pub enum Value {
    /// A name that stands for nothing, where it is known.
    Undefined(Option<Rc<str>>),
    /// `none`.
    None,
    /// `true` or `false`; counts as 1 or 0 in sums.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A text.
    Str(Rc<str>),
    /// `[a, b]`.
    List(Rc<List>),
    /// `(a, b)`.
    Tuple(Rc<List>),
    /// `{'a': b}`.
    Dict(Rc<Dict>),
    /// `namespace()`: the one thing with attributes that can be set.
    Namespace(Rc<Namespace>),
    /// `loop`.
    Loop(Rc<Loop>),
    /// The number of a macro.
    Macro(usize),
    /// The number of a `{% call %}` block that is running.
    Caller(usize),
    /// A function of the dialect.
    Function(Function),
    /// A method with the value it belongs to.
    Method(Rc<(Value, Rc<str>)>),
}

/// Functions that every template can call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// `range(stop)`, `range(start, stop, step)`.
    Range,
    /// `dict(a=1)`.
    Dict,
    /// `namespace(a=1)`.
    Namespace,
    /// `raise_exception(message)`.
    RaiseException,
    /// `strftime_now(format)`.
    StrftimeNow,
}

impl Function {
    /// By name.
    pub const ALL: [(&'static str, Self); 5] = [
        ("range", Self::Range),
        ("dict", Self::Dict),
        ("namespace", Self::Namespace),
        ("raise_exception", Self::RaiseException),
        ("strftime_now", Self::StrftimeNow),
    ];
}

/// Values in order.
pub struct List {
    items: Vec<Value>,
    depth: usize,
}

/// Values by key, in the order of their first appearance.
pub struct Dict {
    entries: Vec<(Value, Value)>,
    depth: usize,
}

/// Values by name, which a template may set.
#[derive(Default)]
pub struct Namespace(RefCell<Vec<(Rc<str>, Value)>>);

/// A running loop.
pub struct Loop {
    /// What it goes through.
    pub items: Rc<List>,
    /// Which it is at, from 0.
    pub index: Cell<usize>,
}

impl List {
    /// The values.
    pub fn items(&self) -> &[Value] {
        &self.items
    }
}

impl Dict {
    /// Keys and values.
    pub fn entries(&self) -> &[(Value, Value)] {
        &self.entries
    }

    /// The value of `key`.
    pub fn get(&self, budget: &Budget, key: &Value) -> Result<Option<&Value>> {
        budget.steps(self.entries.len() / 8)?;
        let found = self.entries.iter().find(|(known, _)| same_key(known, key));
        Ok(found.map(|(_, value)| value))
    }

    /// The value of a key that is a text.
    pub fn get_str(&self, budget: &Budget, key: &str) -> Result<Option<&Value>> {
        budget.steps(self.entries.len() / 8)?;
        let is = |known: &Value| matches!(known, Value::Str(text) if **text == *key);
        let found = self.entries.iter().find(|(known, _)| is(known));
        Ok(found.map(|(_, value)| value))
    }
}

fn same_key(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Str(a), Value::Str(b)) => a == b,
        (Value::None, Value::None) => true,
        _ => match (a.as_int(), b.as_int()) {
            (Some(a), Some(b)) => a == b,
            _ => false,
        },
    }
}

impl Namespace {
    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<Value> {
        let values = self.0.borrow();
        let found = values.iter().find(|(known, _)| **known == *name);
        found.map(|(_, value)| value.clone())
    }

    /// Sets `name`.
    pub fn set(&self, budget: &Budget, name: &str, value: Value) -> Result<()> {
        if matches!(value, Value::Namespace(_)) {
            return Err(Failure::wrong("a namespace cannot be part of a namespace"));
        }
        let mut values = self.0.borrow_mut();
        budget.steps(values.len() / 8)?;
        match values.iter_mut().find(|(known, _)| **known == *name) {
            Some((_, old)) => *old = value,
            None => {
                budget.bytes(name.len() + ENTRY_BYTES)?;
                values.push((name.into(), value));
            }
        }
        Ok(())
    }

    /// All names and values.
    pub fn values(&self) -> Vec<(Rc<str>, Value)> {
        self.0.borrow().clone()
    }
}

/// What an element of a list takes, and a list itself.
const ITEM_BYTES: usize = size_of::<Value>();
const ENTRY_BYTES: usize = 2 * ITEM_BYTES;
const OBJECT_BYTES: usize = 64;

fn nested<'v>(values: impl Iterator<Item = &'v Value>) -> Result<usize> {
    let mut depth = 0;
    for value in values {
        if matches!(value, Value::Namespace(_)) {
            return Err(Failure::wrong(
                "a namespace cannot be part of a list or mapping",
            ));
        }
        depth = depth.max(value.depth());
    }
    match depth < MAX_NESTING {
        true => Ok(depth + 1),
        false => Err(Failure::costly("levels of lists in lists")),
    }
}

impl Value {
    /// A text that has been paid for.
    pub fn paid(text: String) -> Self {
        Self::Str(text.into())
    }

    /// A text.
    pub fn text(budget: &Budget, text: &str) -> Result<Self> {
        budget.bytes(text.len() + OBJECT_BYTES)?;
        Ok(Self::Str(text.into()))
    }

    /// A list.
    pub fn list(budget: &Budget, items: Vec<Self>) -> Result<Self> {
        Ok(Self::List(list(budget, items)?))
    }

    /// A tuple.
    pub fn tuple(budget: &Budget, items: Vec<Self>) -> Result<Self> {
        Ok(Self::Tuple(list(budget, items)?))
    }

    /// A mapping; of equal keys the last value counts.
    pub fn dict(budget: &Budget, pairs: Vec<(Self, Self)>) -> Result<Self> {
        budget.bytes(OBJECT_BYTES + pairs.len() * ENTRY_BYTES)?;
        let mut entries: Vec<(Self, Self)> = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            if !matches!(
                key,
                Self::Str(_) | Self::Int(_) | Self::Bool(_) | Self::None
            ) {
                let kind = key.kind();
                return Err(Failure::wrong(format!(
                    "{kind} cannot be the key of a mapping"
                )));
            }
            budget.steps(entries.len() / 8)?;
            match entries.iter_mut().find(|(known, _)| same_key(known, &key)) {
                Some((_, old)) => *old = value,
                None => entries.push((key, value)),
            }
        }
        let depth = nested(entries.iter().map(|(_, value)| value))?;
        Ok(Self::Dict(Rc::new(Dict { entries, depth })))
    }

    /// What the caller gives, which is not the template's to pay.
    pub fn from_json(json: &Json) -> Result<Self> {
        Self::from_json_below(json, 0)
    }

    fn from_json_below(json: &Json, above: usize) -> Result<Self> {
        if above >= MAX_NESTING {
            return Err(Failure::costly("levels of lists in lists"));
        }
        Ok(match json {
            Json::Null => Self::None,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(whole) => Self::Int(whole),
                None => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Self::Str(text.as_str().into()),
            Json::Array(items) => {
                let items = items
                    .iter()
                    .map(|item| Self::from_json_below(item, above + 1));
                let items: Vec<Self> = items.collect::<Result<_>>()?;
                let depth = nested(items.iter())?;
                Self::List(Rc::new(List { items, depth }))
            }
            Json::Object(entries) => {
                let entry = |(key, value): (&String, &Json)| {
                    let value = Self::from_json_below(value, above + 1)?;
                    Ok((Self::Str(key.as_str().into()), value))
                };
                let entries: Vec<(Self, Self)> =
                    entries.iter().map(entry).collect::<Result<_>>()?;
                let depth = nested(entries.iter().map(|(_, value)| value))?;
                Self::Dict(Rc::new(Dict { entries, depth }))
            }
        })
    }

    /// Levels of lists in it.
    fn depth(&self) -> usize {
        match self {
            Self::List(list) | Self::Tuple(list) => list.depth,
            Self::Dict(dict) => dict.depth,
            Self::Loop(state) => state.items.depth + 1,
            Self::Method(bound) => bound.0.depth() + 1,
            _ => 0,
        }
    }

    /// What sort of value it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "an undefined value",
            Self::None => "none",
            Self::Bool(_) => "a truth value",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Str(_) => "a text",
            Self::List(_) => "a list",
            Self::Tuple(_) => "a tuple",
            Self::Dict(_) => "a mapping",
            Self::Namespace(_) => "a namespace",
            Self::Loop(_) => "a loop",
            Self::Macro(_) | Self::Caller(_) => "a macro",
            Self::Function(_) | Self::Method(_) => "a function",
        }
    }

    /// Whether a condition with it holds.
    pub fn is_true(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Str(text) => !text.is_empty(),
            Self::List(list) | Self::Tuple(list) => !list.items.is_empty(),
            Self::Dict(dict) => !dict.entries.is_empty(),
            _ => true,
        }
    }

    /// Whole numbers, truth values among them.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            Self::Bool(value) => Some(i64::from(*value)),
            _ => None,
        }
    }

    /// Numbers of any sort.
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            _ => self.as_int().map(|value| value as f64),
        }
    }

    /// Texts.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// What a loop over it goes through: elements, characters, keys; nothing where it is undefined.
    pub fn iterate(&self, budget: &Budget) -> Result<Rc<List>> {
        let items = match self {
            Self::List(items) | Self::Tuple(items) => return Ok(items.clone()),
            Self::Undefined(_) => Vec::new(),
            Self::Str(text) => {
                budget.bytes(text.len().saturating_mul(ITEM_BYTES + OBJECT_BYTES))?;
                let letter = |c: char| Self::Str(c.encode_utf8(&mut [0; 4]).into());
                text.chars().map(letter).collect()
            }
            Self::Dict(dict) => dict.entries.iter().map(|(key, _)| key.clone()).collect(),
            other => {
                let kind = other.kind();
                return Err(Failure::wrong(format!(
                    "{kind} has no elements to go through"
                )));
            }
        };
        list(budget, items)
    }
}

/// A list that has not become a value yet.
pub fn list(budget: &Budget, items: Vec<Value>) -> Result<Rc<List>> {
    budget.bytes(OBJECT_BYTES + items.len() * ITEM_BYTES)?;
    let depth = nested(items.iter())?;
    Ok(Rc::new(List { items, depth }))
}
