//! Functions that every template can call.

use std::rc::Rc;

use super::args::{Args, int_or, text};
use super::budget::Budget;
use super::clock;
use super::failure::{Failure, Result};
use super::print::text_of;
use super::value::{Function, Namespace, Value};

/// Numbers of one range: Jinja's own limit for templates that are not trusted.
const MAX_RANGE: usize = 100_000;

/// What `function(args)` answers.
pub fn call(budget: &Budget, function: Function, args: Args) -> Result<Value> {
    budget.steps(1)?;
    match function {
        Function::Range => range(budget, args),
        Function::Dict => Value::dict(budget, pairs(budget, args)?),
        Function::Namespace => {
            let namespace = Namespace::default();
            for (name, value) in pairs(budget, args)? {
                let name = text("the name of an attribute", Some(&name))?;
                namespace.set(budget, name, value)?;
            }
            Ok(Value::Namespace(Rc::new(namespace)))
        }
        Function::RaiseException => {
            let [message] = args.bind("raise_exception", ["message"])?;
            let message = message.unwrap_or(Value::None);
            Err(Failure::raised(&text_of(budget, &message)?))
        }
        Function::StrftimeNow => {
            let [format] = args.bind("strftime_now", ["format"])?;
            let format = text("strftime_now", format.as_ref())?;
            // The longest of a field's two letters is the name of a month or a day.
            budget.bytes(5 * format.len())?;
            Ok(Value::paid(clock::now(format)))
        }
    }
}

/// A mapping's entries, and those given by name after them.
fn pairs(budget: &Budget, args: Args) -> Result<Vec<(Value, Value)>> {
    let mut pairs = match args.positional.as_slice() {
        [] => Vec::new(),
        [Value::Dict(dict)] => dict.entries().to_vec(),
        _ => {
            return Err(Failure::wrong(
                "dict and namespace take a mapping, or values by name",
            ));
        }
    };
    for (name, value) in args.named {
        pairs.push((Value::text(budget, &name)?, value));
    }
    Ok(pairs)
}

fn range(budget: &Budget, args: Args) -> Result<Value> {
    let [a, b, step] = args.bind("range", ["start", "stop", "step"])?;
    let (start, stop) = match b {
        None => (0, int_or("range", a, 0)?),
        Some(b) => (int_or("range", a, 0)?, int_or("range", Some(b), 0)?),
    };
    let step = int_or("range", step, 1)?;
    if step == 0 {
        return Err(Failure::wrong("a range with a step of zero"));
    }
    let distance = i128::from(stop) - i128::from(start);
    let n = (distance + i128::from(step) - i128::from(step.signum())) / i128::from(step);
    let n = usize::try_from(n.max(0)).unwrap_or(usize::MAX);
    if n > MAX_RANGE {
        return Err(Failure::costly("numbers in a range"));
    }
    let at = |index: usize| {
        let index = i64::try_from(index).unwrap_or(0);
        Value::Int(start.wrapping_add(index.wrapping_mul(step)))
    };
    budget.bytes(n * size_of::<Value>())?;
    Value::list(budget, (0..n).map(at).collect())
}
