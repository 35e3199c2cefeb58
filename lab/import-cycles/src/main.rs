//! Fails when the modules of a crate import each other in a cycle, and prints every import that is part of one; and
//! when two types of a crate share a name.
//!
//! `import-cycles Cargo.toml` reads each library and program of that workspace. A module needs another if its code
//! names an item that the other one defines, re-exports followed. Methods that are called without naming their type
//! are not seen, nor is what macros expand to. An inline module counts as part of its file.

mod graph;
mod modules;
mod read;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let manifest = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "Cargo.toml".to_owned());
    match check(&manifest) {
        Ok((0, 0)) => ExitCode::SUCCESS,
        Ok((cycles, names)) => {
            if cycles > 0 {
                eprintln!(
                    "{cycles} import cycles: move what both modules need into one of its own, or join the modules"
                );
            }
            if names > 0 {
                eprintln!("{names} names of several types in one crate: rename all but one");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("import-cycles: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the cycles and the shared type names of every crate in the workspace, and counts both.
fn check(manifest: &str) -> Result<(usize, usize), Box<dyn std::error::Error>> {
    let (mut crates, mut modules, mut cycles, mut names) = (0, 0, 0, 0);
    for (name, root) in roots(manifest)? {
        let found = read::read(&root, &|path: &Path| std::fs::read_to_string(path).ok())?;
        crates += 1;
        modules += found
            .modules
            .iter()
            .enumerate()
            .filter(|(at, module)| module.unit == *at)
            .count();
        for cycle in graph::cycles(&found) {
            cycles += 1;
            println!("{name}: {cycle}");
        }
        for shared in found.shared_type_names() {
            names += 1;
            println!("{name}: {shared}");
        }
    }
    println!(
        "{cycles} import cycles and {names} shared type names in {modules} modules of {crates} crates"
    );
    Ok((cycles, names))
}

/// The name and the root file of each library and program in the workspace.
fn roots(manifest: &str) -> Result<Vec<(String, PathBuf)>, Box<dyn std::error::Error>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--manifest-path",
            manifest,
        ])
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let here = std::env::current_dir()?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let targets = packages.flat_map(|package| package["targets"].as_array().into_iter().flatten());
    let is_product =
        |kind: &serde_json::Value| kind == "lib" || kind == "bin" || kind == "proc-macro";
    Ok(targets
        .filter(|target| {
            target["kind"]
                .as_array()
                .into_iter()
                .flatten()
                .any(is_product)
        })
        .filter_map(|target| {
            Some((
                target["name"].as_str()?.to_owned(),
                PathBuf::from(target["src_path"].as_str()?),
            ))
        })
        .map(|(name, root)| {
            (
                name,
                root.strip_prefix(&here).map(Path::to_owned).unwrap_or(root),
            )
        })
        .collect())
}
