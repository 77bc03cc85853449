//! Arrow's own programs, which `tests/interop/peers.sh` installs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A file that lies beside the interop tests and is not Rust.
pub fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("interop")
        .join(name)
}

/// The folder into which Arrow's programs were installed.
///
/// # Panics
/// If they are not there. Nobody runs these tests without asking for them.
pub fn installed() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = cache().join("venv");
        assert!(
            folder.join("installed").exists(),
            "Arrow's programs are not in {}: run tests/interop/peers.sh",
            folder.display()
        );
        folder
    })
}

fn cache() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(cache) = variable("PLASMA_PEERS_CACHE") {
        return cache.into();
    }
    let caches = variable("XDG_CACHE_HOME").map(PathBuf::from);
    let caches = caches.unwrap_or_else(|| {
        let home = variable("HOME").expect("a home folder, or PLASMA_PEERS_CACHE");
        Path::new(&home).join(".cache")
    });
    caches.join("plasma-rs-peers")
}

/// The Python that has `pyarrow`.
pub fn python() -> Command {
    let mut python = Command::new(installed().join("bin/python"));
    python.env("PYTHONDONTWRITEBYTECODE", "1");
    python
}

/// The folder of the installed `pyarrow`.
pub fn pyarrow() -> PathBuf {
    let libraries = std::fs::read_dir(installed().join("lib")).expect("a Python's libraries");
    let mut packages = libraries
        .flatten()
        .map(|python| python.path().join("site-packages/pyarrow"))
        .filter(|package| package.exists());
    packages.next().expect("pyarrow is installed")
}

/// Writes a program. Nobody may execute what anybody has open for writing, and what this process has
/// open, others have for a moment that it starts meanwhile: another process writes it.
pub fn write_script(path: &Path, text: &str) {
    let draft = path.with_extension("draft");
    std::fs::write(&draft, text).expect("a folder to write to");
    let installed = Command::new("install")
        .arg("--mode=755")
        .args([&draft, path])
        .status();
    assert!(installed.expect("there is install").success());
}

/// Arrow's store. What it logs, a line for each eviction among others, goes to a file beside it.
pub fn store_program() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (program, log) = (folder.join("arrows-store"), folder.join("arrows-store.log"));
        let script = format!(
            "#!/bin/sh\nexec '{}' \"$@\" 2>>'{}'\n",
            pyarrow().join("plasma-store-server").display(),
            log.display()
        );
        std::fs::write(&log, "").expect("a folder to write to");
        write_script(&program, &script);
        program
    });
    program.clone()
}

/// `cpp_client.cc` with Arrow's C++ client, compiled when it is first asked for.
pub fn cpp_client() -> Command {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| {
        let source = beside("cpp_client.cc");
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cpp_client");
        let changed = |path: &Path| path.metadata().and_then(|it| it.modified()).ok();
        if changed(&program) > changed(&source) {
            return program;
        }
        let pyarrow = pyarrow();
        let status = Command::new("g++")
            // Arrow's wheels are built with the C++ library's old strings.
            .args(["-std=c++17", "-O1", "-D_GLIBCXX_USE_CXX11_ABI=0"])
            .args(["-D_PLASMA_NO_DEPRECATE", "-Wall", "-Wextra", "-Werror"])
            .arg("-isystem")
            .arg(pyarrow.join("include"))
            .arg(source)
            .arg(pyarrow.join("libplasma.so.1100"))
            .arg(pyarrow.join("libarrow.so.1100"))
            .args(["-lpthread", "-o"])
            .arg(&program)
            .status()
            .expect("there is a C++ compiler, g++");
        assert!(status.success(), "cpp_client.cc does not compile");
        program
    });
    let mut client = Command::new(program);
    client.env("LD_LIBRARY_PATH", pyarrow());
    client
}
