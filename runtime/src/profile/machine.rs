//! The CPU's own name, which tells profiles of this machine from others.

/// The name that the system gives the CPU; `unknown` and the architecture where it gives none.
pub fn cpu_name() -> String {
    named(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

/// From the text of `/proc/cpuinfo`: `model name` on x86, other keys elsewhere.
fn named(cpuinfo: &str) -> String {
    let field = |key: &str| {
        cpuinfo.lines().find_map(|line| {
            let (k, v) = line.split_once(':')?;
            (k.trim() == key && !v.trim().is_empty()).then(|| v.trim().to_owned())
        })
    };
    ["model name", "Model", "Processor", "uarch"]
        .into_iter()
        .find_map(field)
        .unwrap_or_else(|| format!("unknown {}", std::env::consts::ARCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_the_system_writes_them() {
        assert_eq!(
            named("processor\t: 0\nmodel name\t: AMD EPYC\n"),
            "AMD EPYC"
        );
        assert_eq!(named("Model\t\t: Raspberry Pi 5\n"), "Raspberry Pi 5");
        assert!(named("").starts_with("unknown"));
        assert!(!cpu_name().is_empty());
    }
}
