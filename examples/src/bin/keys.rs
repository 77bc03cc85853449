//! Keys: the names of objects, which remember their types and go through any channel.
//!
//! ```text
//! keys [--store SOCKET]
//! ```
//!
//! A key is 20 bytes, whatever the object's size. Here they are sent to a worker, which answers
//! with keys of its own: first to a thread, through a channel of the standard library, then to
//! another process (this program started again), as text through a pipe.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;

use clap::Parser;
use examples::{OpenStore, StoreArgs, finish};
use plasma_typed::{Key, PlasmaObject, TypedClient};

#[derive(PlasmaObject, Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct Tick {
    ts_ns: u64,
    price: f64,
}

/// What the worker makes of some ticks.
#[derive(PlasmaObject, Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct Range {
    low: f64,
    high: f64,
}

const BATCHES: usize = 4;
const TICKS: usize = 10_000;

#[derive(Parser)]
#[command(about = "Sends the keys of typed objects to a thread and to a process")]
struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Read keys from standard input, as the process that another `keys` started
    #[arg(long, hide = true)]
    work: bool,
}

fn main() -> ExitCode {
    finish(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let store = args.store.open(4 << 20)?;
    let client = store.connect()?;
    if args.work {
        return be_process(&client);
    }
    println!("to a thread, through a channel");
    with_thread(&client)?;
    println!("to a process, through a pipe");
    with_process(&client, &store)
}

fn with_thread(client: &TypedClient) -> Result<(), Box<dyn Error>> {
    // The channels' types say what the objects are.
    let (jobs, to_do) = mpsc::channel::<Key<[Tick]>>();
    let (done, results) = mpsc::channel::<Key<Range>>();

    // Clones of a client share its connection.
    let workers_client = client.clone();
    let worker = thread::spawn(move || {
        for job in to_do {
            let result = work(&workers_client, job).map_err(|error| error.to_string())?;
            if done.send(result).is_err() {
                break;
            }
        }
        Ok::<_, String>(())
    });

    for number in 0..BATCHES {
        jobs.send(produce(client, number)?)?;
    }
    // The worker ends when no more can come.
    drop(jobs);
    for number in 0..BATCHES {
        check(client, number, results.recv()?)?;
    }
    worker.join().map_err(|_| "the worker panicked")??;
    Ok(())
}

fn with_process(client: &TypedClient, store: &OpenStore) -> Result<(), Box<dyn Error>> {
    let mut worker = store
        .second_process()?
        .arg("--work")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut jobs = worker.stdin.take().ok_or("the worker has no input")?;
    let results = worker.stdout.take().ok_or("the worker has no output")?;

    for number in 0..BATCHES {
        writeln!(jobs, "{}", produce(client, number)?)?;
    }
    drop(jobs);
    let mut lines = BufReader::new(results).lines();
    for number in 0..BATCHES {
        let line = lines.next().ok_or("the worker gave up")??;
        check(client, number, line.parse()?)?;
    }
    match worker.wait()?.success() {
        true => Ok(()),
        false => Err("the worker failed".into()),
    }
}

/// The worker that [`with_process`] starts: a key on each line, and a key in answer.
fn be_process(client: &TypedClient) -> Result<(), Box<dyn Error>> {
    for line in io::stdin().lines() {
        println!("{}", work(client, line?.parse()?)?);
    }
    Ok(())
}

fn produce(client: &TypedClient, number: usize) -> Result<Key<[Tick]>, Box<dyn Error>> {
    let ticks: Vec<Tick> = (0..TICKS)
        .map(|index| Tick {
            ts_ns: index as u64,
            price: 100.0 * number as f64 + (index % 50) as f64,
        })
        .collect();
    Ok(client.put(&ticks[..])?)
}

/// The same work for whoever is asked: ticks by their key, and the key of what was found.
fn work(client: &TypedClient, job: Key<[Tick]>) -> Result<Key<Range>, Box<dyn Error>> {
    let ticks = client.get(job)?.ok_or("the ticks are gone")?;
    let mut range = Range {
        low: f64::INFINITY,
        high: f64::NEG_INFINITY,
    };
    for tick in ticks.iter() {
        range.low = range.low.min(tick.price);
        range.high = range.high.max(tick.price);
    }
    client.delete(job)?;
    Ok(client.put(&range)?)
}

fn check(client: &TypedClient, number: usize, key: Key<Range>) -> Result<(), Box<dyn Error>> {
    let range = client.get(key)?.ok_or("the result is gone")?;
    let low = 100.0 * number as f64;
    println!("    {key}  {range:?}");
    if (range.low, range.high) != (low, low + 49.0) {
        return Err(format!("batch {number} has another range").into());
    }
    client.delete(key)?;
    Ok(())
}
