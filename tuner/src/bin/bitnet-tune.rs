//! bitnet-tune: measures, tunes, explains.
fn main() {}
