//! Statements: what a template does, one after the other.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

use minijinja::machinery::ast;

use super::args::Args;
use super::budget::Budget;
use super::failure::{Failure, Result};
use super::value::{Loop, Value, list};

/// Statements and expressions within each other, macros that call macros included.
const MAX_DEPTH: usize = 500;

/// A template that runs.
pub struct Run<'t> {
    pub(super) budget: &'t Budget,
    /// What the caller gives.
    given: &'t HashMap<String, Value>,
    /// Variables that the template sets; the first frame is the template's own, each loop and macro has another.
    frames: Vec<Frame<'t>>,
    /// The first frame that names are looked up in, beside the template's own: macros do not see their caller's.
    base: usize,
    macros: Vec<&'t ast::Macro<'t>>,
    /// `{% call %}` blocks that are running.
    callers: Vec<Caller<'t>>,
    n_calls: usize,
    depth: usize,
    out: String,
    /// What `out` may hold, in bytes.
    max_out: usize,
}

type Frame<'t> = HashMap<&'t str, Value>;

/// The body of a `{% call %}` block, and where its names are looked up.
struct Caller<'t> {
    number: usize,
    body: &'t ast::Macro<'t>,
    n_frames: usize,
    base: usize,
}

/// What comes after a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

impl<'t> Run<'t> {
    /// A template's run with what the caller gives, and bytes that it may put out.
    pub fn new(budget: &'t Budget, given: &'t HashMap<String, Value>, max_out: usize) -> Self {
        Self {
            budget,
            given,
            frames: vec![Frame::new()],
            base: 0,
            macros: Vec::new(),
            callers: Vec::new(),
            n_calls: 0,
            depth: 0,
            out: String::new(),
            max_out,
        }
    }

    /// Runs the whole template; what it puts out.
    pub fn whole(mut self, template: &'t ast::Stmt<'t>) -> Result<String> {
        self.statement(template)?;
        Ok(self.out)
    }

    /// Goes one level deeper for `work`.
    pub(super) fn deeper<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.budget.steps(1)?;
        if self.depth >= MAX_DEPTH {
            return Err(Failure::costly("levels of expressions and statements"));
        }
        self.depth += 1;
        let done = work(self);
        self.depth -= 1;
        done
    }

    fn block(&mut self, statements: &'t [ast::Stmt<'t>]) -> Result<Flow> {
        for statement in statements {
            let flow = self.statement(statement)?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&mut self, statement: &'t ast::Stmt<'t>) -> Result<Flow> {
        let done = self.deeper(|run| run.one(statement));
        done.map_err(|failure| failure.at(line(statement)))
    }

    fn one(&mut self, statement: &'t ast::Stmt<'t>) -> Result<Flow> {
        match statement {
            ast::Stmt::Template(node) => return self.block(&node.children),
            ast::Stmt::EmitRaw(node) => self.write(node.raw)?,
            ast::Stmt::EmitExpr(node) => {
                let value = self.eval(&node.expr)?;
                self.put(&value)?;
            }
            ast::Stmt::IfCond(node) => {
                // Conditions have no variables of their own.
                return match self.eval(&node.expr)?.is_true() {
                    true => self.block(&node.true_body),
                    false => self.block(&node.false_body),
                };
            }
            ast::Stmt::ForLoop(node) => self.for_loop(node)?,
            ast::Stmt::Set(node) => {
                let value = self.eval(&node.expr)?;
                self.assign(&node.target, value)?;
            }
            ast::Stmt::SetBlock(node) => {
                let mut value = self.captured(&node.body)?;
                if let Some(filter) = &node.filter {
                    value = self.filter_chain(filter, value)?;
                }
                self.assign(&node.target, value)?;
            }
            ast::Stmt::FilterBlock(node) => {
                let value = self.captured(&node.body)?;
                let value = self.filter_chain(&node.filter, value)?;
                self.put(&value)?;
            }
            ast::Stmt::WithBlock(node) => return self.with_block(node),
            ast::Stmt::Macro(node) => {
                self.macros.push(node);
                let value = Value::Macro(self.macros.len() - 1);
                self.set(node.name, value)?;
            }
            ast::Stmt::CallBlock(node) => self.call_block(node)?,
            ast::Stmt::Do(node) => {
                self.call(&node.call)?;
            }
            ast::Stmt::Break(_) => return Ok(Flow::Break),
            ast::Stmt::Continue(_) => return Ok(Flow::Continue),
            ast::Stmt::AutoEscape(node) => {
                if self.eval(&node.enabled)?.is_true() {
                    return Err(Failure::wrong(
                        "autoescape is for HTML, which chats are not",
                    ));
                }
                return self.block(&node.body);
            }
            // Without other templates nothing replaces a block.
            ast::Stmt::Block(node) => return self.in_frame(|run| run.block(&node.body)),
            ast::Stmt::Import(_)
            | ast::Stmt::FromImport(_)
            | ast::Stmt::Extends(_)
            | ast::Stmt::Include(_) => {
                return Err(Failure::wrong("there are no other templates to read"));
            }
        }
        Ok(Flow::Next)
    }

    fn in_frame<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.frames.push(Frame::new());
        let done = work(self)?;
        self.frames.pop();
        Ok(done)
    }

    /// What `body` puts out, as a value.
    fn captured(&mut self, body: &'t [ast::Stmt<'t>]) -> Result<Value> {
        let outer = std::mem::take(&mut self.out);
        self.in_frame(|run| run.block(body))?;
        let inner = std::mem::replace(&mut self.out, outer);
        Ok(Value::paid(inner))
    }

    fn write(&mut self, text: &str) -> Result<()> {
        self.budget.bytes(text.len())?;
        if self.out.len() + text.len() > self.max_out {
            return Err(Failure::costly("bytes of output"));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn put(&mut self, value: &Value) -> Result<()> {
        match value {
            Value::Str(text) => self.write(text),
            other => {
                let text = super::print::text_of(self.budget, other)?;
                self.write(&text)
            }
        }
    }

    fn for_loop(&mut self, node: &'t ast::ForLoop<'t>) -> Result<()> {
        if node.recursive {
            return Err(Failure::wrong(
                "recursive loops are not known here; use a macro",
            ));
        }
        let mut items = self.eval(&node.iter)?.iterate(self.budget)?;
        if let Some(filter) = &node.filter_expr {
            let mut kept = Vec::new();
            for item in items.items() {
                let keep = self.in_frame(|run| {
                    run.assign(&node.target, item.clone())?;
                    run.eval(filter)
                });
                if keep?.is_true() {
                    kept.push(item.clone());
                }
            }
            items = list(self.budget, kept)?;
        }
        if items.items().is_empty() {
            self.in_frame(|run| run.block(&node.else_body))?;
            return Ok(());
        }
        let state = Rc::new(Loop {
            items: items.clone(),
            index: Cell::new(0),
        });
        for (index, item) in items.items().iter().enumerate() {
            state.index.set(index);
            let flow = self.in_frame(|run| {
                run.set("loop", Value::Loop(state.clone()))?;
                run.assign(&node.target, item.clone())?;
                run.block(&node.body)
            })?;
            if flow == Flow::Break {
                break;
            }
        }
        Ok(())
    }

    fn with_block(&mut self, node: &'t ast::WithBlock<'t>) -> Result<Flow> {
        let mut values = Vec::new();
        for (target, expr) in &node.assignments {
            values.push((target, self.eval(expr)?));
        }
        self.in_frame(|run| {
            for (target, value) in values {
                run.assign(target, value)?;
            }
            run.block(&node.body)
        })
    }

    fn set(&mut self, name: &'t str, value: Value) -> Result<()> {
        self.budget.bytes(size_of::<(&str, Value)>())?;
        let frame = self.frames.last_mut();
        frame
            .expect("a frame for each running block")
            .insert(name, value);
        Ok(())
    }

    /// `target = value`, where the target is a name, several, or an attribute of a namespace.
    fn assign(&mut self, target: &'t ast::Expr<'t>, value: Value) -> Result<()> {
        match target {
            ast::Expr::Var(node) => self.set(node.id, value),
            ast::Expr::GetAttr(node) => match self.eval(&node.expr)? {
                Value::Namespace(namespace) => namespace.set(self.budget, node.name, value),
                other => {
                    let why = format!("{} has no attributes to set; use a namespace", other.kind());
                    Err(Failure::wrong(why))
                }
            },
            ast::Expr::List(node) => {
                let items = value.iterate(self.budget)?;
                let (n_names, n) = (node.items.len(), items.items().len());
                if n_names != n {
                    return Err(Failure::wrong(format!("{n_names} names for {n} values")));
                }
                for (target, value) in node.items.iter().zip(items.items()) {
                    self.assign(target, value.clone())?;
                }
                Ok(())
            }
            _ => Err(Failure::wrong("only names can be set")),
        }
    }

    /// The value of a name: the innermost block's, the template's, the caller's, a function's.
    pub(super) fn look_up(&self, name: &'t str) -> Result<Value> {
        let visible = &self.frames[self.base..];
        self.budget.steps(visible.len() / 4)?;
        let set = visible.iter().rev().find_map(|frame| frame.get(name));
        if let Some(value) = set
            .or_else(|| self.frames[0].get(name))
            .or_else(|| self.given.get(name))
        {
            return Ok(value.clone());
        }
        let functions = super::value::Function::ALL;
        Ok(match functions.iter().find(|(known, _)| *known == name) {
            Some(&(_, function)) => Value::Function(function),
            None => {
                self.budget.bytes(name.len())?;
                Value::Undefined(Some(name.into()))
            }
        })
    }

    /// What a macro puts out.
    pub(super) fn call_macro(
        &mut self,
        number: usize,
        args: Args,
        caller: Option<Value>,
    ) -> Result<Value> {
        let node = self.macros[number];
        let base = std::mem::replace(&mut self.base, self.frames.len());
        let text = self.run_macro(node, args, caller);
        self.base = base;
        text
    }

    fn run_macro(
        &mut self,
        node: &'t ast::Macro<'t>,
        args: Args,
        caller: Option<Value>,
    ) -> Result<Value> {
        let outer = std::mem::take(&mut self.out);
        self.in_frame(|run| {
            run.bind(node, args)?;
            if let Some(caller) = caller {
                run.set("caller", caller)?;
            }
            run.block(&node.body)
        })?;
        Ok(Value::paid(std::mem::replace(&mut self.out, outer)))
    }

    /// Sets a macro's parameters; defaults belong to the last ones.
    fn bind(&mut self, node: &'t ast::Macro<'t>, args: Args) -> Result<()> {
        let wrong = |what: String| Failure::wrong(format!("the macro {} {what}", node.name));
        let n_parameters = node.args.len();
        if args.positional.len() > n_parameters {
            return Err(wrong(format!("takes at most {n_parameters} values")));
        }
        let mut positional = args.positional.into_iter();
        let mut named = args.named;
        let n_required = n_parameters - node.defaults.len();
        for (index, parameter) in node.args.iter().enumerate() {
            let ast::Expr::Var(parameter) = parameter else {
                return Err(wrong("has a parameter that is no name".to_owned()));
            };
            self.budget.steps(1 + named.len())?;
            let by_name = named.iter().position(|(name, _)| name == parameter.id);
            let value = match (positional.next(), by_name) {
                (Some(value), None) => value,
                (None, Some(at)) => named.swap_remove(at).1,
                (Some(_), Some(_)) => {
                    return Err(wrong(format!("is given {} twice", parameter.id)));
                }
                (None, None) => match index.checked_sub(n_required) {
                    Some(at) => self.eval(&node.defaults[at])?,
                    None => Value::Undefined(Some(parameter.id.into())),
                },
            };
            self.set(parameter.id, value)?;
        }
        match named.first() {
            None => Ok(()),
            Some((name, _)) => Err(wrong(format!("has no parameter called {name:?}"))),
        }
    }

    fn call_block(&mut self, node: &'t ast::CallBlock<'t>) -> Result<()> {
        let Value::Macro(number) = self.eval(&node.call.expr)? else {
            return Err(Failure::wrong("a call block calls a macro"));
        };
        let args = self.args(&node.call.args)?;
        self.n_calls += 1;
        let caller = Caller {
            number: self.n_calls,
            body: &node.macro_decl,
            n_frames: self.frames.len(),
            base: self.base,
        };
        let value = Value::Caller(caller.number);
        self.callers.push(caller);
        let text = self.call_macro(number, args, Some(value))?;
        self.callers.pop();
        self.put(&text)
    }

    /// What the body of a running `{% call %}` block puts out; it sees what stood around it.
    pub(super) fn call_caller(&mut self, number: usize, args: Args) -> Result<Value> {
        let running = self.callers.iter().find(|caller| caller.number == number);
        let running = running.ok_or_else(|| Failure::wrong("caller() outside of its call"))?;
        let (body, base) = (running.body, running.base);
        let hidden = self.frames.split_off(running.n_frames);
        let outer_base = std::mem::replace(&mut self.base, base);
        let text = self.run_macro(body, args, None)?;
        self.base = outer_base;
        self.frames.extend(hidden);
        Ok(text)
    }
}

/// Where a statement begins.
fn line(statement: &ast::Stmt<'_>) -> u32 {
    let span = match statement {
        ast::Stmt::Template(node) => node.span(),
        ast::Stmt::EmitExpr(node) => node.span(),
        ast::Stmt::EmitRaw(node) => node.span(),
        ast::Stmt::ForLoop(node) => node.span(),
        ast::Stmt::IfCond(node) => node.span(),
        ast::Stmt::WithBlock(node) => node.span(),
        ast::Stmt::Set(node) => node.span(),
        ast::Stmt::SetBlock(node) => node.span(),
        ast::Stmt::AutoEscape(node) => node.span(),
        ast::Stmt::FilterBlock(node) => node.span(),
        ast::Stmt::Block(node) => node.span(),
        ast::Stmt::Import(node) => node.span(),
        ast::Stmt::FromImport(node) => node.span(),
        ast::Stmt::Extends(node) => node.span(),
        ast::Stmt::Include(node) => node.span(),
        ast::Stmt::Macro(node) => node.span(),
        ast::Stmt::CallBlock(node) => node.span(),
        ast::Stmt::Continue(node) => node.span(),
        ast::Stmt::Break(node) => node.span(),
        ast::Stmt::Do(node) => node.span(),
    };
    u32::from(span.start_line)
}
