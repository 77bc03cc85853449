use plasma_typed::PlasmaObject;

#[derive(PlasmaObject)]
#[repr(C)]
struct Series {
    kind: u8,
    start: u64,
    values: [u64],
}

fn main() {}
