use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick {
    seen: std::time::Instant,
}

fn main() {}
