//! bitnet-tune: measures a machine and finds its fastest exact ternary kernels.

use std::process::ExitCode;

fn main() -> ExitCode {
    bitnet_tune::cli::main()
}
