use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Tick {
    symbol: self::String,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct String([u8; 8]);

fn main() {}
