//! A stream of what happens in a store: each object that is sealed, deleted or evicted.
//!
//! ```text
//! notifications [--store SOCKET]
//! ```
//!
//! One thread watches while another creates, deletes and evicts objects. With `--store` it changes
//! nothing: it watches a running store until that ends.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use clap::Parser;
use examples::finish;
use plasma_core::{Notification, Notifications, ObjectId, PlasmaClient, PlasmaError};
use plasma_store::Store;

#[derive(Parser)]
#[command(about = "Shows what is sealed, deleted and evicted in a store, as it happens")]
struct Args {
    /// Watch this running store until it ends (without it, watch one that this program starts)
    #[arg(long, value_name = "SOCKET")]
    store: Option<PathBuf>,
}

/// The objects of this program: names that their ids are made from, and what becomes of them.
const STORY: [(&str, &str); 4] = [
    ("early", "sealed before anybody watches, later evicted"),
    ("brief", "sealed, then deleted"),
    ("large", "sealed, later evicted to make room"),
    ("larger", "created, but dropped before it is sealed"),
];

fn main() -> ExitCode {
    finish(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    if let Some(socket) = Args::parse().store {
        let client = PlasmaClient::builder().retries(0).connect(&socket)?;
        println!("watching the store at {} until it ends", socket.display());
        return watch(client.subscribe()?);
    }

    let store = Store::builder().capacity(1 << 20).spawn()?;
    let client = PlasmaClient::builder().connect(store.socket())?;
    let ids = STORY.map(|(name, _)| ObjectId::from_name(name));
    for (id, (_, story)) in ids.iter().zip(STORY) {
        println!("{id}  {story}");
    }
    println!();
    client.create_and_seal(ids[0], &[0; 100], b"")?;

    // It begins with what is sealed already; from here on nothing is missed.
    let notifications = client.subscribe()?;
    let watcher = thread::spawn(|| watch(notifications).map_err(|error| error.to_string()));
    change_things(&client, &ids)?;
    store.shutdown()?;
    match watcher.join() {
        Ok(outcome) => Ok(outcome?),
        Err(_) => Err("the watching thread panicked".into()),
    }
}

fn change_things(client: &PlasmaClient, names: &[ObjectId; 4]) -> Result<(), PlasmaError> {
    let [_, brief, large, larger] = *names;
    client.create_and_seal(brief, &[1; 200], b"")?;
    client.delete(&brief)?;

    // An object is told of when it is sealed, not when it is created.
    let mut object = client.create(large, 600 << 10, b"")?;
    object.data_mut().fill(2);
    object.seal()?;
    drop(object);

    // The store holds 1 MiB. To make room it evicts what was used least recently.
    let object = client.create(larger, 900 << 10, b"")?;
    // Dropped before it is sealed, this one never was: nobody is told of it.
    drop(object);
    Ok(())
}

fn watch(notifications: Notifications) -> Result<(), Box<dyn Error>> {
    for notification in notifications {
        match notification {
            Ok(Notification::Sealed(object)) => {
                println!("sealed   {}  {:>7} bytes", object.id, object.data_size);
            }
            Ok(Notification::Deleted(id)) => println!("gone     {id}"),
            Err(PlasmaError::Disconnected) => println!("the store has ended"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
