//! Expressions: their values.

use std::cmp::Ordering;

use minijinja::machinery::ast::{self, BinOpKind, CompareOpKind, Expr, UnaryOpKind};
use minijinja::value::ValueKind;

use super::args::Args;
use super::budget::Budget;
use super::failure::{Failure, Result};
use super::ops::{self, Arithmetic};
use super::run::Run;
use super::value::Value;
use super::{filters, functions, methods, predicates};

impl<'t> Run<'t> {
    /// The value of `expr`.
    pub(super) fn eval(&mut self, expr: &'t Expr<'t>) -> Result<Value> {
        let value = self.deeper(|run| run.value(expr));
        value.map_err(|failure| failure.at(u32::from(expr.span().start_line)))
    }

    fn value(&mut self, expr: &'t Expr<'t>) -> Result<Value> {
        match expr {
            Expr::Var(node) => self.look_up(node.id),
            Expr::Const(node) => constant(self.budget, &node.value),
            Expr::Slice(node) => {
                let value = self.eval(&node.expr)?;
                let start = self.bound(node.start.as_ref())?;
                let stop = self.bound(node.stop.as_ref())?;
                let step = self.bound(node.step.as_ref())?;
                ops::slice(self.budget, &value, [start, stop, step])
            }
            Expr::UnaryOp(node) => {
                let value = self.eval(&node.expr)?;
                match node.op {
                    UnaryOpKind::Not => Ok(Value::Bool(!value.is_true())),
                    UnaryOpKind::Neg => ops::negate(&value),
                }
            }
            Expr::BinOp(node) => self.binary(node),
            Expr::Compare(node) => {
                let mut left = self.eval(&node.expr)?;
                for link in &node.ops {
                    let right = self.eval(&link.expr)?;
                    if !compared(self.budget, link.op, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            Expr::IfExpr(node) => match (self.eval(&node.test_expr)?.is_true(), &node.false_expr) {
                (true, _) => self.eval(&node.true_expr),
                (false, Some(otherwise)) => self.eval(otherwise),
                (false, None) => Ok(Value::Undefined(None)),
            },
            Expr::Filter(node) => {
                let inner = node
                    .expr
                    .as_ref()
                    .ok_or_else(|| Failure::wrong("a filter of nothing"))?;
                let value = self.eval(inner)?;
                let args = self.args(&node.args)?;
                filters::apply(self.budget, node.name, &value, args)
            }
            Expr::Test(node) => {
                let value = self.eval(&node.expr)?;
                let args = self.args(&node.args)?;
                predicates::holds(self.budget, node.name, &value, args).map(Value::Bool)
            }
            Expr::GetAttr(node) => {
                let value = self.eval(&node.expr)?;
                methods::attribute(self.budget, &value, node.name)
            }
            Expr::GetItem(node) => {
                let value = self.eval(&node.expr)?;
                let key = self.eval(&node.subscript_expr)?;
                methods::subscript(self.budget, &value, &key)
            }
            Expr::Call(node) => self.call(node),
            Expr::List(node) => {
                let items = self.all(&node.items)?;
                Value::list(self.budget, items)
            }
            Expr::Tuple(node) => {
                let items = self.all(&node.items)?;
                Value::tuple(self.budget, items)
            }
            Expr::Map(node) => {
                let (keys, values) = (self.all(&node.keys)?, self.all(&node.values)?);
                Value::dict(self.budget, keys.into_iter().zip(values).collect())
            }
        }
    }

    fn all(&mut self, exprs: &'t [Expr<'t>]) -> Result<Vec<Value>> {
        exprs.iter().map(|expr| self.eval(expr)).collect()
    }

    fn bound(&mut self, expr: Option<&'t Expr<'t>>) -> Result<Value> {
        expr.map_or(Ok(Value::None), |expr| self.eval(expr))
    }

    fn binary(&mut self, node: &'t ast::BinOp<'t>) -> Result<Value> {
        let a = self.eval(&node.left)?;
        match node.op {
            BinOpKind::ScAnd if !a.is_true() => return Ok(a),
            BinOpKind::ScOr if a.is_true() => return Ok(a),
            _ => {}
        }
        let b = self.eval(&node.right)?;
        let budget = self.budget;
        let arithmetic = |op| ops::arithmetic(budget, op, &a, &b);
        let compare = |op| compared(budget, op, &a, &b).map(Value::Bool);
        match node.op {
            BinOpKind::ScAnd | BinOpKind::ScOr => Ok(b),
            BinOpKind::Add => ops::add(budget, &a, &b),
            BinOpKind::Mul => ops::mul(budget, &a, &b),
            BinOpKind::Concat => ops::concat(budget, &a, &b),
            BinOpKind::Sub => arithmetic(Arithmetic::Sub),
            BinOpKind::Div => arithmetic(Arithmetic::Div),
            BinOpKind::FloorDiv => arithmetic(Arithmetic::FloorDiv),
            BinOpKind::Rem => arithmetic(Arithmetic::Rem),
            BinOpKind::Pow => arithmetic(Arithmetic::Pow),
            BinOpKind::Eq => compare(CompareOpKind::Eq),
            BinOpKind::Ne => compare(CompareOpKind::Ne),
            BinOpKind::Lt => compare(CompareOpKind::Lt),
            BinOpKind::Lte => compare(CompareOpKind::Lte),
            BinOpKind::Gt => compare(CompareOpKind::Gt),
            BinOpKind::Gte => compare(CompareOpKind::Gte),
            BinOpKind::In => compare(CompareOpKind::In),
        }
    }

    /// A chain of filters without a value of its own.
    pub(super) fn filter_chain(&mut self, expr: &'t Expr<'t>, value: Value) -> Result<Value> {
        let Expr::Filter(node) = expr else {
            return Err(Failure::wrong("only filters can be applied to a block"));
        };
        self.deeper(|run| {
            let value = match &node.expr {
                Some(inner) => run.filter_chain(inner, value)?,
                None => value,
            };
            let args = run.args(&node.args)?;
            filters::apply(run.budget, node.name, &value, args)
        })
    }

    /// The values of arguments.
    pub(super) fn args(&mut self, args: &'t [ast::CallArg<'t>]) -> Result<Args> {
        let mut out = Args::default();
        for arg in args {
            match arg {
                ast::CallArg::Pos(expr) => out.positional.push(self.eval(expr)?),
                ast::CallArg::PosSplat(expr) => {
                    let items = self.eval(expr)?.iterate(self.budget)?;
                    self.budget.bytes(size_of_val(items.items()))?;
                    out.positional.extend_from_slice(items.items());
                }
                ast::CallArg::Kwarg(name, expr) => {
                    self.budget.bytes(name.len())?;
                    out.named.push(((*name).to_owned(), self.eval(expr)?));
                }
                ast::CallArg::KwargSplat(expr) => {
                    let Value::Dict(dict) = self.eval(expr)? else {
                        return Err(Failure::wrong("only a mapping has names for arguments"));
                    };
                    for (key, value) in dict.entries() {
                        let name = super::args::text("an argument's name", Some(key))?;
                        self.budget
                            .bytes(name.len() + size_of::<(String, Value)>())?;
                        out.named.push((name.to_owned(), value.clone()));
                    }
                }
            }
        }
        Ok(out)
    }

    /// What a call answers.
    pub(super) fn call(&mut self, node: &'t ast::Call<'t>) -> Result<Value> {
        let Expr::GetAttr(method) = &node.expr else {
            let callee = self.eval(&node.expr)?;
            let args = self.args(&node.args)?;
            return self.call_value(&callee, args);
        };
        let receiver = self.eval(&method.expr)?;
        let args = self.args(&node.args)?;
        if matches!(receiver, Value::Dict(_) | Value::Namespace(_)) {
            // A macro that is kept in there, unless it is a method.
            let callee = methods::attribute(self.budget, &receiver, method.name)?;
            if matches!(
                callee,
                Value::Macro(_) | Value::Caller(_) | Value::Function(_)
            ) {
                return self.call_value(&callee, args);
            }
        }
        methods::call(self.budget, &receiver, method.name, args)
    }

    fn call_value(&mut self, callee: &Value, args: Args) -> Result<Value> {
        match callee {
            Value::Macro(number) => self.call_macro(*number, args, None),
            Value::Caller(number) => self.call_caller(*number, args),
            Value::Function(function) => functions::call(self.budget, *function, args),
            Value::Method(bound) => methods::call(self.budget, &bound.0, &bound.1, args),
            Value::Undefined(name) => Err(ops::no_parts(name.as_deref())),
            other => Err(Failure::wrong(format!("{} cannot be called", other.kind()))),
        }
    }
}

fn compared(budget: &Budget, op: CompareOpKind, a: &Value, b: &Value) -> Result<bool> {
    let order = || ops::compare(budget, a, b);
    Ok(match op {
        CompareOpKind::Eq => ops::equal(budget, a, b)?,
        CompareOpKind::Ne => !ops::equal(budget, a, b)?,
        CompareOpKind::Lt => order()? == Some(Ordering::Less),
        CompareOpKind::Lte => matches!(order()?, Some(Ordering::Less | Ordering::Equal)),
        CompareOpKind::Gt => order()? == Some(Ordering::Greater),
        CompareOpKind::Gte => matches!(order()?, Some(Ordering::Greater | Ordering::Equal)),
        CompareOpKind::In => ops::contains(budget, b, a)?,
        CompareOpKind::NotIn => !ops::contains(budget, b, a)?,
    })
}

/// What the reader made of a literal.
fn constant(budget: &Budget, value: &minijinja::Value) -> Result<Value> {
    match value.kind() {
        ValueKind::None => Ok(Value::None),
        ValueKind::Bool => Ok(Value::Bool(value.is_true())),
        ValueKind::String => Value::text(budget, value.as_str().unwrap_or("")),
        ValueKind::Number => {
            let number = match value.is_integer() {
                true => i64::try_from(value.clone()).ok().map(Value::Int),
                false => f64::try_from(value.clone()).ok().map(Value::Float),
            };
            number.ok_or_else(|| Failure::wrong("a number is too large"))
        }
        other => Err(Failure::wrong(format!("a literal of the kind {other}"))),
    }
}
