use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
union Number {
    whole: u64,
    real: f64,
}

fn main() {}
