use std::fs::File;

use plasma_typed::PlasmaObject;

#[derive(PlasmaObject)]
#[repr(C)]
struct Logs {
    count: u64,
    logs: [File],
}

fn main() {}
