//! The first look at Plasma: one process writes a typed object of 64 MiB into shared memory,
//! another reads it where it lies, and whoever mistakes it for something else is told.
//!
//! ```text
//! quickstart [--store SOCKET]
//! ```
//!
//! It starts a store inside this program, so nothing else has to run. The second process is this
//! program started again, with the store's socket and the object's key.

use std::error::Error;
use std::fs;
use std::num::ParseIntError;
use std::process::{self, ExitCode};
use std::time::{Duration, Instant};

use clap::Parser;
use examples::{StoreArgs, WRITE_AFTER_SEAL, finish};
use plasma_typed::{GetError, Key, ObjectId, PlasmaObject, Sealed, TypedClient};

/// What the two processes share: a few fields, and a tail of any length.
#[derive(PlasmaObject)]
#[repr(C)]
struct Recording {
    rate_hz: u32,
    channel: u32,
    samples: [u64],
}

const SAMPLES: usize = (64 << 20) / size_of::<u64>();

#[derive(Parser)]
#[command(about = "Writes 64 MiB in one process and reads them in another, without a copy")]
struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Read this object, as the process that another quickstart started
    #[arg(long, hide = true, requires = "lies_at")]
    read: Option<Key<Recording>>,
    /// Where it lies in the other process
    #[arg(long, hide = true)]
    lies_at: Option<String>,
}

fn main() -> ExitCode {
    finish(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let store = args.store.open(128 << 20)?;
    let client = store.connect()?;
    if let (Some(key), Some(place)) = (args.read, args.lies_at) {
        return read(&client, key, &place);
    }

    let schema = Recording::SCHEMA.to_string();
    heading("Type", schema.replace('\n', "\n  "));
    let recording = write(&client)?;
    let mut reader = store.second_process()?;
    reader.arg("--read").arg(recording.key().to_string());
    reader.arg("--lies-at").arg(place(&recording)?);
    examples::run(&mut reader)?;

    // A library's documentation is tested, a program's is not: this is tested where it stands.
    heading("Refused", "by the compiler:");
    for line in WRITE_AFTER_SEAL {
        println!("              {line}");
    }
    println!("          by a get, as a `Recording` whose rate is a float:");
    println!(
        "              the object {}",
        get_as_another_type(&client, recording.id())?
    );
    client.delete(recording.key())?;
    Ok(())
}

fn write(client: &TypedClient) -> Result<Sealed<Recording>, Box<dyn Error>> {
    heading("Writer", format_args!("process {}", process::id()));

    let start = Instant::now();
    let mut recording = client.create_with_len::<Recording>(ObjectId::rand(), SAMPLES)?;
    report_rate("created it, zeroed, in fresh memory", start.elapsed());

    let start = Instant::now();
    recording.rate_hz = 48_000;
    recording.channel = 1;
    for (sample, value) in recording.samples.iter_mut().zip(0..) {
        *sample = value;
    }
    report_rate("wrote 8 million samples in place", start.elapsed());

    let start = Instant::now();
    let recording = recording.seal()?;
    report("sealed it: from now on it cannot change", start.elapsed());
    println!("          it lies at {}", place(&recording)?);
    Ok(recording)
}

fn read(client: &TypedClient, key: Key<Recording>, there: &str) -> Result<(), Box<dyn Error>> {
    heading(
        "Reader",
        format_args!("process {}, this program started again", process::id()),
    );

    let start = Instant::now();
    let recording = client.wait(key, Duration::from_secs(5))?;
    report("got it for the first time", start.elapsed());
    let typical = typical_get(client, key)?;
    report("got it again (median of 1000 times)", typical);

    // The kernel shows the memory to this process page by page, as it is first read.
    for how in ["summed the samples where they lie", "summed them again"] {
        let start = Instant::now();
        let sum: u64 = recording.samples.iter().sum();
        report_rate(how, start.elapsed());
        let last = SAMPLES as u64 - 1;
        if (recording.rate_hz, sum) != (48_000, last * (last + 1) / 2) {
            return Err(format!("{sum} is not the sum of 0, 1, …, {last}").into());
        }
    }

    let here = place(&recording)?;
    if here != there {
        return Err(format!("it lies at {here}, and there at {there}").into());
    }
    println!("          it lies at {here}");
    println!("          which is the same memory: nothing was copied");
    Ok(())
}

fn typical_get(client: &TypedClient, key: Key<Recording>) -> Result<Duration, Box<dyn Error>> {
    let mut times = Vec::new();
    for _ in 0..1000 {
        let start = Instant::now();
        let recording = client.get(key)?.ok_or("the object is gone")?;
        times.push(start.elapsed());
        drop(recording);
    }
    times.sort();
    Ok(times[times.len() / 2])
}

/// What a program is told that takes the object for something slightly different.
fn get_as_another_type(client: &TypedClient, id: ObjectId) -> Result<String, Box<dyn Error>> {
    #[derive(PlasmaObject)]
    #[repr(C)]
    struct Recording {
        rate_hz: f32,
        channel: u32,
        samples: [u64],
    }

    match client.get::<Recording>(id) {
        Err(GetError::SchemaMismatch { mismatch, .. }) => Ok(mismatch.to_string()),
        Err(error) => Err(error.into()),
        Ok(_) => Err("an object was taken for one of another type".into()),
    }
}

fn heading(what: &str, text: impl std::fmt::Display) {
    println!("{what:<10}{text}");
}

/// What was done, and how long it took.
fn report(what: &str, time: Duration) {
    println!("          {what:<42}{time:>10.1?}");
}

/// The same for what went over all of the object: how many bytes a second that is, too.
fn report_rate(what: &str, time: Duration) {
    let rate = (SAMPLES * size_of::<u64>()) as f64 / time.as_secs_f64() / 1e9;
    println!("          {what:<42}{time:>10.1?}{rate:>8.1} GB/s");
}

/// Where an object lies, as the kernel tells it: the evidence that nothing is copied.
fn place(recording: &Recording) -> Result<String, Box<dyn Error>> {
    let address = std::ptr::from_ref(recording).addr();
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
