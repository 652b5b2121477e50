//! Spoiling JSON as a tree: values become others, keys go, come twice or are called otherwise, depth grows.

use super::draw::Draw;
use super::text::text;
use serde_json::{Map, Value, json};

/// A value of any kind.
pub fn value(draw: &mut Draw, depth: usize) -> Value {
    match draw.below(if depth == 0 { 6 } else { 9 }) {
        0 => Value::Null,
        1 => Value::Bool(draw.one_in(2)),
        2 => json!(draw.number()),
        3 => json!(draw.number() as i64),
        4 => json!(draw.float()),
        5 => Value::String(text(draw)),
        6 => (0..draw.below(4)).map(|_| value(draw, depth - 1)).collect(),
        7 => {
            let n = draw.below(4);
            Value::Object(
                (0..n)
                    .map(|_| (text(draw), value(draw, depth - 1)))
                    .collect(),
            )
        }
        _ => nested(draw),
    }
}

/// Something inside something inside something.
fn nested(draw: &mut Draw) -> Value {
    let list = draw.one_in(2);
    let depth = draw.below(200);
    (0..depth).fold(json!(1), |inner, _| {
        if list {
            json!([inner])
        } else {
            json!({ "a": inner })
        }
    })
}

/// Changes one place of `tree`. `known` are keys and texts that mean something in this format.
pub fn spoil(draw: &mut Draw, tree: &mut Value, known: &[&str]) {
    let n = count(tree);
    let mut at = draw.below(n);
    if let Some(place) = nth(tree, &mut at) {
        change(draw, place, known);
    }
}

fn change(draw: &mut Draw, place: &mut Value, known: &[&str]) {
    match place {
        Value::Object(map) if !draw.one_in(4) => change_map(draw, map, known),
        Value::Array(list) if !draw.one_in(4) && !list.is_empty() => {
            let at = draw.below(list.len());
            match draw.below(3) {
                0 => drop(list.remove(at)),
                1 => list.insert(at, list[at].clone()),
                _ => list[at] = value(draw, 2),
            }
        }
        Value::String(_) if draw.one_in(2) && !known.is_empty() => *place = json!(draw.pick(known)),
        Value::Number(_) if !draw.one_in(4) => *place = json!(draw.number()),
        _ => *place = value(draw, 2),
    }
}

fn change_map(draw: &mut Draw, map: &mut Map<String, Value>, known: &[&str]) {
    let keys: Vec<String> = map.keys().cloned().collect();
    let name = |draw: &mut Draw| match known.is_empty() || draw.one_in(3) {
        true => text(draw),
        false => (*draw.pick(known)).to_owned(),
    };
    match keys.is_empty() || draw.one_in(3) {
        true => {
            let key = name(draw);
            map.insert(key, value(draw, 2));
        }
        false => {
            let key = draw.pick(&keys).clone();
            let old = map.remove(&key);
            if draw.one_in(2) {
                let key = name(draw);
                map.insert(key, old.unwrap_or(Value::Null));
            }
        }
    }
}

fn children(tree: &mut Value) -> Vec<&mut Value> {
    match tree {
        Value::Array(list) => list.iter_mut().collect(),
        Value::Object(map) => map.values_mut().collect(),
        _ => Vec::new(),
    }
}

fn count(tree: &Value) -> usize {
    1 + match tree {
        Value::Array(list) => list.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    }
}

fn nth<'v>(tree: &'v mut Value, at: &mut usize) -> Option<&'v mut Value> {
    if *at == 0 {
        return Some(tree);
    }
    *at -= 1;
    for child in children(tree) {
        let n = count(child);
        if *at < n {
            return nth(child, at);
        }
        *at -= n;
    }
    None
}
