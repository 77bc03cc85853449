use plasma_typed::PlasmaObject;

#[derive(PlasmaObject, Clone, Copy)]
enum Never {}

fn main() {}
