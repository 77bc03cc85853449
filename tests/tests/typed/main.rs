//! The typed layer, with real stores: what users rely on, and what nobody can make it do.

#![forbid(unsafe_code)]

mod costs;
mod errors;
mod forged;
mod formats;
mod handles;
mod survival;

use plasma_store::{Store, StoreHandle};
use plasma_typed::{PlasmaObject, TypedClient};

/// A store in this process, with room for so many bytes, and a client of it.
fn start(capacity: u64) -> (StoreHandle, TypedClient) {
    let store = Store::builder().capacity(capacity).spawn();
    let store = store.expect("a store starts");
    let client = connect(&store);
    (store, client)
}

fn connect(store: &StoreHandle) -> TypedClient {
    TypedClient::connect(store.socket()).expect("the store accepts a client")
}

/// A few of everything that is checked on get, and of what is not.
#[derive(PlasmaObject, Clone, Copy, Debug, PartialEq)]
#[plasma(name = "market.Tick")]
#[repr(C)]
struct Tick {
    ts_ns: u64,
    price: f64,
    size: u32,
    side: Side,
    last: bool,
    _pad: [u8; 2],
}

#[derive(PlasmaObject, Clone, Copy, Debug, PartialEq)]
#[repr(u8)]
enum Side {
    Buy,
    Sell,
}

/// Fixed header, variable tail; a length that is no multiple of four needs rounding.
#[derive(PlasmaObject, Debug, PartialEq)]
#[repr(C)]
struct Image {
    width: u32,
    height: u32,
    pixels: [u8],
}

const TICK: Tick = Tick {
    ts_ns: 1_700_000_000_000_000_000,
    price: 101.5,
    size: 300,
    side: Side::Sell,
    last: true,
    _pad: [0; 2],
};
