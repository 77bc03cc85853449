use plasma_typed::PlasmaObject;

#[derive(PlasmaObject)]
#[repr(C)]
struct Series {
    kind: u8,
    values: [u64],
}

fn main() {}
