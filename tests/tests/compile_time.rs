//! What the derive costs the compiler: crates of many structs, built with it and without.
//!
//! ```sh
//! cargo test -p tests --test compile_time -- --ignored --nocapture
//! ```

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const STRUCTS: usize = 200;
const ROUNDS: usize = 5;

#[test]
#[ignore = "measures: builds crates of its own"]
fn two_hundred_structs_of_ten_fields() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    let crates = [
        ("plain", "Clone, Copy, Debug"),
        ("derived", "PlasmaObject, Clone, Copy, Debug"),
    ]
    .map(|(name, derives)| write_crate(folder.path(), name, derives));
    // The first builds what they depend on as well.
    for of_one in &crates {
        build(of_one, &target);
    }
    let mut times = [Duration::MAX; 2];
    for _ in 0..ROUNDS {
        for (of_one, shortest) in crates.iter().zip(&mut times) {
            let source = of_one.join("src/lib.rs");
            let file = fs::File::options().append(true).open(source).unwrap();
            file.set_modified(std::time::SystemTime::now()).unwrap();
            *shortest = build(of_one, &target).min(*shortest);
        }
    }
    let [plain, derived] = times;
    let more = derived.saturating_sub(plain);
    println!(
        "{STRUCTS} structs of 10 fields, shortest of {ROUNDS} debug builds: {plain:.2?} without \
         the derive, {derived:.2?} with it: {more:.2?} more"
    );
}

/// A crate of structs that derive these traits; its folder.
fn write_crate(folder: &Path, name: &str, derives: &str) -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let typed = workspace.join("plasma-typed");
    let package = folder.join(name);
    fs::create_dir_all(package.join("src")).expect("a folder for the crate");
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [dependencies]\nplasma-typed = {{ path = {typed:?} }}\n\n[workspace]\n"
    );
    let lock = fs::read(workspace.join("Cargo.lock")).expect("the workspace has one");
    for (file, content) in [
        ("Cargo.toml", manifest.into_bytes()),
        // The same versions as here, so that nothing has to be fetched.
        ("Cargo.lock", lock),
        ("src/lib.rs", source(derives).into_bytes()),
    ] {
        fs::write(package.join(file), content).expect("the folder can be written");
    }
    package
}

/// Structs of ten fields each, with numbers, arrays, an enum and another struct among them.
fn source(derives: &str) -> String {
    let mut text = format!(
        "#[allow(unused_imports)]\nuse plasma_typed::PlasmaObject;\n\n\
         #[derive({derives})]\n#[repr(u8)]\npub enum Side {{ Buy, Sell }}\n\n\
         #[derive({derives})]\n#[repr(C)]\npub struct Price {{ pub units: i64, pub nanos: i64 }}\n"
    );
    for number in 0..STRUCTS {
        writeln!(
            text,
            "#[derive({derives})]\n#[repr(C)]\npub struct Record{number} {{\n    \
             pub ts_ns: u64,\n    pub price: f64,\n    pub best: Price,\n    \
             pub levels: [f64; {}],\n    pub size: u32,\n    pub venue: u16,\n    \
             pub side: Side,\n    pub last: bool,\n    pub symbol: [u8; 16],\n    \
             pub last_of_ten: {},\n}}",
            1 + number % 7,
            ["u64", "Price"][number % 2]
        )
        .expect("memory");
    }
    text
}

/// Builds a crate; how long that took.
fn build(package: &Path, target: &Path) -> Duration {
    let start = Instant::now();
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--offline"])
        .arg("--target-dir")
        .arg(target)
        .current_dir(package)
        // All of it each time.
        .env("CARGO_INCREMENTAL", "0")
        .status()
        .expect("cargo runs");
    assert!(status.success(), "{} does not build", package.display());
    start.elapsed()
}
