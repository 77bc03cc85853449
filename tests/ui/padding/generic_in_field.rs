use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Pair<A, B> {
    a: A,
    b: B,
}

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Book {
    best: Pair<u8, u32>,
}

fn main() {}
