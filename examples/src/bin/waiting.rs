//! Waiting for an object that nobody has made yet: two processes that agree on a name need no
//! other signal between them.
//!
//! ```text
//! waiting [--store SOCKET]
//! ```
//!
//! The consumer, this program started again, asks for the object before the producer makes it.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use examples::finish;
use plasma_core::{ObjectId, PlasmaClient};
use plasma_store::Store;

#[derive(Parser)]
#[command(about = "A consumer waits for an object that the producer has not made yet")]
struct Args {
    /// The socket of a running store (without it, this program starts one)
    #[arg(long, value_name = "SOCKET")]
    store: Option<PathBuf>,
    /// Be the consumer of this object, as the process that another `waiting` started
    #[arg(long, hide = true, requires = "store")]
    consume: Option<ObjectId>,
}

fn main() -> ExitCode {
    finish(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let store;
    let socket = match args.store {
        Some(socket) => socket,
        None => {
            store = Store::builder().capacity(1 << 20).spawn()?;
            store.socket().to_owned()
        }
    };
    let client = PlasmaClient::builder().retries(0).connect(&socket)?;
    match args.consume {
        Some(id) => consume(&client, id),
        None => produce(&client, socket),
    }
}

fn produce(client: &PlasmaClient, socket: PathBuf) -> Result<(), Box<dyn Error>> {
    let id = ObjectId::rand();
    // It does not wait for ever, so it ends by itself whatever becomes of this process.
    let mut consumer = Command::new(std::env::current_exe()?)
        .arg("--store")
        .arg(socket)
        .args(["--consume", &id.to_hex()])
        .stdout(Stdio::piped())
        .spawn()?;
    let output = consumer.stdout.take().ok_or("the consumer has no output")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("consumer: {line}");
        if line == WAITING {
            println!("producer: working on it, for 200 ms");
            thread::sleep(Duration::from_millis(200));
            client.create_and_seal(id, &now()?.as_nanos().to_le_bytes(), b"")?;
            println!("producer: sealed it");
        }
    }
    let ended = consumer.wait()?;
    client.delete(&id)?;
    match ended.success() {
        true => Ok(()),
        false => Err(format!("the consumer failed: {ended}").into()),
    }
}

/// What the consumer says when it goes to wait.
const WAITING: &str = "waiting for up to 10 s";

fn consume(client: &PlasmaClient, id: ObjectId) -> Result<(), Box<dyn Error>> {
    // 0 does not wait at all.
    let found = client.get(id, 0)?;
    println!("there already? {}", found.is_some());

    // With a timeout in milliseconds, the answer is `None` when that has passed.
    let start = Instant::now();
    let found = client.get(id, 100)?;
    let waited = start.elapsed().as_millis();
    println!("there after a wait of {waited} ms? {}", found.is_some());

    // -1 would wait for ever. While one thread waits, others may use the same client.
    println!("{WAITING}");
    let start = Instant::now();
    let object = client.get(id, 10_000)?.ok_or("it never came")?;
    let waited = start.elapsed().as_millis();
    let sealed_at =
        Duration::from_nanos(u128::from_le_bytes(object.data().try_into()?).try_into()?);
    let late = now()?.saturating_sub(sealed_at).as_micros();
    println!("it came after {waited} ms, {late} µs after the producer began to put it there");
    Ok(())
}

fn now() -> Result<Duration, Box<dyn Error>> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?)
}
