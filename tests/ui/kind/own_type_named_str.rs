use plasma_typed::PlasmaObject;

#[allow(non_camel_case_types)]
#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct str {
    bytes: [u8; 8],
}

#[derive(PlasmaObject)]
#[repr(C)]
struct Named {
    price: f64,
    name: str,
}

fn main() {}
