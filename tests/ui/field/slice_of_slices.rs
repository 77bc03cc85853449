use plasma_typed::PlasmaObject;

#[derive(PlasmaObject)]
#[repr(C)]
struct Table {
    rows: u64,
    cells: [[f64]],
}

fn main() {}
