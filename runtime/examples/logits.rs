//! What a model expects after each token of a text:
//! `cargo run --release -p bitnet-runtime --example logits -- ["Once upon a time"] [MODEL]`

use bitnet_runtime::Setup;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let text = args.next().unwrap_or("Once upon a time".into());
    let model = args.next().map(Into::into);
    let setup = Setup {
        model,
        ..Setup::default()
    };
    let model = setup.open_model()?;
    let tokenizer = setup.tokenizer(&model)?;
    let mut engine = setup.ready(model)?.engine;
    let ids = tokenizer.encode_prompt(&text)?;
    let name = |id: u32| tokenizer.token(id).unwrap_or_default().to_owned();
    engine.run(&ids, 0, |i, logits| {
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
        let next = best.map(|id| (name(id as u32), logits[id]));
        println!("{:?} -> {next:?}", name(ids[i]));
    })?;
    Ok(())
}
