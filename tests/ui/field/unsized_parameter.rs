use plasma_typed::PlasmaObject;

#[derive(PlasmaObject)]
#[repr(C)]
struct Tailed<T: ?Sized> {
    len: u32,
    tail: T,
}

fn main() {}
