//! One gigabyte from one client to another: the first program that the Rust bindings of Arrow's
//! Plasma showed, on this client.
//!
//! ```text
//! one_gigabyte [SOCKET]
//! ```
//!
//! One client creates an object of 1 GiB and writes it as the numbers 0, 1, 2, … of 128 bits; the
//! other gets it and sums them. Without a socket it starts a store of 2 GB.

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use examples::finish;
use plasma_core::{ObjectId, PlasmaClient};
use plasma_store::Store;

const CAPACITY: u64 = 2_000_000_000;

#[derive(Parser)]
#[command(about = "Writes 1 GiB with one client and sums it with another")]
struct Args {
    /// The socket of a running store with 1 GiB of room, such as /tmp/plasma
    socket: Option<String>,
}

fn main() -> ExitCode {
    finish(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let store;
    let socket = match Args::parse().socket {
        Some(socket) => socket,
        None => {
            store = Store::builder().capacity(CAPACITY).spawn()?;
            store.socket().display().to_string()
        }
    };

    let pc = PlasmaClient::new(&socket, 0)?;
    let oid = ObjectId::rand();
    let data_size = 1 << 30;
    let meta = [1, 2, 3, 4];
    let mut ob = pc.create(oid, data_size, &meta)?;
    // Objects are aligned to 64 bytes, so their memory is numbers of any size.
    let numbers: &mut [u128] = bytemuck::cast_slice_mut(ob.data_mut());
    for (number, value) in numbers.iter_mut().zip(0..) {
        *number = value;
    }
    ob.seal()?;

    let pc2 = PlasmaClient::new(&socket, 0)?;
    let ob2 = pc2.get(oid, 5)?.ok_or("the object is not there")?;
    let numbers: &[u128] = bytemuck::cast_slice(ob2.data());
    let sum: u128 = numbers.iter().sum();
    println!("Result: {sum}");

    // It goes once nobody holds it, which is at the end of this program.
    pc.delete(&oid)?;
    Ok(())
}
