use plasma_typed::PlasmaObject;

#[derive(PlasmaObject)]
#[repr(C)]
struct Tick {
    value: dyn Send,
}

fn main() {}
