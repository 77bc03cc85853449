//! Measures many processes that read in one store at the same time: how many gets a second they do
//! together, with few objects in the store and with many.
//!
//! ```text
//! readers [--objects N,N,...] [--processes N,N,...] [--seconds S]
//! ```

use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use examples::{OpenStore, StoreArgs, finish};
use plasma_core::{ObjectId, PlasmaClient};

/// How many objects travel in one batch while a store is filled.
const BATCH: usize = 1000;

/// Bytes of each object.
const SIZE: usize = 64;

/// Gets between two looks at the clock.
const TURN: usize = 1000;

#[derive(Parser)]
#[command(about = "Measures processes that read in one Plasma store at the same time")]
struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Objects in the store, one number after the other
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 100_000, 1_000_000])]
    objects: Vec<usize>,
    /// Reading processes, one number after the other
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 8])]
    processes: Vec<usize>,
    /// How long each measurement takes
    #[arg(long, default_value_t = 1.)]
    seconds: f64,
    /// Be one of the processes, which reads among so many objects
    #[arg(long, hide = true)]
    read: Option<usize>,
}

fn main() -> ExitCode {
    finish(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let time = Duration::try_from_secs_f64(args.seconds)?;
    let most = args.objects.iter().max().copied().unwrap_or(0);
    let store = args.store.open((most * SIZE * 2 + (64 << 20)) as u64)?;
    if let Some(objects) = args.read {
        return read(&store, objects, time);
    }
    println!(
        "{:>10} {:>10} {:>16} {:>16}",
        "objects", "processes", "gets a second", "ns a get, each"
    );
    let writer = PlasmaClient::builder().connect(store.socket())?;
    let mut filled = 0;
    for objects in args.objects {
        fill(&writer, filled, objects)?;
        filled = filled.max(objects);
        for processes in &args.processes {
            let (gets, ns) = measure(&store, objects, *processes, args.seconds)?;
            println!("{objects:>10} {processes:>10} {gets:>16.0} {ns:>16.0}");
        }
    }
    Ok(())
}

/// The object of this number.
fn id(number: usize) -> ObjectId {
    let mut bytes = [0; ObjectId::LEN];
    // Consecutive numbers have nothing in common after this.
    let mixed = (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for (place, byte) in bytes.iter_mut().zip(mixed.to_le_bytes().iter().cycle()) {
        *place = *byte;
    }
    ObjectId::new(bytes)
}

fn fill(writer: &PlasmaClient, from: usize, to: usize) -> Result<(), Box<dyn Error>> {
    let content = [7; SIZE];
    let mut next = from;
    while next < to {
        let end = to.min(next + BATCH);
        let batch: Vec<_> = (next..end)
            .map(|n| (id(n), &content[..], &[][..]))
            .collect();
        writer.create_and_seal_batch(&batch)?;
        next = end;
    }
    Ok(())
}

/// Has processes read at the same time; gets a second of all together, and what one takes in each.
fn measure(
    store: &OpenStore,
    objects: usize,
    processes: usize,
    seconds: f64,
) -> Result<(f64, f64), Box<dyn Error>> {
    let mut readers: Vec<Child> = Vec::new();
    for _ in 0..processes {
        let mut command = store.second_process()?;
        command
            .args(["--read", &objects.to_string()])
            .args(["--seconds", &seconds.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        readers.push(command.spawn()?);
    }
    // All are ready before the first begins.
    let mut outputs = Vec::new();
    for reader in &mut readers {
        let mut output = BufReader::new(reader.stdout.take().ok_or("it has no output")?);
        output.read_line(&mut String::new())?;
        outputs.push(output);
    }
    for reader in &mut readers {
        reader
            .stdin
            .take()
            .ok_or("it has no input")?
            .write_all(b"go\n")?;
    }
    let mut sum = 0.;
    for mut output in outputs {
        let mut text = String::new();
        output.read_to_string(&mut text)?;
        sum += text.trim().parse::<f64>()?;
    }
    for mut reader in readers {
        if !reader.wait()?.success() {
            return Err("a reader failed".into());
        }
    }
    Ok((sum, processes as f64 * 1e9 / sum))
}

/// Reads for a while, and says how many gets a second that were.
fn read(store: &OpenStore, objects: usize, time: Duration) -> Result<(), Box<dyn Error>> {
    let client = PlasmaClient::builder().connect(store.socket())?;
    println!("ready");
    std::io::stdin().read_line(&mut String::new())?;
    let start = Instant::now();
    let mut number = std::process::id() as usize;
    let mut gets = 0_usize;
    while start.elapsed() < time {
        for _ in 0..TURN {
            // In no order that the processor could foresee.
            number = number
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let object = client.get(id((number >> 20) % objects), 0)?;
            drop(black_box(object.ok_or("an object is missing")?));
        }
        gets += TURN;
    }
    println!("{}", gets as f64 / start.elapsed().as_secs_f64());
    Ok(())
}
