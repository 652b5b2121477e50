//! The packages of the workspace, as `cargo metadata` tells of them.

use crate::source::rust_files;
use crate::workspace;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One package of the workspace.
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its folder below the workspace.
    pub folder: String,
    /// The names of what it depends on, in any way.
    pub dependencies: Vec<String>,
}

/// All of them.
///
/// # Panics
/// When cargo does not answer.
pub fn packages() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .current_dir(workspace())
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{output:?}");
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |v: &Value| v.as_str().expect("a text").to_owned();
    let package = |p: &Value| {
        let manifest = text(&p["manifest_path"]);
        let folder = Path::new(&manifest).parent().expect("a folder");
        let folder = folder.strip_prefix(workspace()).expect("of the workspace");
        let dependencies = p["dependencies"].as_array().expect("a list");
        Package {
            name: text(&p["name"]),
            folder: folder.display().to_string(),
            dependencies: dependencies
                .iter()
                .map(|d| {
                    d["rename"]
                        .as_str()
                        .map_or_else(|| text(&d["name"]), str::to_owned)
                })
                .collect(),
        }
    };
    let packages = document["packages"].as_array().expect("a list");
    packages.iter().map(package).collect()
}

impl Package {
    /// Its sources: those of a package within its folder are not its own.
    pub fn files(&self) -> Vec<PathBuf> {
        let folder = workspace().join(&self.folder);
        let mut files = rust_files(&folder);
        files.retain(|path| {
            path.ancestors()
                .skip(1)
                .take_while(|a| *a != folder)
                .all(|a| !a.join("Cargo.toml").exists())
        });
        files
    }
}
