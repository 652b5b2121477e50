//! Two conversations with one network, decoded side by side: the weights are there once.
//!
//! `cargo run --release -p bitnet-runtime --example two_conversations -- [MODEL] [TOKENS]`

use bitnet_runtime::sequence::{Sequence, SequenceOptions};
use bitnet_runtime::setup::Setup;
use bitnet_runtime::step::{Append, Step};
use std::error::Error;
use std::sync::Arc;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let setup = Setup {
        model: args.next().map(Into::into),
        ..Setup::default()
    };
    let tokens: usize = args.next().map_or(Ok(24), |n| n.parse())?;
    let model = setup.open_model()?;
    let tokenizer = setup.tokenizer(&model)?;
    let engine = setup.ready(model)?.engine;
    let (network, pool) = (Arc::clone(engine.network()), Arc::clone(engine.pool()));
    drop(engine);

    let mut step = Step::new(Arc::clone(&network), pool, 64);
    let mut sequences = [
        Sequence::new(&network, &SequenceOptions::default())?,
        Sequence::new(&network, &SequenceOptions::default())?,
    ];
    let mut next = [
        tokenizer.encode_prompt("Once upon a time")?,
        tokenizer.encode_prompt("In the city")?,
    ];
    for _ in 0..tokens {
        // The first pass takes two prompts of different lengths, every later one a token of each.
        let mut appends: Vec<Append<'_>> = sequences
            .iter_mut()
            .zip(&next)
            .map(|(sequence, tokens)| Append {
                sequence,
                tokens,
                logits_from: tokens.len() - 1,
            })
            .collect();
        let mut best = [0; 2];
        step.run(&mut appends, |which, _, logits| {
            best[which] = argmax(logits)
        })?;
        next = best.map(|token| vec![token]);
    }
    for sequence in &sequences {
        println!("{}", tokenizer.decode(sequence.tokens())?);
        eprintln!("{} bytes of keys and values", sequence.cache_bytes());
    }
    Ok(())
}

/// The likeliest token.
fn argmax(logits: &[f32]) -> u32 {
    let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    best.unwrap_or(0) as u32
}
