//! What the compiler refuses, and what it says: each file of `ui/*/` is one mistake, and beside it
//! stands the message. Those in `ui/pass/` are the same programs with the mistake mended.
//!
//! After a change of messages, `TRYBUILD=overwrite cargo test -p tests --test ui` writes them anew;
//! they are then to be read, by somebody who pretends to have made the mistake. They are those of
//! the compiler that `rust-toolchain.toml` names: others word theirs otherwise, and are left alone.

use std::fs;
use std::process::Command;

#[test]
fn refused() {
    if let Err(other) = is_the_pinned_compiler() {
        eprintln!("left out: messages are those of the pinned compiler, and this is {other}");
        return;
    }
    let cases = trybuild::TestCases::new();
    for folder in fs::read_dir("ui").unwrap() {
        let folder = folder.unwrap().path();
        let files = folder.join("*.rs");
        if folder.ends_with("pass") {
            cases.pass(files);
        } else {
            cases.compile_fail(files);
        }
    }
}

/// The version of another one, if it is another.
fn is_the_pinned_compiler() -> Result<(), String> {
    let pinned = fs::read_to_string("../rust-toolchain.toml").expect("it is in the workspace");
    let rustc = Command::new("rustc").arg("--version").output();
    let rustc = rustc.expect("there is a compiler");
    let version = String::from_utf8_lossy(&rustc.stdout);
    // `rustc 1.2.3 (hash date)` and `channel = "1.2.3"`
    match version.split_whitespace().nth(1) {
        Some(number) if pinned.contains(&format!("\"{number}\"")) => Ok(()),
        _ => Err(version.into_owned()),
    }
}
