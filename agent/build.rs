//! Options of the linker for the static binary, which stands beside every application: relocations in
//! their packed form are a tenth of the size. Must not touch any other build: a C library before 2.36
//! could not load it.

fn main() {
    let features = std::env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    if features.split(',').any(|feature| feature == "crt-static") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
