//! Prints the code that a spec becomes: `cargo run --release -p bitnet-codegen --example listing -- SPEC [K]`.
//! Needs no CPU of the spec's kind; nothing is run.

use bitnet_codegen::backend::{self, Code, cranelift};
use bitnet_codegen::isa::{Arch, Feature};
use bitnet_codegen::program::{Checked, Width};
use bitnet_codegen::{Features, KernelSpec, plan};
use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let spec: KernelSpec = args.next().ok_or("usage: listing SPEC [K]")?.parse()?;
    let k = args.next().map_or(Ok(2560), |k| k.parse())?;
    let cpu: Features = Feature::ALL.iter().copied().collect();
    let plan = plan(&spec, k)?;
    for program in plan
        .unpack
        .into_iter()
        .chain(plan.main.into_iter().map(|(_, p)| p))
    {
        println!("{program}");
        let program = Checked::new(program)?;
        let text = if spec.isa.width() == Width::W16 && spec.isa.arch() != Arch::X86_64 {
            let target = cranelift::Target::new(spec.isa, cpu)?;
            cranelift::compile(&program, &target, true)?.listing
        } else {
            match backend::for_isa(spec.isa)?.emit(&program, spec.isa, cpu)? {
                Code::Machine(bytes) => Some(x86_listing(&bytes)),
                Code::Interpreted(_) => None,
            }
        };
        println!("{}", text.as_deref().unwrap_or("interpreted"));
    }
    Ok(())
}

fn x86_listing(bytes: &[u8]) -> String {
    let mut formatter = IntelFormatter::new();
    let mut text = String::new();
    for i in &mut Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE) {
        let mut line = String::new();
        formatter.format(&i, &mut line);
        text += &format!("{:5x}  {line}\n", i.ip());
    }
    text
}
