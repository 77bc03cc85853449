//! Arrow's own test suite of Plasma, unchanged, with this project's store in place of Arrow's.
//!
//! The suite starts the store that lies in `pyarrow`'s folder, so it runs in a copy of that folder:
//! links to everything but the store.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::arrow;

/// Tests in `pyarrow/tests/test_plasma.py` of 11.0.0.
const TESTS: u32 = 34;

/// Where the suite wants huge pages to be.
const HUGE_PAGES_FOLDER: &str = "/mnt/hugepages";

/// The kernel's number of huge pages.
const HUGE_PAGES: &str = "/proc/sys/vm/nr_hugepages";

/// Huge pages that the suite's store needs: 2 GB, and some room.
const HUGE_PAGES_WANTED: u32 = 1000;

#[test]
#[ignore = "needs Arrow's programs: see tests/README.md"]
fn arrows_suite_passes_with_our_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let shadow = folder.path().join("pyarrow");
    let copied = Command::new("cp")
        .arg("-rs")
        .args([&arrow::pyarrow(), &shadow])
        .status();
    assert!(copied.expect("cp runs").success());
    let store = shadow.join("plasma-store-server");
    fs::remove_file(&store).expect("the link to Arrow's store");
    symlink(tests::server_program(), &store).expect("a link to our store");

    let huge_pages = HugePages::reserve();
    let mut pytest = arrow::python();
    pytest
        .args([
            "-m",
            "pytest",
            "-v",
            "-p",
            "no:cacheprovider",
            "--noconftest",
        ])
        .args(["-o", "markers=plasma"])
        // The test with huge pages is marked as one that may fail: not here.
        .arg("--runxfail")
        .arg(shadow.join("tests/test_plasma.py"))
        .env("PYTHONPATH", folder.path())
        .current_dir(folder.path())
        .stdin(Stdio::null());
    let output = pytest.output().expect("pytest runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");

    let count = |outcome: &str| text.lines().filter(|line| line.contains(outcome)).count() as u32;
    let (passed, skipped) = (count(" PASSED "), count(" SKIPPED "));
    let left_out = u32::from(huge_pages.is_none());
    assert_eq!((passed, skipped), (TESTS - left_out, left_out), "{text}");
}

/// Huge pages, reserved and mounted; until it is dropped.
struct HugePages {
    before: String,
    mounted: bool,
}

impl HugePages {
    /// Reserves them where that is possible. Says so where it is not.
    fn reserve() -> Option<Self> {
        let reserved = Self::try_reserve();
        if let Err(reason) = &reserved {
            // Past the test's captured output: nobody is to miss it.
            use std::io::Write;
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: Arrow's test of huge pages: {reason}"
            );
        }
        reserved.ok()
    }

    fn try_reserve() -> Result<Self, String> {
        let folder = Path::new(HUGE_PAGES_FOLDER);
        if folder.exists() {
            return Err(format!(
                "there is a {HUGE_PAGES_FOLDER} already, not ours to use"
            ));
        }
        let before = fs::read_to_string(HUGE_PAGES);
        let before = before.map_err(|error| format!("no huge pages here: {error}"))?;
        let mut pages = Self {
            before,
            mounted: false,
        };
        fs::write(HUGE_PAGES, HUGE_PAGES_WANTED.to_string())
            .map_err(|error| format!("may not reserve huge pages: {error}"))?;
        let reserved = fs::read_to_string(HUGE_PAGES).unwrap_or_default();
        let reserved: u32 = reserved.trim().parse().unwrap_or(0);
        if reserved < HUGE_PAGES_WANTED {
            return Err(format!(
                "the kernel gives {reserved} huge pages of {HUGE_PAGES_WANTED}"
            ));
        }
        fs::create_dir(folder)
            .map_err(|error| format!("cannot make {HUGE_PAGES_FOLDER}: {error}"))?;
        pages.mounted = Command::new("mount")
            .args(["-t", "hugetlbfs", "none", HUGE_PAGES_FOLDER])
            .status()
            .is_ok_and(|status| status.success());
        if pages.mounted {
            Ok(pages)
        } else {
            let _ = fs::remove_dir(folder);
            Err("may not mount a hugetlbfs".into())
        }
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        // As far as possible; the test has its result by now.
        if self.mounted {
            let _ = Command::new("umount").arg(HUGE_PAGES_FOLDER).status();
            let _ = fs::remove_dir(HUGE_PAGES_FOLDER);
        }
        let _ = fs::write(HUGE_PAGES, &self.before);
    }
}
