//! Reading a template's text: minijinja's parser, after a look at what it would recurse on.
//!
//! The parser counts brackets and blocks within each other, but not chains: `not not …`, `--…1`, `a.b.b…`, `1+1+…`,
//! `elif`. Each link is a level of its tree, which the parser, the interpreter and the tree's own end recurse through.
//! So chains are counted here, token by token, before it sees them.

use minijinja::machinery::{Token, ast, parse, tokenize};
use minijinja::syntax::SyntaxConfig;

/// Bytes of a template; those of models have up to thirty thousand.
const MAX_SOURCE_BYTES: usize = 256 << 10;

/// Links of a chain, and of the chains around it in brackets. Templates of models have some ten.
const MAX_LINKS: usize = 400;

const NAME: &str = "chat template";

/// The tree of `source`.
///
/// # Errors
/// What is wrong with it, in words.
pub fn read(source: &str) -> Result<ast::Stmt<'_>, String> {
    if source.len() > MAX_SOURCE_BYTES {
        let n_bytes = source.len();
        return Err(format!(
            "it has {n_bytes} bytes, more than {MAX_SOURCE_BYTES}"
        ));
    }
    // As transformers sets it up.
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
        .map_err(|error| error.to_string())?;
    count_links(source, &syntax)?;
    parse(source, NAME, syntax).map_err(|error| error.to_string())
}

/// Refuses chains that are too long. A token that cannot be read is the parser's to tell.
fn count_links(source: &str, syntax: &SyntaxConfig) -> Result<(), String> {
    // Links so far, for each bracket that is open.
    let mut open = vec![0usize];
    let mut n_elifs = 0usize;
    let mut before_is_block = false;
    for token in tokenize(source, false, syntax.clone()) {
        let Ok((token, span)) = token else {
            return Ok(());
        };
        let top = open.len() - 1;
        match token {
            Token::VariableStart | Token::BlockStart => {
                open.clear();
                open.push(0);
            }
            Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => open.push(1),
            Token::ParenClose | Token::BracketClose | Token::BraceClose => {
                if top > 0 {
                    open.pop();
                }
                // A call or a subscript is a link of what stands before it.
                *open.last_mut().expect("the first is never closed") += 1;
            }
            Token::Comma | Token::Colon => open[top] = 0,
            Token::Ident("elif") if before_is_block => n_elifs += 1,
            Token::Ident("not" | "and" | "or" | "in" | "is" | "if" | "else")
            | Token::Plus
            | Token::Minus
            | Token::Mul
            | Token::Div
            | Token::FloorDiv
            | Token::Pow
            | Token::Mod
            | Token::Dot
            | Token::Tilde
            | Token::Pipe
            | Token::Eq
            | Token::Ne
            | Token::Gt
            | Token::Gte
            | Token::Lt
            | Token::Lte => open[top] += 1,
            _ => {}
        }
        before_is_block = matches!(token, Token::BlockStart);
        // Brackets are many only where each adds a link, so this sum is short.
        if open.len() > MAX_LINKS || open.iter().sum::<usize>() > MAX_LINKS || n_elifs > MAX_LINKS {
            let line = span.start_line;
            return Err(format!(
                "line {line}: more than {MAX_LINKS} operators, brackets or elifs in one chain"
            ));
        }
    }
    Ok(())
}
