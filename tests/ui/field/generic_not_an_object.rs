use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Pair<T> {
    both: [T; 2],
}

fn create<T: PlasmaObject>() {}

const _: fn() = create::<Pair<String>>;

fn main() {}
