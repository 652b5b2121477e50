//! Where a profile comes from: the path asked for, `$BITNET_PROFILE`, the user's folder, the nearest of the
//! shipped ones, or none.

use super::{Machine, Profile, ProfileError, State, parse};
use crate::small_file;
use bitnet_codegen::Features;
use std::path::{Path, PathBuf};

/// A profile inside the binary.
#[derive(Clone, Copy, Debug)]
pub struct ShippedProfile {
    /// File name in `profiles/`.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

macro_rules! shipped {
    ($($name:literal)*) => {
        &[$(ShippedProfile {
            name: $name,
            text: include_str!(concat!("../../../profiles/", $name)),
        },)*]
    };
}

/// Every shipped profile, those that were measured first.
pub const SHIPPED: &[ShippedProfile] = shipped! {
    "amd-zen4-avx512.toml"
    "amd-zen5-avx512.toml"
    "apple-a16-phone-estimate.toml"
    "avx-vnni-laptop-estimate.toml"
    "avx2-laptop-estimate.toml"
    "cortex-a76-board-estimate.toml"
};

/// Where a profile was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// A shipped one, by name.
    Shipped(&'static str),
    /// In a pack of kernels, which it goes with.
    Pack(PathBuf),
    /// None: kernels are estimated.
    Estimate,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::File(path) => write!(f, "{}", path.display()),
            Source::Shipped(name) => write!(f, "shipped:{name}"),
            Source::Pack(path) => write!(f, "pack:{}", path.display()),
            Source::Estimate => f.write_str("estimate"),
        }
    }
}

/// The profile in use, how it fits, and what to tell the user, if anything.
#[derive(Clone, Debug)]
pub struct Found {
    /// The profile; empty when estimating.
    pub profile: Profile,
    /// Where it came from.
    pub source: Source,
    /// How it fits; `None` when estimating.
    pub state: Option<State>,
    /// One line to say aloud once; `None` when all is as it should be.
    pub note: Option<String>,
}

/// The user's own profile: `bitnet-tune/profile.toml` in the configuration folder of the system.
pub fn user_path() -> Option<PathBuf> {
    let env = path_in_environment;
    let base = if cfg!(windows) {
        env("APPDATA")
    } else if cfg!(target_os = "macos") {
        env("HOME").map(|h| h.join("Library/Application Support"))
    } else {
        env("XDG_CONFIG_HOME").or_else(|| env("HOME").map(|h| h.join(".config")))
    };
    Some(base?.join("bitnet-tune/profile.toml"))
}

/// A path from the environment; a variable that is empty says as much as one that is not set.
pub(crate) fn path_in_environment(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .filter(|v| !v.is_empty())
        .map(PathBuf::from)
}

/// Finds the profile for `here`, whose kernels may use `features`. A file that was asked for and cannot be used
/// falls through to the next source, with a note.
pub fn find(asked: Option<&Path>, here: &Machine, features: Features) -> Found {
    let asked = asked
        .map(Path::to_owned)
        .or_else(|| path_in_environment("BITNET_PROFILE"));
    let user = user_path().filter(|p| asked.is_none() && p.exists());
    let mut bad = None;
    if let Some(path) = asked.or(user) {
        match read(&path) {
            Ok(profile) => return judge(profile, Source::File(path), here, features),
            Err(e @ ProfileError::Read { .. }) => bad = Some(e.to_string()),
            Err(e) => bad = Some(format!("profile {}: {e}", path.display())),
        }
    }
    let mut found = shipped(SHIPPED, here, features);
    let instead = match &found.source {
        Source::Estimate => "kernels are estimated".to_owned(),
        other => format!("kernels are those of {other}"),
    };
    if let Some(bad) = bad {
        found.note = Some(format!("{bad}; {instead}"));
    } else if found.source == Source::Estimate {
        found.note = Some(format!(
            "no profile for this machine, {instead}: `bitnet-tune tune` measures"
        ));
    }
    found
}

/// No profile is larger.
const MAX_BYTES: u64 = 16 << 20;

/// Reads a profile.
///
/// # Errors
/// [`ProfileError`]; only that of a file that cannot be read names the path.
pub fn read(path: &Path) -> Result<Profile, ProfileError> {
    let bytes = small_file::read(path, MAX_BYTES).map_err(|source| ProfileError::Read {
        path: path.to_owned(),
        source,
    })?;
    let text = String::from_utf8(bytes).map_err(|e| ProfileError::Syntax(e.to_string()))?;
    parse(&text)
}

fn judge(profile: Profile, source: Source, here: &Machine, features: Features) -> Found {
    let (state, why) = profile.state(here, features);
    let note = (state != State::Exact).then(|| {
        format!(
            "profile {source} is {}: {why}; `bitnet-tune tune` measures this machine",
            state.name()
        )
    });
    Found {
        profile,
        source,
        state: Some(state),
        note,
    }
}

/// The profile in the pack at `path`: what chose its kernels chooses them again. Without entries kernels are estimated,
/// as they were when it was written.
pub fn of_pack(profile: &Profile, path: &Path, here: &Machine, features: Features) -> Found {
    let source = Source::Pack(path.to_owned());
    match profile.entries.is_empty() {
        true => Found {
            profile: profile.clone(),
            source,
            state: None,
            note: None,
        },
        false => judge(profile.clone(), source, here, features),
    }
}

/// The shipped profile for `here`, whatever the user has.
pub fn find_shipped(here: &Machine, features: Features) -> Found {
    shipped(SHIPPED, here, features)
}

/// How well a shipped profile fits, the most important first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fit {
    state: u8,
    is_measured: bool,
    same_vendor: bool,
    features_in_common: usize,
}

impl Fit {
    fn of(p: &Profile, here: &Machine, features: Features) -> Self {
        let is_here = |name: &&String| features.iter().any(|f| f.name() == name.as_str());
        Self {
            state: match p.state(here, features).0 {
                State::Exact => 3,
                State::Compatible => 2,
                State::Stale => 1,
                State::Foreign => 0,
            },
            is_measured: !p.is_estimate,
            same_vendor: !here.vendor.is_empty() && p.host.machine.vendor == here.vendor,
            features_in_common: p.host.features.iter().filter(is_here).count(),
        }
    }

    /// Why it was taken, of `of` whose kernels run here.
    fn reason(self, p: &Profile, of: usize) -> String {
        let maker = match self.same_vendor {
            true => "of the same maker, ",
            false if p.host.machine.vendor.is_empty() => "",
            false => "of another maker, ",
        };
        format!(
            "the nearest of {of} whose kernels run here: {maker}{} of its {} features",
            self.features_in_common,
            p.host.features.len()
        )
    }
}

/// The shipped profile that fits best, of those whose kernels all run here: the best state, measured before estimated,
/// then the same vendor, then most features in common. That of another CPU is a guess, but a better one than none.
fn shipped(list: &[ShippedProfile], here: &Machine, features: Features) -> Found {
    let runs = |p: &Profile| p.entries.iter().all(|e| e.spec.isa.runs_on(features));
    let usable: Vec<(&'static str, Profile)> = list
        .iter()
        .filter_map(|s| Some((s.name, parse(s.text).ok()?)))
        .filter(|(_, p)| runs(p) && !p.entries.is_empty())
        .collect();
    let of = usable.len();
    let fit = |p: &Profile| Fit::of(p, here, features);
    let Some((name, profile)) = usable.into_iter().max_by_key(|(_, p)| fit(p)) else {
        return Found {
            profile: Profile::default(),
            source: Source::Estimate,
            state: None,
            note: None,
        };
    };
    let reason = fit(&profile).reason(&profile, of);
    let mut found = judge(profile, Source::Shipped(name), here, features);
    if found.state == Some(State::Foreign) {
        found.note = found.note.map(|note| format!("{note}; it is {reason}"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_profile_parses() {
        for s in SHIPPED {
            let p = parse(s.text).unwrap_or_else(|e| panic!("{}: {e}", s.name));
            assert!(p.unknown.is_empty() && !p.entries.is_empty(), "{}", s.name);
        }
    }

    #[test]
    fn a_missing_or_broken_file_falls_back_and_is_said() {
        let missing = find(
            Some(Path::new("/nonexistent/p.toml")),
            &Machine::default(),
            Features::NONE,
        );
        assert!(missing.note.expect("said").contains("/nonexistent/p.toml"));
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("p.toml");
        std::fs::write(&path, "version = 1\n[").expect("written");
        let broken = find(Some(&path), &Machine::default(), Features::NONE);
        let note = broken.note.expect("said");
        assert!(note.contains("p.toml") && !note.contains('\n'), "{note}");
        assert!(broken.profile.entries.is_empty());
    }

    #[test]
    fn a_shipped_profile_whose_kernels_do_not_run_is_not_taken() {
        let text = "version = 1\ngenerator = \"0.1.0\"\n[host]\ncpu = \"big\"\n[[kernel]]\nn = 64\nk = 64\nm_from = 1\n\
            spec = \"i2s-i2s-1x32c16-ISA\"\nm = 1\nthreads = 1\ncold = true\nmedian_ns = 1.0\nmad_ns = 0.0\nsamples = 3\n\
            gb_per_s = 1.0\ngmac_per_s = 1.0\nroofline_fraction = 0.5\ntimed = 1\nunsupported = 0\n";
        let foreign: &'static str = text.replace("ISA", "avx512vbmi").leak();
        let own: &'static str = text.replace("ISA", "interp").leak();
        let list = [
            ShippedProfile {
                name: "big",
                text: foreign,
            },
            ShippedProfile {
                name: "small",
                text: own,
            },
        ];
        let found = shipped(&list, &Machine::default(), Features::NONE);
        assert_eq!(
            (found.source, found.state),
            (Source::Shipped("small"), Some(State::Foreign)),
            "another CPU's, and said to be"
        );
        let note = found.note.expect("said");
        assert!(
            note.contains("the nearest of 1 whose kernels run here"),
            "{note}"
        );
        assert_eq!(
            shipped(&list[..1], &Machine::default(), Features::NONE).source,
            Source::Estimate
        );
    }
}
