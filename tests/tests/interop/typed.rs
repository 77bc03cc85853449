//! Typed objects that Rust wrote, read by Python through the schema that is stored with them: the
//! programs in `examples/python`, with this project's store and with Arrow's.

use std::path::Path;
use std::process::Stdio;

use tests::{StoreProcess, example_program};

use crate::{CAPACITY, StoreKind, arrow};

#[test]
#[ignore = "needs Arrow's programs: see tests/README.md"]
fn python_reads_typed_objects_from_our_store() {
    python_reads_typed_objects(StoreKind::Ours);
}

#[test]
#[ignore = "needs Arrow's programs: see tests/README.md"]
fn python_reads_typed_objects_from_arrows_store() {
    python_reads_typed_objects(StoreKind::Arrows);
}

fn python_reads_typed_objects(kind: StoreKind) {
    let store = StoreProcess::start_program(&kind.program(), CAPACITY, &[]);
    for (program, expected) in [
        (
            "check_typed.py",
            "Python read what Rust wrote: 7 typed objects",
        ),
        (
            "read_typed.py",
            "'alarms': ['Off', 'Fine', 'Off', 'Broken']",
        ),
    ] {
        let said = typed_writer(&store, program);
        assert!(said.contains(expected), "{program}: {said}");
    }
}

/// What is said when `typed_writer` writes its objects and has one of the Python programs read
/// them.
fn typed_writer(store: &StoreProcess, program: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/python");
    let python = arrow::python();
    let mut writer = example_program("typed_writer");
    writer.arg("--store").arg(store.socket()).arg("--");
    writer.arg(python.get_program()).arg(folder.join(program));
    for (variable, value) in python.get_envs() {
        writer.env(variable, value.unwrap_or_default());
    }
    let output = writer.stdin(Stdio::null()).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {said}\n{errors}");
    said
}
