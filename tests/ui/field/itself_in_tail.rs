use plasma_typed::PlasmaObject;

#[derive(PlasmaObject)]
#[repr(C)]
struct Tree {
    value: u64,
    children: [Self],
}

fn main() {}
