//! Every image the demo and the cluster tests need, built from this repository as static binaries.
//!
//! Knows how they are built and named, not what they do.

use std::env;
use std::ffi::OsString;
use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use testbed::image::ImageSpec;
use testbed::parts::{Part, ensure};
use testbed::{Cluster, go_build_static};

use crate::error::{Error, Result};
use crate::repository;

/// The operator.
pub const OPERATOR: &str = concat!("otelagent/operator:", env!("CARGO_PKG_VERSION"));
/// The agent.
pub const AGENT: &str = concat!("otelagent/agent:", env!("CARGO_PKG_VERSION"));
/// An application with the SDK for Rust.
pub const RUST_SDK: &str = "otelagent-test/rust-sdk:1";
/// An application with the SDK for Go.
pub const GO_SDK: &str = "otelagent-test/go-sdk:1";
/// What counts the telemetry that arrives.
pub const LEDGER: &str = "otelagent-test/ledger:1";
/// An OpenTelemetry Collector.
pub const COLLECTOR: &str = "otelagent-test/otelcol:1";

/// The profile of what is built to be tried: quick to build, and otherwise as what is shipped.
const QUICK: &str = "quick";

/// Linked in whole, since the images contain nothing else.
const STATIC: &str = "-C target-feature=+crt-static";

/// Builds everything that changed, and returns the image files. Where `OTELAGENT_IMAGES` names a
/// directory, its files are taken as they are and nothing is built.
pub fn ensure_all() -> Result<Vec<PathBuf>> {
    ensure_beside(|| Ok(()))
}

/// The same beside other work, which is that of the Go compiler, too: where one compiler has too little to do for
/// all processors, the other goes on.
pub fn ensure_beside(work: impl FnOnce() -> Result<()> + Send) -> Result<Vec<PathBuf>> {
    if let Some(directory) = chosen() {
        work()?;
        return prebuilt(Path::new(&directory));
    }
    thread::scope(|scope| {
        let by_go = scope.spawn(|| {
            work()?;
            let go_sdk = target_directory().join("go-sdk");
            go_build_static(&apps_directory().join("go-sdk"), &go_sdk)?;
            let collector = ensure(Part::Collector)?;
            Ok::<_, Error>([
                put_binary(GO_SDK, go_sdk)?,
                put_binary(COLLECTOR, collector)?,
            ])
        });
        let by_cargo = by_cargo();
        let by_go = by_go.join();
        let by_go = by_go.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let mut images = by_cargo?;
        images.extend(by_go?);
        Ok(images)
    })
}

/// The images of what is written in Rust. In one profile, and applications beside the product, most of what they
/// need is compiled once.
fn by_cargo() -> Result<Vec<PathBuf>> {
    let (operator, agent) = ("otelagent-operator", "otelagent-agent");
    let product = |profile, packages: &[&str]| cargo(repository(), profile, packages);
    let directories = if is_shipped() {
        [
            product("operator", &[operator])?,
            product("release", &[agent])?,
        ]
    } else {
        let directory = product(QUICK, &[operator, agent])?;
        [directory.clone(), directory]
    };
    let apps = cargo(&apps_directory(), QUICK, &["rust-sdk", "ledger"])?;
    Ok(vec![
        put_binary(OPERATOR, directories[0].join(operator))?,
        put_binary(AGENT, directories[1].join(agent))?,
        put_binary(RUST_SDK, apps.join("rust-sdk"))?,
        put_binary(LEDGER, apps.join("ledger"))?,
    ])
}

/// Whether images are built as they are shipped, which takes minutes more.
fn is_shipped() -> bool {
    env::var("OTELAGENT_SHIPPED").is_ok_and(|value| value == "1")
}

fn apps_directory() -> PathBuf {
    repository().join("lab/apps")
}

/// A program of the product as it is built for development, for tests that start it as a process. It is built with
/// the tests of its workspace: alone it would have other features, and most of its dependencies be built again.
pub fn program(package: &str) -> Result<PathBuf> {
    let mut build = cargo_command(repository(), "test");
    build.args([
        "--no-run",
        "--workspace",
        "--test",
        "tests",
        "--test",
        "agent",
    ]);
    run(build, package)?;
    Ok(target_directory().join("debug").join(package))
}

/// The operator as it is shipped, for measurements of the process.
pub fn shipped_operator() -> Result<PathBuf> {
    let package = "otelagent-operator";
    Ok(cargo(repository(), "operator", &[package])?.join(package))
}

/// The directory whose images are taken as they are, where there is one.
pub(crate) fn chosen() -> Option<OsString> {
    env::var_os("OTELAGENT_IMAGES").filter(|value| !value.is_empty())
}

fn prebuilt(directory: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = || Error::io(format!("read {}", directory.display()));
    let mut images = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable())? {
        let path = entry.map_err(unreadable())?.path();
        if path.extension().is_some_and(|extension| extension == "tar") {
            images.push(path);
        }
    }
    images.sort();
    Ok(images)
}

/// Gives the images to the nodes; false where the cluster is not ours and must have them already.
pub fn load_all(cluster: &Cluster, images: &[PathBuf]) -> Result<bool> {
    if matches!(cluster, Cluster::External { .. }) {
        return Ok(false);
    }
    for image in images {
        cluster.load_image(image)?;
    }
    Ok(true)
}

/// Where cargo puts what it builds.
pub(crate) fn target_directory() -> PathBuf {
    let chosen = env::var_os("CARGO_TARGET_DIR").filter(|value| !value.is_empty());
    chosen.map_or_else(|| repository().join("target"), PathBuf::from)
}

/// Builds packages of a workspace into static binaries, and returns the directory they are in.
fn cargo(workspace: &Path, profile: &str, packages: &[&str]) -> Result<PathBuf> {
    // Naming the target keeps the flags away from build scripts, and this build away from others.
    let triple = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let mut build = cargo_command(workspace, "build");
    build
        .args(["--profile", profile, "--target", &triple])
        .args(packages.iter().flat_map(|package| ["--package", package]))
        .env("RUSTFLAGS", STATIC);
    run(build, &packages.join(" and "))?;
    Ok(target_directory().join(triple).join(profile))
}

fn cargo_command(workspace: &Path, subcommand: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What an outer cargo says of the package it runs: build scripts that read such a variable would run anew, and what
    // depends on them be compiled again.
    for (name, _) in env::vars_os() {
        let of_package = |name: &str| {
            ["CARGO_PKG_", "CARGO_MANIFEST_"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        };
        if name.to_str().is_some_and(of_package) {
            command.env_remove(name);
        }
    }
    command
        .current_dir(workspace)
        .args([subcommand, "--locked", "--target-dir"])
        .arg(target_directory())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

fn run(mut build: Command, what: &str) -> Result<()> {
    if stderr().is_terminal() {
        // Cargo's own progress says more than any summary.
        build.stderr(Stdio::inherit());
    } else {
        eprintln!("demo: build {what} ...");
    }
    let output = build.output().map_err(Error::io("start cargo"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = text.lines().collect();
        return Err(Error::Build {
            what: what.to_owned(),
            output: lines[lines.len().saturating_sub(40)..].join("\n"),
        });
    }
    Ok(())
}

/// Writes the image of one static binary.
fn put_binary(name: &str, binary: PathBuf) -> Result<PathBuf> {
    let inner = binary.file_name().unwrap_or_default().to_string_lossy();
    let inner = format!("/{inner}");
    let spec = ImageSpec {
        name: name.to_owned(),
        entrypoint: vec![inner.clone()],
        files: vec![(binary, inner)],
        ca_bundle: true,
        ..ImageSpec::default()
    };
    put(&spec)
}

/// The name of the file that has an image.
pub fn file_of(image: &str) -> String {
    format!("{}.tar", image.replace(['/', ':'], "-"))
}

/// Writes an image; a file that would be the same is left as it is.
pub(crate) fn put(spec: &ImageSpec) -> Result<PathBuf> {
    let directory = target_directory().join("images");
    let file = file_of(&spec.name);
    let tar = directory.join(&file);
    // Tests may build at the same time as the demo.
    let fresh = directory.join(format!("{}.{file}", std::process::id()));
    spec.write(&fresh)?;
    let read = |path: &Path| std::fs::read(path).ok();
    if read(&tar) == read(&fresh) {
        std::fs::remove_file(&fresh).map_err(Error::io(format!("remove {}", fresh.display())))?;
    } else {
        std::fs::rename(&fresh, &tar).map_err(Error::io(format!("rename {}", fresh.display())))?;
    }
    Ok(tar)
}
