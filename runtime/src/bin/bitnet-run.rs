//! bitnet-run: loads a model and generates text.
fn main() {}
