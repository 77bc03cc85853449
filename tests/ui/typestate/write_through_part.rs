use plasma_typed::{SealedRef};

fn raise(mut prices: SealedRef<[f64]>) {
    prices[0] = 101.5;
}

fn main() {}
