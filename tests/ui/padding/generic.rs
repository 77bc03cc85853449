use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Pair<A, B> {
    a: A,
    b: B,
}

const SIZE: usize = Pair::<u8, u32>::SCHEMA.size();

const OTHER: usize = Pair::<u32, u32>::SCHEMA.size();

fn main() {}
