//! The first look at Plasma: one process writes an object of 64 MiB into shared memory, another
//! reads it where it lies.
//!
//! ```text
//! cargo run --release -p examples --bin quickstart
//! ```
//!
//! It starts a store inside this program, so nothing else has to run. The second process is this
//! program started again, with the store's socket and the object's id.

use std::error::Error;
use std::fs;
use std::num::ParseIntError;
use std::path::PathBuf;
use std::process::{self, Command, ExitCode};
use std::time::{Duration, Instant};

use clap::Parser;
use examples::finish;
use plasma_core::{ObjectBuffer, ObjectId, PlasmaClient};
use plasma_store::Store;

const OBJECT_SIZE: usize = 64 << 20;
const NUMBERS: u64 = (OBJECT_SIZE / size_of::<u64>()) as u64;

#[derive(Parser)]
#[command(about = "Writes 64 MiB in one process and reads them in another, without a copy")]
struct Args {
    /// Read this object, as the process that another quickstart started
    #[arg(long, hide = true, requires = "socket")]
    read: Option<ObjectId>,
    #[arg(long, hide = true)]
    socket: Option<PathBuf>,
}

fn main() -> ExitCode {
    finish(match Args::parse() {
        Args {
            read: Some(id),
            socket: Some(socket),
        } => read(id, socket),
        _ => write(),
    })
}

fn write() -> Result<(), Box<dyn Error>> {
    // The store runs on a thread of this process, and ends with `store`.
    let store = Store::builder().capacity(2 * OBJECT_SIZE as u64).spawn()?;
    println!("Store   in this process, with room for 128 MiB in shared memory");

    println!("\nWriter  process {}", process::id());
    let client = PlasmaClient::builder().connect(store.socket())?;
    let id = ObjectId::from_name("quickstart/numbers");
    let start = Instant::now();
    let mut object = client.create(id, OBJECT_SIZE, b"64-bit integers")?;
    report("created an object of 64 MiB", start.elapsed());

    // The kernel has to find and clear fresh memory, so the first time takes longer.
    for how in [
        "wrote 8 million numbers into fresh memory",
        "wrote them again, into warm memory",
    ] {
        let start = Instant::now();
        let numbers: &mut [u64] = bytemuck::cast_slice_mut(object.data_mut());
        for (number, value) in numbers.iter_mut().zip(0..) {
            *number = value;
        }
        report_rate(how, start.elapsed());
    }

    let start = Instant::now();
    object.seal()?;
    report("sealed it: from now on it cannot change", start.elapsed());
    println!("        it lies at {}", place(&object)?);

    let reader = Command::new(std::env::current_exe()?)
        .args(["--read", &id.to_hex(), "--socket"])
        .arg(store.socket())
        .status()?;
    if !reader.success() {
        return Err(format!("the reader failed: {reader}").into());
    }
    println!("\nBoth processes used the same memory: nothing was copied between them.");
    Ok(())
}

fn read(id: ObjectId, socket: PathBuf) -> Result<(), Box<dyn Error>> {
    println!(
        "\nReader  process {}, this program started again",
        process::id()
    );
    let client = PlasmaClient::builder().connect(socket)?;
    let start = Instant::now();
    let object = client.get(id, 5_000)?.ok_or("the object is not there")?;
    report("got the object for the first time", start.elapsed());
    let typical = typical_get(&client, id)?;
    report("got it again (median of 1000 times)", typical);

    let start = Instant::now();
    let numbers: &[u64] = bytemuck::cast_slice(object.data());
    let sum: u64 = numbers.iter().sum();
    report_rate("summed the numbers where they lie", start.elapsed());
    if sum != NUMBERS * (NUMBERS - 1) / 2 {
        return Err(format!("{sum} is not the sum of 0, 1, …, {}", NUMBERS - 1).into());
    }
    println!("        the sum is {sum}, as it should be");
    println!("        it lies at {}", place(&object)?);
    Ok(())
}

fn typical_get(client: &PlasmaClient, id: ObjectId) -> Result<Duration, Box<dyn Error>> {
    let mut times = Vec::new();
    for _ in 0..1000 {
        let start = Instant::now();
        let object = client.get(id, 0)?.ok_or("the object is gone")?;
        times.push(start.elapsed());
        drop(object);
    }
    times.sort();
    Ok(times[times.len() / 2])
}

/// What was done, and how long it took.
fn report(what: &str, time: Duration) {
    println!("        {what:<44}{time:>10.1?}");
}

/// The same for what went over all of the object: how many bytes a second that is, too.
fn report_rate(what: &str, time: Duration) {
    let rate = OBJECT_SIZE as f64 / time.as_secs_f64() / 1e9;
    println!("        {what:<44}{time:>10.1?}{rate:>8.1} GB/s");
}

/// Where an object lies, as the kernel tells it: the evidence that nothing is copied.
fn place(object: &ObjectBuffer) -> Result<String, Box<dyn Error>> {
    let address = object.data().as_ptr() as usize;
    for line in fs::read_to_string("/proc/self/maps")?.lines() {
        // START-END PERMISSIONS OFFSET DEVICE INODE PATH
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [range, permissions, offset, _, inode, path, ..] = fields[..] else {
            continue;
        };
        let (start, end) = range.split_once('-').ok_or("a mapping without an end")?;
        let (start, end) = (hex(start)?, hex(end)?);
        if (start..end).contains(&address) {
            let byte = hex(offset)? + address - start;
            let access = match permissions.contains('w') {
                true => "writable",
                false => "read-only",
            };
            return Ok(format!(
                "byte {byte} of {path}, inode {inode}, mapped {access}"
            ));
        }
    }
    Err("the object is not mapped".into())
}

fn hex(digits: &str) -> Result<usize, ParseIntError> {
    usize::from_str_radix(digits, 16)
}
