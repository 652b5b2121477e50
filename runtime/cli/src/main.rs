//! bitnet-run: loads a model and a profile and generates text.

use std::process::ExitCode;

fn main() -> ExitCode {
    bitnet_cli::main()
}
