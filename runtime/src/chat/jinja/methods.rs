//! Attributes and methods of values: Python's, but for those that would change a value. Those of texts are in `texts`.

use std::rc::Rc;

use super::args::Args;
use super::budget::Budget;
use super::failure::{Failure, Result};
use super::value::Value;
use super::{lists, ops, texts};

/// Methods of mappings; a key of the same name is found by `['name']`.
const OF_DICT: &[&str] = &["items", "keys", "values", "get", "copy"];
const OF_LIST: &[&str] = &["index", "count", "copy"];

/// What Python's own methods would change; chat templates may not.
const CHANGING: &[&str] = &[
    "append",
    "extend",
    "insert",
    "pop",
    "remove",
    "clear",
    "sort",
    "reverse",
    "update",
    "setdefault",
    "popitem",
];

/// Whether `name` is a method of `value`, one that templates may call or not.
pub fn has(value: &Value, name: &str) -> bool {
    let methods: &[&str] = match value {
        Value::Dict(_) => OF_DICT,
        Value::List(_) | Value::Tuple(_) => OF_LIST,
        Value::Str(_) => texts::METHODS,
        Value::Loop(_) => &["cycle"],
        _ => &[],
    };
    let changing = matches!(value, Value::Dict(_) | Value::List(_)) && CHANGING.contains(&name);
    methods.contains(&name) || changing
}

/// `value.name`.
pub fn attribute(budget: &Budget, value: &Value, name: &str) -> Result<Value> {
    match value {
        Value::Undefined(undefined) => Err(ops::no_parts(undefined.as_deref())),
        Value::Loop(state) => Ok(of_loop(state, name)),
        other if has(other, name) => method(budget, value, name),
        other => ops::item(budget, other, &Value::text(budget, name)?),
    }
}

/// `value[key]`, where a name may be that of a method, too.
pub fn subscript(budget: &Budget, value: &Value, key: &Value) -> Result<Value> {
    let found = ops::item(budget, value, key)?;
    match (&found, key) {
        (Value::Undefined(_), Value::Str(name)) if has(value, name) => method(budget, value, name),
        _ => Ok(found),
    }
}

fn method(budget: &Budget, value: &Value, name: &str) -> Result<Value> {
    budget.bytes(size_of::<(Value, Rc<str>)>() + name.len())?;
    Ok(Value::Method(Rc::new((value.clone(), name.into()))))
}

fn of_loop(state: &super::value::Loop, name: &str) -> Value {
    let items = state.items.items();
    let (index, n) = (state.index.get(), items.len());
    let number = |number: usize| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
    let at = |index: Option<usize>| {
        let found = index.and_then(|index| items.get(index)).cloned();
        found.unwrap_or(Value::Undefined(None))
    };
    match name {
        "index" => number(index + 1),
        "index0" => number(index),
        "revindex" => number(n - index),
        "revindex0" => number(n - index - 1),
        "first" => Value::Bool(index == 0),
        "last" => Value::Bool(index + 1 == n),
        "length" => number(n),
        // Levels of a recursive loop, which there are none of.
        "depth" => number(1),
        "depth0" => number(0),
        "previtem" => at(index.checked_sub(1)),
        "nextitem" => at(Some(index + 1)),
        _ => Value::Undefined(None),
    }
}

/// `value.name(args)`, for what every value of that sort can do.
pub fn call(budget: &Budget, value: &Value, name: &str, args: Args) -> Result<Value> {
    budget.steps(1)?;
    if matches!(value, Value::Dict(_) | Value::List(_)) && CHANGING.contains(&name) {
        let why = format!(
            "{name}() would change {}, which templates may not",
            value.kind()
        );
        return Err(Failure::wrong(why));
    }
    match value {
        Value::Str(text) => texts::call(budget, text, name, args),
        Value::Dict(dict) => match name {
            "items" => lists::items(budget, value),
            "keys" => Value::list(
                budget,
                dict.entries().iter().map(|(key, _)| key.clone()).collect(),
            ),
            "values" => {
                let values = dict.entries().iter().map(|(_, value)| value.clone());
                Value::list(budget, values.collect())
            }
            "copy" => Ok(value.clone()),
            "get" => {
                let [key, default] = args.bind("get", ["key", "default"])?;
                let key = key.ok_or_else(|| Failure::wrong("get wants a key"))?;
                let found = dict.get(budget, &key)?.cloned();
                Ok(found.or(default).unwrap_or(Value::None))
            }
            _ => Err(no_method(value, name)),
        },
        Value::List(list) | Value::Tuple(list) => {
            let [wanted] = args.bind(name, ["value"])?;
            let mut places = Vec::new();
            for (at, item) in list.items().iter().enumerate() {
                if let Some(wanted) = &wanted
                    && ops::equal(budget, item, wanted)?
                {
                    places.push(at);
                }
            }
            let number = |n: usize| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
            match (name, places.first()) {
                ("copy", _) => Ok(value.clone()),
                ("count", _) => Ok(number(places.len())),
                ("index", Some(&at)) => Ok(number(at)),
                ("index", None) => Err(Failure::wrong("index of a value that is not in the list")),
                _ => Err(no_method(value, name)),
            }
        }
        Value::Loop(state) if name == "cycle" => {
            let n = args.positional.len();
            let at = state.index.get().checked_rem(n);
            let chosen = at.and_then(|at| args.positional.get(at)).cloned();
            chosen.ok_or_else(|| Failure::wrong("cycle wants values"))
        }
        Value::Undefined(undefined) => Err(ops::no_parts(undefined.as_deref())),
        other => Err(no_method(other, name)),
    }
}

fn no_method(value: &Value, name: &str) -> Box<Failure> {
    Failure::wrong(format!("{} has no method {name:?}", value.kind()))
}
