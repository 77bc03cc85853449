use std::path::PathBuf;

use plasma_typed::PlasmaObject;

#[derive(PlasmaObject)]
#[repr(C)]
struct Tick {
    file: PathBuf,
}

fn main() {}
