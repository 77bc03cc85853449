use plasma_typed::PlasmaObject;

#[derive(PlasmaObject)]
#[repr(C)]
struct Names {
    count: u64,
    names: [str],
}

fn main() {}
