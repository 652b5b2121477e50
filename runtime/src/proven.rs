#![expect(
    unsafe_code,
    reason = "runs single instructions in a forked child, to see which of them fault"
)]
//! What the CPU announces, put to the test: hypervisors and faulty parts announce features and fault on them, and the
//! first kernel would end the program. So one instruction of each announced feature is run in a forked child, where a
//! fault ends nothing but the child.
//!
//! A library must not do this to its host behind its back: a binary calls [`proven`] at its start, once, while it has
//! one thread and little memory, and hands the answer on. It takes about a millisecond, so nothing is kept of it: a
//! virtual machine that moves to another CPU while it runs would make any record wrong.

use bitnet_codegen::{Feature, Features};

/// Of the announced features, those that hold and those that fault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proven {
    /// What can be used.
    pub features: Features,
    /// What is announced, and faults.
    pub faulting: Vec<Feature>,
}

impl Proven {
    /// What to say of it, if anything.
    pub fn note(&self) -> Option<String> {
        let names: Vec<&str> = self.faulting.iter().map(|f| f.name()).collect();
        (!names.is_empty()).then(|| {
            format!(
                "this CPU announces {} and faults on it; kernels that need it are left out",
                names.join(", ")
            )
        })
    }
}

/// Runs one instruction of each announced feature. What cannot be tried (where there is no `fork`, or no process to be
/// had) is believed.
pub fn proven() -> Proven {
    prove(Features::detect(), instruction)
}

/// The same for a CPU that announces `announced`, with `instruction` to try a feature by.
fn prove(announced: Features, instruction: impl Fn(Feature) -> Option<fn()>) -> Proven {
    let trials: Vec<(Feature, fn())> = announced
        .iter()
        .filter_map(|f| Some((f, instruction(f)?)))
        .collect();
    let runs: Vec<fn()> = trials.iter().map(|(_, run)| *run).collect();
    let faulting: Vec<Feature> = faults(&runs).into_iter().map(|at| trials[at].0).collect();
    let features = faulting
        .iter()
        .fold(announced, |features, f| features.without(*f));
    Proven { features, faulting }
}

/// One instruction that needs `feature` and changes nothing but vector registers; `None` where the program itself was
/// compiled to need the feature, or for features of other processors.
fn instruction(feature: Feature) -> Option<fn()> {
    #[cfg(target_arch = "x86_64")]
    return x86_64::instruction(feature);
    #[cfg(target_arch = "aarch64")]
    return aarch64::instruction(feature);
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let _ = feature;
        None
    }
}

/// A function that runs one instruction on the first vector register, given as its bytes, so that no assembler's idea
/// of features comes between.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! run {
    ($code:literal) => {{
        fn run() {
            // SAFETY: the instruction reads and writes one vector register, which is declared (on x86-64 by the name
            // of its lowest part). Where the CPU lacks it the process ends, which is why a child runs it.
            #[cfg(target_arch = "x86_64")]
            unsafe {
                core::arch::asm!($code, out("xmm0") _, options(nomem, nostack));
            }
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            unsafe {
                core::arch::asm!($code, out("v0") _, options(nomem, nostack));
            }
        }
        Some(run as fn())
    }};
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use bitnet_codegen::Feature;

    pub fn instruction(feature: Feature) -> Option<fn()> {
        match feature {
            // pshufb xmm0, xmm0
            Feature::Ssse3 => run!(".byte 0x66, 0x0f, 0x38, 0x00, 0xc0"),
            // pminsd xmm0, xmm0
            Feature::Sse41 => run!(".byte 0x66, 0x0f, 0x38, 0x39, 0xc0"),
            // vxorps ymm0, ymm0, ymm0
            Feature::Avx => run!(".byte 0xc5, 0xfc, 0x57, 0xc0"),
            // vpaddb ymm0, ymm0, ymm0
            Feature::Avx2 => run!(".byte 0xc5, 0xfd, 0xfc, 0xc0"),
            // vfmadd231ps ymm0, ymm0, ymm0
            Feature::Fma => run!(".byte 0xc4, 0xe2, 0x7d, 0xb8, 0xc0"),
            // {vex} vpdpbusd ymm0, ymm0, ymm0
            Feature::AvxVnni => run!(".byte 0xc4, 0xe2, 0x7d, 0x50, 0xc0"),
            // vpaddd zmm0, zmm0, zmm0
            Feature::Avx512F => run!(".byte 0x62, 0xf1, 0x7d, 0x48, 0xfe, 0xc0"),
            // vpaddb zmm0, zmm0, zmm0
            Feature::Avx512Bw => run!(".byte 0x62, 0xf1, 0x7d, 0x48, 0xfc, 0xc0"),
            // {evex} vpaddd xmm0, xmm0, xmm0
            Feature::Avx512Vl => run!(".byte 0x62, 0xf1, 0x7d, 0x08, 0xfe, 0xc0"),
            // vpdpbusd zmm0, zmm0, zmm0
            Feature::Avx512Vnni => run!(".byte 0x62, 0xf2, 0x7d, 0x48, 0x50, 0xc0"),
            // vpermb zmm0, zmm0, zmm0
            Feature::Avx512Vbmi => run!(".byte 0x62, 0xf2, 0x7d, 0x48, 0x8d, 0xc0"),
            // Of other processors; named, so that a new feature cannot be forgotten here.
            Feature::Neon | Feature::Dotprod | Feature::I8mm | Feature::V => None,
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use bitnet_codegen::Feature;

    pub fn instruction(feature: Feature) -> Option<fn()> {
        match feature {
            // sdot v0.4s, v0.16b, v0.16b
            Feature::Dotprod => run!(".inst 0x4e809400"),
            // usdot v0.4s, v0.16b, v0.16b
            Feature::I8mm => run!(".inst 0x4e809c00"),
            // NEON is part of the base that the program itself is compiled for.
            _ => None,
        }
    }
}

/// Which of `runs` end the child that calls them. All are called in one child; when it ends early, the one at fault is
/// noted and another child goes on behind it.
#[cfg(unix)]
fn faults(runs: &[fn()]) -> Vec<usize> {
    let mut faulting = Vec::new();
    let mut from = 0;
    while from < runs.len() {
        match unix::first_fault(&runs[from..]) {
            Some(at) => {
                faulting.push(from + at);
                from += at + 1;
            }
            None => break,
        }
    }
    faulting
}

#[cfg(not(unix))]
fn faults(_runs: &[fn()]) -> Vec<usize> {
    Vec::new()
}

#[cfg(unix)]
mod unix {
    /// The exit status of a child that called `n` functions is `n`: far fewer than 200 exist.
    const MAX_RUNS: usize = 200;

    /// No instruction takes this long; one that does is not usable.
    const SECONDS: u32 = 5;

    /// Calls `runs` in a child, in order; which of them ended it. Nothing if none did, or if there is no child.
    pub fn first_fault(runs: &[fn()]) -> Option<usize> {
        assert!(runs.len() <= MAX_RUNS, "a feature each");
        // How far the child came, where its end does not say: a page that both see.
        let shared = Shared::new()?;
        // SAFETY: the child only does what may be done after `fork` in a program of several threads: system calls and
        // arithmetic on its own stack and the shared page; it allocates nothing, takes no lock, and never returns.
        let child = unsafe { libc::fork() };
        if child == 0 {
            run_all(runs, &shared);
        }
        if child < 0 {
            return None;
        }
        let mut status = 0;
        loop {
            // SAFETY: waits for a child of ours; `status` is a local integer.
            let waited = unsafe { libc::waitpid(child, &mut status, 0) };
            if waited == child {
                break;
            }
            if std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
                return None;
            }
        }
        libc::WIFSIGNALED(status).then(|| shared.get())
    }

    /// In the child: as if nobody had set anything up for signals, no core file, and an end in any case.
    fn run_all(runs: &[fn()], shared: &Shared) -> ! {
        for signal in [
            libc::SIGILL,
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGTRAP,
            libc::SIGALRM,
        ] {
            // SAFETY: the child's own disposition; the parent's is not touched.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        let none = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: limits the child alone; the structure is a local one.
        unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
        // SAFETY: a timer of the child.
        unsafe { libc::alarm(SECONDS) };
        for (i, run) in runs.iter().enumerate() {
            shared.set(i);
            run();
        }
        // SAFETY: ends the child without running what the parent has registered for its own end.
        unsafe { libc::_exit(0) }
    }

    /// A number that a child and its parent share.
    struct Shared(*mut std::sync::atomic::AtomicUsize);

    impl Shared {
        fn new() -> Option<Self> {
            let bytes = size_of::<std::sync::atomic::AtomicUsize>();
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
            // SAFETY: a new mapping at an address of the system's choice touches nothing that exists.
            let page = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
            (page != libc::MAP_FAILED).then(|| Self(page.cast()))
        }

        fn number(&self) -> &std::sync::atomic::AtomicUsize {
            // SAFETY: the page was mapped in `new`, zeroed and aligned, and lives as long as `self`.
            unsafe { &*self.0 }
        }

        fn set(&self, value: usize) {
            self.number()
                .store(value, std::sync::atomic::Ordering::SeqCst);
        }

        fn get(&self) -> usize {
            self.number().load(std::sync::atomic::Ordering::SeqCst)
        }
    }

    impl Drop for Shared {
        fn drop(&mut self) {
            // SAFETY: mapped in `new` with this length; nothing borrows from it any more.
            unsafe { libc::munmap(self.0.cast(), size_of::<std::sync::atomic::AtomicUsize>()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_cpu_announces_holds() {
        let got = proven();
        assert_eq!(got.features, Features::detect(), "{got:?}");
        assert!(got.faulting.is_empty() && got.note().is_none());
        let tried = Features::detect().iter().filter_map(instruction).count();
        println!("{tried} instructions were run");
    }

    #[cfg(all(unix, target_arch = "x86_64"))]
    #[test]
    fn a_feature_that_faults_is_struck_off_and_the_others_are_still_tried() {
        fn undefined() {
            // SAFETY: nothing is touched; the instruction is the one that always faults.
            unsafe { core::arch::asm!("ud2", options(nomem, nostack)) }
        }
        fn reads_nowhere() {
            // SAFETY: the fault is what is wanted; it ends the child that runs this.
            unsafe {
                core::arch::asm!("mov {x}, [{x}]", x = inout(reg) 8usize => _, options(nostack))
            }
        }
        fn fine() {}
        assert_eq!(
            faults(&[fine, undefined, fine, reads_nowhere, undefined]),
            [1, 3, 4]
        );
        assert!(faults(&[fine, fine]).is_empty());
        assert!(faults(&[]).is_empty());
    }

    /// A CPU that announces what it has, and AVX-512 VNNI and VBMI, whose instructions it does not know.
    #[cfg(all(unix, target_arch = "x86_64"))]
    #[test]
    fn a_claimed_feature_that_faults_is_rejected_by_name_with_every_kernel_that_needs_it() {
        use bitnet_codegen::Isa;
        fn undefined() {
            // SAFETY: as above.
            unsafe { core::arch::asm!("ud2", options(nomem, nostack)) }
        }
        fn fine() {}
        let basic = [Feature::Ssse3, Feature::Sse41, Feature::Avx, Feature::Avx2];
        let wide = [Feature::Avx512F, Feature::Avx512Bw];
        let lies = [Feature::Avx512Vnni, Feature::Avx512Vbmi];
        let announced = [&basic[..], &wide, &lies].concat().into_iter().collect();
        assert!(Isa::Avx512Vbmi.runs_on(announced));
        let got = prove(announced, |f| {
            Some(if lies.contains(&f) { undefined } else { fine })
        });
        assert_eq!(got.faulting, lies);
        assert_eq!(got.features, basic.into_iter().chain(wide).collect());
        let note = got.note().expect("said");
        assert!(
            note.contains("avx512_vnni, avx512_vbmi and faults on it"),
            "{note}"
        );
        let runs = |isa: Isa| isa.runs_on(got.features);
        assert!(runs(Isa::Avx512Bw) && !runs(Isa::Avx512Vnni) && !runs(Isa::Avx512Vbmi));
    }

    /// A host's own handler is neither called nor lost.
    #[cfg(all(unix, target_arch = "x86_64"))]
    #[test]
    fn handlers_of_the_host_are_left_alone() {
        extern "C" fn handler(_: libc::c_int) {}
        fn undefined() {
            // SAFETY: as above.
            unsafe { core::arch::asm!("ud2", options(nomem, nostack)) }
        }
        let own = handler as *const () as libc::sighandler_t;
        // SAFETY: the handler does nothing; nothing in this process executes an undefined instruction.
        let before = unsafe { libc::signal(libc::SIGILL, own) };
        assert_eq!(faults(&[undefined]), [0]);
        // SAFETY: puts back what was there.
        let after = unsafe { libc::signal(libc::SIGILL, before) };
        assert_eq!(after, own);
    }
}
