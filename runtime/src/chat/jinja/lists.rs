//! Filters that go through the elements of a list.

use std::cmp::Ordering;

use super::args::{Args, flag_or, int_or, text, text_or};
use super::budget::{Budget, Text};
use super::failure::{Failure, Result};
use super::print::{show, text_of};
use super::value::Value;
use super::{filters, methods, ops, predicates, texts};

/// `value | name(args)`.
pub fn apply(budget: &Budget, name: &str, value: &Value, args: Args) -> Result<Value> {
    match name {
        "length" | "count" => length(budget, value),
        "first" => Ok(value
            .iterate(budget)?
            .items()
            .first()
            .cloned()
            .unwrap_or(Value::Undefined(None))),
        "last" => Ok(value
            .iterate(budget)?
            .items()
            .last()
            .cloned()
            .unwrap_or(Value::Undefined(None))),
        "list" => Value::list(budget, copied(budget, value)?),
        "reverse" => {
            let mut items = copied(budget, value)?;
            items.reverse();
            Value::list(budget, items)
        }
        "items" => items(budget, value),
        "join" => join(budget, value, args),
        "map" => map(budget, value, args),
        "select" | "reject" => select(budget, name == "select", value, args),
        "selectattr" | "rejectattr" => select_by(budget, name == "selectattr", value, args),
        "sort" => sort(budget, value, args),
        "dictsort" => dictsort(budget, value, args),
        "unique" => unique(budget, value, args),
        "min" => extreme(budget, value, args, Ordering::Less),
        "max" => extreme(budget, value, args, Ordering::Greater),
        "sum" => sum(budget, value, args),
        "batch" => batch(budget, value, args),
        "slice" => slice(budget, value, args),
        _ => Err(Failure::wrong(format!("there is no filter {name:?}"))),
    }
}

/// The elements; whoever makes a list of them pays for it.
fn copied(budget: &Budget, value: &Value) -> Result<Vec<Value>> {
    let items = value.iterate(budget)?;
    budget.steps(items.items().len())?;
    Ok(items.items().to_vec())
}

fn length(budget: &Budget, value: &Value) -> Result<Value> {
    let n = match value {
        Value::Undefined(_) => 0,
        Value::Str(text) => {
            budget.search(text.len())?;
            text.chars().count()
        }
        Value::List(list) | Value::Tuple(list) => list.items().len(),
        Value::Dict(dict) => dict.entries().len(),
        Value::Loop(state) => state.items.items().len(),
        other => return Err(Failure::wrong(format!("{} has no length", other.kind()))),
    };
    Ok(Value::Int(i64::try_from(n).unwrap_or(i64::MAX)))
}

/// Keys and values of a mapping, in pairs.
pub fn items(budget: &Budget, value: &Value) -> Result<Value> {
    match value {
        Value::Undefined(_) => Value::list(budget, Vec::new()),
        Value::Dict(dict) => {
            let pair = |(key, value): &(Value, Value)| {
                Value::tuple(budget, vec![key.clone(), value.clone()])
            };
            let pairs = dict.entries().iter().map(pair).collect::<Result<_>>()?;
            Value::list(budget, pairs)
        }
        other => Err(Failure::wrong(format!("{} has no items", other.kind()))),
    }
}

fn join(budget: &Budget, value: &Value, args: Args) -> Result<Value> {
    let [between, attribute] = args.bind("join", ["d", "attribute"])?;
    let between = match between {
        Some(between) => text_of(budget, &between)?,
        None => String::new(),
    };
    let mut out = Text::new(budget);
    for (index, item) in value.iterate(budget)?.items().iter().enumerate() {
        if index > 0 {
            out.push(&between)?;
        }
        match &attribute {
            Some(attribute) => show(&mut out, &by_path(budget, item, attribute)?)?,
            None => show(&mut out, item)?,
        }
    }
    Ok(Value::paid(out.finish()))
}

/// `item.a.b`, or `item[0]`; undefined where there is none.
fn by_path(budget: &Budget, item: &Value, path: &Value) -> Result<Value> {
    let Value::Str(path) = path else {
        return ops::item(budget, item, path);
    };
    let mut value = item.clone();
    for part in path.split('.') {
        budget.steps(1)?;
        value = match part.parse() {
            Ok(at) => ops::item(budget, &value, &Value::Int(at))?,
            Err(_) => methods::attribute(budget, &value, part)?,
        };
    }
    Ok(value)
}

fn map(budget: &Budget, value: &Value, mut args: Args) -> Result<Value> {
    let items = value.iterate(budget)?;
    let mut mapped = Vec::new();
    if args.positional.is_empty() {
        let [attribute, default] = args.bind("map", ["attribute", "default"])?;
        let attribute = attribute.ok_or_else(|| Failure::wrong("map wants a filter"))?;
        for item in items.items() {
            budget.steps(1)?;
            let found = by_path(budget, item, &attribute)?;
            mapped.push(match (&found, &default) {
                (Value::Undefined(_), Some(default)) => default.clone(),
                _ => found,
            });
        }
    } else {
        let name = args.positional.remove(0);
        let name = text("map", Some(&name))?;
        for item in items.items() {
            mapped.push(filters::apply(budget, name, item, args.copied(budget)?)?);
        }
    }
    Value::list(budget, mapped)
}

/// Elements for which a test holds, or does not; without a test, the true ones.
fn select(budget: &Budget, wanted: bool, value: &Value, mut args: Args) -> Result<Value> {
    let test = match args.positional.is_empty() {
        true => None,
        false => Some(args.positional.remove(0)),
    };
    let mut selected = Vec::new();
    for item in value.iterate(budget)?.items() {
        budget.steps(1)?;
        if tested(budget, test.as_ref(), item, &args)? == wanted {
            selected.push(item.clone());
        }
    }
    Value::list(budget, selected)
}

fn select_by(budget: &Budget, wanted: bool, value: &Value, mut args: Args) -> Result<Value> {
    if args.positional.is_empty() {
        return Err(Failure::wrong(
            "selectattr and rejectattr want the name of an attribute",
        ));
    }
    let attribute = args.positional.remove(0);
    let test = match args.positional.is_empty() {
        true => None,
        false => Some(args.positional.remove(0)),
    };
    let mut selected = Vec::new();
    for item in value.iterate(budget)?.items() {
        budget.steps(1)?;
        let part = by_path(budget, item, &attribute)?;
        if tested(budget, test.as_ref(), &part, &args)? == wanted {
            selected.push(item.clone());
        }
    }
    Value::list(budget, selected)
}

fn tested(budget: &Budget, test: Option<&Value>, value: &Value, args: &Args) -> Result<bool> {
    match test {
        None => Ok(value.is_true()),
        Some(name) => {
            let name = text("a test", Some(name))?;
            predicates::holds(budget, name, value, args.copied(budget)?)
        }
    }
}

/// What an element is ordered by: an attribute of it, texts in small letters.
fn sort_key(
    budget: &Budget,
    item: &Value,
    attribute: Option<&Value>,
    case_sensitive: bool,
) -> Result<Value> {
    let key = match attribute {
        Some(attribute) => by_path(budget, item, attribute)?,
        None => item.clone(),
    };
    match &key {
        Value::Str(text) if !case_sensitive => texts::call(budget, text, "lower", Args::default()),
        _ => Ok(key),
    }
}

/// Sorts by keys, equal ones in their old order. The first failure to compare is the answer.
fn sorted(budget: &Budget, mut keyed: Vec<(Value, Value)>, reverse: bool) -> Result<Vec<Value>> {
    let mut failure = None;
    keyed.sort_by(|(a, _), (b, _)| {
        if failure.is_some() {
            return Ordering::Equal;
        }
        match ops::compare(budget, a, b) {
            Ok(order) => match reverse {
                true => order.unwrap_or(Ordering::Equal).reverse(),
                false => order.unwrap_or(Ordering::Equal),
            },
            Err(error) => {
                failure = Some(error);
                Ordering::Equal
            }
        }
    });
    match failure {
        Some(error) => Err(error),
        None => Ok(keyed.into_iter().map(|(_, item)| item).collect()),
    }
}

fn sort(budget: &Budget, value: &Value, args: Args) -> Result<Value> {
    let names = ["reverse", "case_sensitive", "attribute"];
    let [reverse, case, attribute] = args.bind("sort", names)?;
    let case = flag_or(case, false);
    let keyed = |item: Value| Ok((sort_key(budget, &item, attribute.as_ref(), case)?, item));
    let keyed: Vec<_> = copied(budget, value)?
        .into_iter()
        .map(keyed)
        .collect::<Result<_>>()?;
    Value::list(budget, sorted(budget, keyed, flag_or(reverse, false))?)
}

fn dictsort(budget: &Budget, value: &Value, args: Args) -> Result<Value> {
    let names = ["case_sensitive", "by", "reverse"];
    let [case, by, reverse] = args.bind("dictsort", names)?;
    let at = match text_or("dictsort", by, "key")?.as_str() {
        "key" => 0,
        "value" => 1,
        _ => return Err(Failure::wrong("dictsort is by key or by value")),
    };
    let (case, pairs) = (flag_or(case, false), items(budget, value)?);
    let keyed = |pair: Value| Ok((sort_key(budget, &pair, Some(&Value::Int(at)), case)?, pair));
    let keyed: Vec<_> = copied(budget, &pairs)?
        .into_iter()
        .map(keyed)
        .collect::<Result<_>>()?;
    Value::list(budget, sorted(budget, keyed, flag_or(reverse, false))?)
}

fn unique(budget: &Budget, value: &Value, args: Args) -> Result<Value> {
    let [case, attribute] = args.bind("unique", ["case_sensitive", "attribute"])?;
    let case = flag_or(case, false);
    let (mut keys, mut kept): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    for item in value.iterate(budget)?.items() {
        let key = sort_key(budget, item, attribute.as_ref(), case)?;
        let mut known = false;
        for other in &keys {
            known = known || ops::equal(budget, other, &key)?;
        }
        if !known {
            keys.push(key);
            kept.push(item.clone());
        }
    }
    Value::list(budget, kept)
}

fn extreme(budget: &Budget, value: &Value, args: Args, wanted: Ordering) -> Result<Value> {
    let [case, attribute] = args.bind("min and max", ["case_sensitive", "attribute"])?;
    let case = flag_or(case, false);
    let mut best: Option<(Value, Value)> = None;
    for item in value.iterate(budget)?.items() {
        let key = sort_key(budget, item, attribute.as_ref(), case)?;
        let better = match &best {
            None => true,
            Some((top, _)) => ops::compare(budget, &key, top)? == Some(wanted),
        };
        if better {
            best = Some((key, item.clone()));
        }
    }
    Ok(best.map_or(Value::Undefined(None), |(_, item)| item))
}

fn sum(budget: &Budget, value: &Value, args: Args) -> Result<Value> {
    let [attribute, start] = args.bind("sum", ["attribute", "start"])?;
    let mut total = start.unwrap_or(Value::Int(0));
    for item in value.iterate(budget)?.items() {
        budget.steps(1)?;
        total = match &attribute {
            Some(attribute) => ops::add(budget, &total, &by_path(budget, item, attribute)?)?,
            None => ops::add(budget, &total, item)?,
        };
    }
    Ok(total)
}

/// A number of at least one that `name` is given.
fn size(name: &str, value: Option<Value>) -> Result<usize> {
    let number = int_or(name, value, 0)?;
    let size = usize::try_from(number).ok().filter(|&size| size > 0);
    size.ok_or_else(|| Failure::wrong(format!("{name} wants a number of at least 1")))
}

/// Lists of so many elements each; the last is filled up where a filling is given.
fn batch(budget: &Budget, value: &Value, args: Args) -> Result<Value> {
    let [count, filling] = args.bind("batch", ["linecount", "fill_with"])?;
    let count = size("batch", count)?;
    let items = copied(budget, value)?;
    let mut batches = Vec::new();
    for part in items.chunks(count) {
        let mut part = part.to_vec();
        if let Some(filling) = filling
            .as_ref()
            .filter(|filling| !matches!(filling, Value::None))
        {
            let missing = count - part.len();
            budget.bytes(missing.saturating_mul(size_of::<Value>()))?;
            part.resize(count, filling.clone());
        }
        batches.push(Value::list(budget, part)?);
    }
    Value::list(budget, batches)
}

/// So many lists, the first ones one longer where it does not come out even.
fn slice(budget: &Budget, value: &Value, args: Args) -> Result<Value> {
    let [slices, filling] = args.bind("slice", ["slices", "fill_with"])?;
    let n_slices = size("slice", slices)?;
    let items = copied(budget, value)?;
    budget.bytes(n_slices.saturating_mul(size_of::<Value>()))?;
    let (each, longer) = (items.len() / n_slices, items.len() % n_slices);
    let (mut parts, mut done) = (Vec::new(), 0);
    for index in 0..n_slices {
        let n = each + usize::from(index < longer);
        let mut part = items[done..done + n].to_vec();
        done += n;
        if let Some(filling) = filling
            .as_ref()
            .filter(|filling| !matches!(filling, Value::None))
            && index >= longer
        {
            part.push(filling.clone());
        }
        parts.push(Value::list(budget, part)?);
    }
    Value::list(budget, parts)
}
