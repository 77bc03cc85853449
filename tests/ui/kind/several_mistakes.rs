use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[plasma(verison = 2)]
struct Tick {
    symbol: String,
    size: usize,
    #[plasma(skip)]
    seen: Option<u64>,
}

fn is_an_object<T: PlasmaObject>() {}

const _: fn() = is_an_object::<Tick>;

fn main() {}
