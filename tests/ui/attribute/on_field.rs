use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick {
    #[plasma(name = "last")]
    price: f64,
}

fn main() {}
