use std::marker::PhantomData;

use plasma_typed::{PlasmaObject, Sealed};

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Local {
    count: u64,
    not_for_other_threads: PhantomData<*const u8>,
}

fn count_elsewhere(local: Sealed<Local>) {
    std::thread::spawn(move || local.count);
}

fn main() {}
