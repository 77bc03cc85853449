use std::rc::Rc;

use plasma_typed::PlasmaObject;

#[derive(PlasmaObject)]
#[repr(C)]
struct Tick {
    price: Rc<f64>,
}

fn main() {}
