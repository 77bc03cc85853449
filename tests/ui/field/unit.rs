use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick {
    nothing: (),
}

fn main() {}
