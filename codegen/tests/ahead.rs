//! Kernels of every family, compiled ahead into object files, linked with a C driver and run: natively where the
//! processor is this machine's, under qemu elsewhere. Results equal the oracle bit for bit.
//!
//! Needs a C compiler for the target and, for foreign ones, qemu-user (Debian: `qemu-user`,
//! `gcc-aarch64-linux-gnu`, `libc6-dev-arm64-cross`, `gcc-riscv64-linux-gnu`, `libc6-dev-riscv64-cross`).
//! What is missing is said aloud; the kernels are then emitted and their object file is read back.

use ::object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use bitnet_codegen::acts::Activations;
use bitnet_codegen::ahead::{self, Emitted, object};
use bitnet_codegen::backend::interp;
use bitnet_codegen::isa::{Arch, Feature, Features, Isa};
use bitnet_codegen::oracle;
use bitnet_codegen::program::{Operand, Program};
use bitnet_codegen::trit::TernaryMatrix;
use bitnet_codegen::variant::{VARIANTS, Variant, plan};
use bitnet_codegen::{KernelSpec, Plan};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where kernels of one instruction set are run.
struct Machine {
    isa: Isa,
    triple: &'static str,
    /// The C compiler for a foreign machine.
    cross: &'static str,
    /// The emulator for a foreign machine, once for each CPU model worth trying.
    emulators: &'static [&'static [&'static str]],
}

const AARCH64: &str = "aarch64-unknown-linux-gnu";
const CROSS_AARCH64: &str = "aarch64-linux-gnu-gcc";

#[test]
fn neon_kernels_equal_the_oracle() {
    conformance(&Machine {
        isa: Isa::Neon,
        triple: AARCH64,
        cross: CROSS_AARCH64,
        emulators: &[&["qemu-aarch64", "-cpu", "cortex-a53"]],
    });
}

#[test]
fn sdot_kernels_equal_the_oracle() {
    conformance(&Machine {
        isa: Isa::Sdot,
        triple: AARCH64,
        cross: CROSS_AARCH64,
        emulators: &[&["qemu-aarch64", "-cpu", "neoverse-n1"]],
    });
}

#[test]
fn usdot_kernels_equal_the_oracle() {
    conformance(&Machine {
        isa: Isa::Usdot,
        triple: AARCH64,
        cross: CROSS_AARCH64,
        emulators: &[&["qemu-aarch64", "-cpu", "max"]],
    });
}

#[test]
fn rvv_kernels_equal_the_oracle() {
    conformance(&Machine {
        isa: Isa::Rvv,
        triple: "riscv64gc-unknown-linux-gnu",
        cross: "riscv64-linux-gnu-gcc",
        // Code for 128-bit vectors must run on wider ones, too.
        emulators: &[
            &[
                "qemu-riscv64",
                "-cpu",
                "rv64,v=true,vlen=128,elen=64,vext_spec=v1.0",
            ],
            &[
                "qemu-riscv64",
                "-cpu",
                "rv64,v=true,vlen=256,elen=64,vext_spec=v1.0",
            ],
        ],
    });
}

#[test]
fn x86_kernels_equal_the_oracle() {
    for isa in [
        Isa::Ssse3,
        Isa::Avx128,
        Isa::Vnni128,
        Isa::Avx2,
        Isa::Avx512Vnni,
    ] {
        conformance(&Machine {
            isa,
            triple: "x86_64-unknown-linux-gnu",
            cross: "x86_64-linux-gnu-gcc",
            emulators: &[&["qemu-x86_64", "-cpu", "max"]],
        });
    }
}

/// Every object format that a phone, a Mac or a PC links; only read back, nothing runs them here.
#[test]
fn object_files_of_every_platform_hold_the_kernels() {
    for (isa, triple) in [
        (Isa::Sdot, "aarch64-apple-darwin"),
        (Isa::Sdot, "aarch64-apple-ios"),
        (Isa::Neon, "aarch64-linux-android"),
        (Isa::Neon, "aarch64-pc-windows-msvc"),
        (Isa::Vnni128, "x86_64-pc-windows-msvc"),
        (Isa::Avx512Vnni, "x86_64-apple-darwin"),
    ] {
        let spec = KernelSpec::new("i2s", "i2s", 1, 16, 16, isa).with("f", 1);
        let plan = plan(&spec, 256).unwrap_or_else(|e| panic!("{e}"));
        let kernels = ahead::emit(plan, least(isa)).unwrap_or_else(|e| panic!("{e}"));
        let triple = triple.parse().expect("a target triple");
        let file = object::write(&kernels, &triple).unwrap_or_else(|e| panic!("{e}"));
        read_back(&file, &kernels);
    }
}

#[test]
fn wrong_targets_and_repeated_kernels_are_refused() {
    let spec = KernelSpec::new("i2s", "i2s", 1, 16, 16, Isa::Neon);
    let plan = plan(&spec, 64).unwrap_or_else(|e| panic!("{e}"));
    let kernels = ahead::emit(plan, least(Isa::Neon)).unwrap_or_else(|e| panic!("{e}"));
    let write = |kernels: &[Emitted], triple: &str| {
        let triple = triple.parse().expect("a target triple");
        object::write(kernels, &triple)
            .expect_err("refused")
            .to_string()
    };
    let other = write(&kernels, "x86_64-unknown-linux-gnu");
    assert!(other.contains("is for neon"), "{other}");
    let twice = write(&[kernels.clone(), kernels].concat(), AARCH64);
    assert!(twice.contains("stands twice"), "{twice}");
}

/// A line that a passing test shows, too.
fn aloud(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The features of a CPU that has `isa` and nothing more, so that no other encoding is chosen.
fn least(isa: Isa) -> Features {
    let mut cpu: Features = Feature::ALL.iter().copied().collect();
    for &feature in Feature::ALL {
        if isa.runs_on(cpu.without(feature)) {
            cpu = cpu.without(feature);
        }
    }
    cpu
}

fn conformance(machine: &Machine) {
    let isa = machine.isa;
    let triple = machine.triple.parse().expect("a target triple");
    let mut kernels = Vec::new();
    let mut cases = Cases::default();
    for (plan, emitted) in emit_all(isa) {
        cases.record(&plan, kernels.len());
        kernels.extend(emitted);
    }
    let file = object::write(&kernels, &triple).unwrap_or_else(|e| panic!("{isa}: {e}"));
    read_back(&file, &kernels);
    run(machine, &kernels, &file, &cases);
}

/// Everything that `isa` emits of [`specs`]. Each family must be there; what is refused is said.
fn emit_all(isa: Isa) -> Vec<(Plan, Vec<Emitted>)> {
    let mut all = Vec::new();
    for family in VARIANTS {
        let (mut refused, mut why) = (0, String::new());
        let before = all.len();
        let specs = specs(*family, isa);
        for (spec, k) in &specs {
            let Ok(plan) = plan(spec, *k) else { continue };
            match ahead::emit(plan.clone(), least(isa)) {
                Ok(emitted) => all.push((plan, emitted)),
                Err(e) => (refused, why) = (refused + 1, e.to_string()),
            }
        }
        if refused > 0 {
            aloud(&format!(
                "{isa} refuses {refused} planned specs, the last because: {why}"
            ));
        }
        assert!(
            specs.is_empty() || all.len() > before,
            "{isa} emits no {}: {why}",
            family.name()
        );
    }
    all
}

/// The default spec of each layout and all that differ from it in one axis, with a K that ends inside a
/// step; the default also with a longer K.
fn specs(family: &dyn Variant, isa: Isa) -> BTreeSet<(KernelSpec, usize)> {
    let mut all = BTreeSet::new();
    for m in [1, 32] {
        let Ok(axes) = family.axes(isa, m) else {
            continue;
        };
        for layout in family.layouts() {
            let kr = axes.iter().find(|a| a.name == "kr").expect("an axis kr");
            for &kr in &kr.values {
                let mut spec = KernelSpec::new(family.name(), layout, 1, 1, kr as usize, isa);
                for axis in axes.iter().filter(|a| a.name != "kr") {
                    set(&mut spec, axis.name, axis.values[0]);
                }
                all.extend([(spec.clone(), 100), (spec.clone(), 700)]);
                for axis in axes.iter().filter(|a| a.name != "kr") {
                    for &value in &axis.values[1..] {
                        let mut other = spec.clone();
                        set(&mut other, axis.name, value);
                        all.insert((other, 100));
                    }
                }
            }
        }
    }
    all
}

fn set(spec: &mut KernelSpec, axis: &str, value: u32) {
    match axis {
        "mr" => spec.mr = value as usize,
        "nr" => spec.nr = value as usize,
        knob => {
            spec.knobs.insert(knob.into(), value);
        }
    }
}

/// Recorded calls, as the driver reads them.
#[derive(Default)]
struct Cases {
    bytes: Vec<u8>,
    count: u32,
}

/// A cheap hash, so that data has no period that a kernel could share.
fn noise(i: usize, seed: u64) -> u64 {
    let x = (i as u64 ^ seed << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (x ^ x >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 33
}

impl Cases {
    /// Records the programs of `plan`, the first of which is kernel `first`: one panel and full tiles, on
    /// random data and on the data that overflows first.
    fn record(&mut self, plan: &Plan, first: usize) {
        for extreme in [false, true] {
            self.panel(plan, first, extreme);
        }
    }

    fn panel(&mut self, plan: &Plan, first: usize, extreme: bool) {
        let (nr, k) = (plan.spec.nr, plan.k);
        let trits: Vec<i8> = (0..nr * k)
            .map(|i| {
                if extreme {
                    1
                } else {
                    (noise(i, 1) % 3) as i8 - 1
                }
            })
            .collect();
        let w = TernaryMatrix::from_trits(nr, k, &trits, 1.0).expect("trits");
        let mut weights = plan.panel.pack_all(&w);
        let mut kernel = first;
        if let Some(unpack) = &plan.unpack {
            let out = unpacked(unpack, &weights);
            self.call(unpack, kernel, [&weights, &[], &[]], &out);
            weights = out;
            kernel += 1;
        }
        for (at, (mr, program)) in plan.main.iter().enumerate() {
            let q: Vec<i8> = (0..mr * k)
                .map(|i| if extreme { -128 } else { noise(i, 2) as i8 })
                .collect();
            let acts = Activations::from_codes(*mr, k, &q);
            let mut tile = vec![0; plan.acts.tile_bytes(*mr, k)];
            if plan.acts.needs_preparing() {
                plan.acts.prepare(&acts, 0, *mr, &mut tile);
            } else {
                let rows = acts.rows(0, *mr).iter().map(|&q| q as u8);
                tile = rows.collect();
            }
            let sums: Vec<u8> = acts.sums.iter().flat_map(|s| s.to_le_bytes()).collect();
            let y = oracle::matmul(&w, &q);
            let mut want = vec![0; program.bytes(Operand::Out)];
            for t in 0..*mr {
                for r in 0..nr {
                    let at = 4 * plan.out.index(t, r, *mr, nr);
                    want[at..at + 4].copy_from_slice(&y[t * nr + r].to_le_bytes());
                }
            }
            self.call(program, kernel + at, [&weights, &tile, &sums], &want);
        }
    }

    /// Records a call: kernel, lengths, `[weights, acts, sums]`, and what it must write.
    fn call(&mut self, program: &Program, kernel: usize, inputs: [&[u8]; 3], want: &[u8]) {
        self.count += 1;
        let mut word = |v: usize| self.bytes.extend((v as u32).to_le_bytes());
        word(kernel);
        for operand in Operand::ALL {
            word(program.bytes(operand));
        }
        for (operand, bytes) in [Operand::Weights, Operand::Acts, Operand::Sums]
            .into_iter()
            .zip(inputs)
        {
            self.bytes.extend(&bytes[..program.bytes(operand)]);
        }
        self.bytes.extend(want);
    }

    fn file(&self) -> Vec<u8> {
        [&self.count.to_le_bytes()[..], &self.bytes].concat()
    }
}

/// What an unpacking stage writes, by the interpreter.
fn unpacked(program: &Program, weights: &[u8]) -> Vec<u8> {
    let mut scratch = [Operand::Scratch0, Operand::Scratch1].map(|o| vec![0; program.bytes(o)]);
    let [s0, s1] = &mut scratch;
    let mut out = vec![0; program.bytes(Operand::Out)];
    let mut memory = bitnet_codegen::abi::Operands {
        weights,
        acts: &[],
        sums: &[],
        consts: &program.consts,
        scratch: [s0, s1],
        out: &mut out,
        scales: &[],
    };
    interp::run(program, &mut memory);
    out
}

/// The object file has each kernel's bytes under its symbol, and no relocations.
fn read_back(file: &[u8], kernels: &[Emitted]) {
    let parsed = ::object::File::parse(file).expect("an object file");
    assert!(
        parsed.sections().all(|s| s.relocations().next().is_none()),
        "relocations in an object file of kernels"
    );
    for kernel in kernels {
        // Mach-O puts an underscore before a C name.
        let symbol = parsed
            .symbol_by_name(&kernel.symbol())
            .or_else(|| parsed.symbol_by_name(&format!("_{}", kernel.symbol())))
            .unwrap_or_else(|| panic!("no symbol {}", kernel.symbol()));
        let section = parsed
            .section_by_index(symbol.section_index().expect("defined"))
            .expect("a section");
        let from = (symbol.address() - section.address()) as usize;
        let data = section.data().expect("a section with data");
        assert_eq!(&data[from..][..kernel.code.len()], &kernel.code[..]);
    }
}

fn present(tool: &str) -> bool {
    Command::new(tool)
        .arg("--version")
        .output()
        .is_ok_and(|o| o.status.success())
}

fn run(machine: &Machine, kernels: &[Emitted], file: &[u8], cases: &Cases) {
    let isa = machine.isa;
    let native =
        isa.arch() == Arch::HOST && cfg!(target_os = "linux") && isa.runs_on(Features::detect());
    let cc = if native { "cc" } else { machine.cross };
    let emulators: Vec<&[&str]> = if native {
        vec![&[]]
    } else {
        machine.emulators.to_vec()
    };
    let tools = emulators.iter().filter_map(|e| e.first()).chain([&cc]);
    if let Some(missing) = tools.into_iter().find(|t| !present(t)) {
        aloud(&format!(
            "SKIPPED: {} {isa} kernels were emitted but not run: {missing} is not installed",
            kernels.len()
        ));
        return;
    }
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ahead-{isa}"));
    let driver = build(&dir, cc, kernels, file);
    let data = dir.join("cases.bin");
    fs::write(&data, cases.file()).expect("a temporary file");
    for emulator in emulators {
        let mut words = emulator
            .iter()
            .map(PathBuf::from)
            .chain([driver.clone(), data.clone()]);
        let program = words.next().expect("a driver");
        let output = Command::new(program)
            .args(words)
            .output()
            .expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{isa} on {emulator:?}: {}\n{said}{}\n\
             rerun: cargo test --release -p bitnet-codegen --test ahead -- --exact {}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            test_of(isa)
        );
        aloud(&format!("ran {isa} on {emulator:?}: {}", said.trim()));
    }
}

/// The test that runs `isa`.
fn test_of(isa: Isa) -> String {
    match isa.arch() {
        Arch::X86_64 => "x86_kernels_equal_the_oracle".into(),
        _ => format!("{isa}_kernels_equal_the_oracle"),
    }
}

/// What a failure prints to run it again names a test that there is.
#[test]
fn rerun_lines_name_tests() {
    let this = std::env::current_exe().expect("this program");
    let list = Command::new(this)
        .arg("--list")
        .output()
        .expect("it starts");
    let list = String::from_utf8_lossy(&list.stdout);
    for &isa in Isa::ALL.iter().filter(|&&i| i != Isa::Interp) {
        let line = format!("{}: test", test_of(isa));
        assert!(list.lines().any(|l| l == line), "{line} is not in\n{list}");
    }
}

/// Compiles and links the driver; returns its path.
fn build(dir: &Path, cc: &str, kernels: &[Emitted], file: &[u8]) -> PathBuf {
    fs::create_dir_all(dir).expect("a temporary folder");
    let write =
        |name: &str, bytes: &[u8]| fs::write(dir.join(name), bytes).expect("a temporary file");
    write("kernels.o", file);
    write("kernels.h", object::header(kernels).as_bytes());
    write("table.c", table(kernels).as_bytes());
    let driver = dir.join("driver");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/native/driver.c");
    let output = Command::new(cc)
        .args(["-std=gnu11", "-O1", "-Wall", "-Werror", "-static", "-I"])
        .arg(dir)
        .arg(source)
        .args(["table.c", "kernels.o"].map(|n| dir.join(n)))
        .arg("-o")
        .arg(&driver)
        .output()
        .expect("the compiler starts");
    assert!(
        output.status.success(),
        "{cc}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    driver
}

/// The driver's list of kernels.
fn table(kernels: &[Emitted]) -> String {
    let rows: String = kernels
        .iter()
        .map(|k| {
            let symbol = k.symbol();
            let consts = match k.program.consts.is_empty() {
                true => "0".to_owned(),
                false => format!("{symbol}_consts"),
            };
            format!("  {{\"{}\", {symbol}, {consts}}},\n", k.program.name)
        })
        .collect();
    format!(
        "#include \"kernels.h\"\n\
         typedef struct entry {{ const char *name; void (*call)(const bitnet_args *); const unsigned char *consts; }} entry;\n\
         const entry entries[] = {{\n{rows}}};\nconst unsigned n_entries = {};\n",
        kernels.len()
    )
}
