use plasma_typed::PlasmaObject;

#[derive(PlasmaObject)]
#[repr(C)]
struct Tick {
    symbol: String,
}

fn main() {}
