use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(u8)]
enum Event {
    Quiet,
    Trade(f64),
    Quote { bid: f64, ask: f64 },
}

fn main() {}
