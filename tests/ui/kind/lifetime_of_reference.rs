use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick<'a> {
    symbol: &'a str,
}

fn main() {}
