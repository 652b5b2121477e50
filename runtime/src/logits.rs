//! How much of the logits somebody needs ([`Wanted`]), and the answer ([`Logits`]): a sampler that keeps few
//! tokens spares the model the exact logits of all others.

/// A token and its logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The logit.
    pub logit: f32,
    /// The token.
    pub id: u32,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wanted<'a> {
    /// Every logit.
    All,
    /// The likeliest ones.
    Top(Top<'a>),
}

/// The likeliest tokens and some others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Top<'a> {
    /// This many of the likeliest, or all where there are fewer.
    pub k: usize,
    /// Of the tokens below this id.
    pub among: usize,
    /// And these, in rising order; ids from `among` on do not count.
    pub also: &'a [u32],
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Logits<'a> {
    /// Every logit, by id.
    All(&'a [f32]),
    /// Exact logits of some tokens, in rising order of ids: at least what was asked for. No other token is as likely
    /// as the k-th likeliest of these.
    Some(&'a [Candidate]),
}
