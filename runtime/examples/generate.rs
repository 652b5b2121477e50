//! Continues a text: `cargo run --release -p bitnet-runtime --example generate -- ["Once upon a time"] [MODEL]`

use bitnet_runtime::{GenerateParams, Sampler, SamplerParams, Session, Setup};
use std::io::{self, Write};
use std::sync::atomic::AtomicBool;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let prompt = args.next().unwrap_or("Once upon a time".into());
    let model = args.next().map(Into::into);
    let setup = Setup {
        model,
        ..Setup::default()
    };
    let model = setup.open_model()?;
    let tokenizer = setup.tokenizer(&model)?;
    let mut engine = setup.ready(model)?.engine;
    let ids = tokenizer.encode_prompt(&prompt)?;
    let mut sampler = Sampler::new(SamplerParams::greedy(), tokenizer.n_vocab())?;
    let mut show = |piece: &str| {
        print!("{piece}");
        io::stdout().flush()
    };
    show(&prompt)?;
    let (params, cancel) = (GenerateParams::new(120), AtomicBool::new(false));
    Session::new(&mut engine, &tokenizer).generate(
        &ids,
        &params,
        &mut sampler,
        &cancel,
        &mut show,
    )?;
    println!();
    Ok(())
}
