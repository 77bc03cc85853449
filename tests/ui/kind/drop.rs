use plasma_typed::PlasmaObject;

#[derive(PlasmaObject)]
#[repr(C)]
struct Message {
    number: u64,
    text: str,
}

impl Drop for Message {
    fn drop(&mut self) {}
}

fn main() {}
