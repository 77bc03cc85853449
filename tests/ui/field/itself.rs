use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Node {
    value: u64,
    children: [Node; 2],
}

fn main() {}
