//! Many small objects: one request for all of them instead of one for each.
//!
//! ```text
//! batches [--store SOCKET]
//! ```
//!
//! Creates, gets and deletes 1000 objects, first one at a time, then in batches. A batch is created
//! whole or not at all, which this program shows too.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use examples::finish;
use plasma_core::{ObjectId, PlasmaClient, PlasmaError};
use plasma_store::Store;

const COUNT: usize = 1000;

#[derive(Parser)]
#[command(about = "Creates, gets and deletes 1000 small objects, one by one and in batches")]
struct Args {
    /// The socket of a running store (without it, this program starts one)
    #[arg(long, value_name = "SOCKET")]
    store: Option<PathBuf>,
}

fn main() -> ExitCode {
    finish(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let store;
    let socket = match Args::parse().store {
        Some(socket) => socket,
        None => {
            store = Store::builder().capacity(16 << 20).spawn()?;
            store.socket().to_owned()
        }
    };
    let client = PlasmaClient::builder().retries(0).connect(socket)?;

    println!("{COUNT} objects of 64 bytes");
    one_by_one(&client)?;
    in_batches(&client)?;
    all_or_nothing(&client)
}

fn one_by_one(client: &PlasmaClient) -> Result<(), Box<dyn Error>> {
    let ids: Vec<ObjectId> = (0..COUNT).map(|_| ObjectId::rand()).collect();
    let start = Instant::now();
    for id in &ids {
        client.create_and_seal(*id, &[7; 64], b"")?;
    }
    report("one by one", "created", start);

    let start = Instant::now();
    for id in &ids {
        let object = client.get(*id, 0)?.ok_or("an object is missing")?;
        // It is released here; while it is held, it stays.
        drop(object);
    }
    report("one by one", "got", start);

    let start = Instant::now();
    for id in &ids {
        client.delete(id)?;
    }
    report("one by one", "deleted", start);
    Ok(())
}

fn in_batches(client: &PlasmaClient) -> Result<(), Box<dyn Error>> {
    let ids: Vec<ObjectId> = (0..COUNT).map(|_| ObjectId::rand()).collect();
    // An id, its data and its metadata; data may differ in size.
    let objects: Vec<(ObjectId, &[u8], &[u8])> =
        ids.iter().map(|id| (*id, &[7; 64][..], &b""[..])).collect();
    let start = Instant::now();
    client.create_and_seal_batch(&objects)?;
    report("in a batch", "created", start);

    let start = Instant::now();
    let found = client.get_many(&ids, 0)?;
    report("in a batch", "got", start);
    // One entry for each id, in their order; `None` where there is no such object.
    if found.iter().any(Option::is_none) {
        return Err("an object is missing".into());
    }
    // What is held is not deleted before it is let go.
    drop(found);

    let start = Instant::now();
    client.delete_many(&ids)?;
    report("in a batch", "deleted", start);
    Ok(())
}

fn all_or_nothing(client: &PlasmaClient) -> Result<(), Box<dyn Error>> {
    let (taken, free) = (ObjectId::rand(), ObjectId::rand());
    client.create_and_seal(taken, b"first come", b"")?;
    match client.create_and_seal_batch(&[(free, b"new", b""), (taken, b"late", b"")]) {
        Err(PlasmaError::AlreadyExists) => {}
        other => return Err(format!("expected that the id is taken, not {other:?}").into()),
    }
    let created = client.contains(&free)?;
    println!("a batch with one id that is taken: refused; was the other object created? {created}");
    client.delete(&taken)?;
    Ok(())
}

fn report(how: &str, what: &str, start: Instant) {
    let micros = start.elapsed().as_secs_f64() * 1e6;
    println!(
        "  {how}  {what:<8}{:>8.1} ms, {:>6.2} µs each",
        micros / 1e3,
        micros / COUNT as f64
    );
}
