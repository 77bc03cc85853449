use plasma_typed::PlasmaObject;

type Samples = [f64];

#[derive(PlasmaObject)]
#[repr(C)]
struct Series {
    start_ns: u64,
    samples: Samples,
}

fn main() {}
