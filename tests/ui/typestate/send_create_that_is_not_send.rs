use std::marker::PhantomData;

use plasma_typed::{Create, PlasmaObject};

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Local {
    count: u64,
    not_for_other_threads: PhantomData<*const u8>,
}

fn write_elsewhere(mut local: Create<Local>) {
    std::thread::spawn(move || local.count = 1);
}

fn main() {}
