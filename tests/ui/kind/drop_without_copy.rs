use plasma_typed::PlasmaObject;

#[derive(PlasmaObject)]
#[repr(C)]
struct Tick {
    price: f64,
}

impl Drop for Tick {
    fn drop(&mut self) {}
}

fn main() {}
