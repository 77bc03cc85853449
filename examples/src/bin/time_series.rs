//! A time series of four million records: written once, read by threads and by another process.
//!
//! ```text
//! time_series [--store SOCKET]
//! ```
//!
//! Every bit pattern is a value of the record, so a get looks at no byte of it, however long the
//! series is. It is split into parts that can be sent and kept on their own; each keeps the object
//! held.

use std::error::Error;
use std::fmt;
use std::process::{ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use examples::{StoreArgs, finish};
use plasma_typed::{Key, ObjectId, PlasmaObject, Sealed, SealedRef, TypedClient};

#[derive(PlasmaObject, Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct Tick {
    ts_ns: u64,
    price_cents: u32,
    size: u32,
}

const TICKS: usize = 4_000_000;
const TICK_NS: u64 = 250_000;
const THREADS: usize = 4;

/// What became of some ticks; an object as well, so that one process can hand it to another.
#[derive(PlasmaObject, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Summary {
    ticks: u64,
    volume: u64,
    turnover_cents: u64,
    low_cents: u32,
    high_cents: u32,
}

#[derive(Parser)]
#[command(about = "A slice of four million records, read in parts by threads and processes")]
struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Print the key of this series' summary, as the process that another `time_series` started
    #[arg(long, hide = true)]
    summarise: Option<Key<[Tick]>>,
}

fn main() -> ExitCode {
    finish(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let store = args.store.open(100 << 20)?;
    let client = store.connect()?;
    if let Some(key) = args.summarise {
        let ticks = client.wait(key, Duration::from_secs(5))?;
        println!("{}", client.put(&Summary::of(&ticks))?);
        return Ok(());
    }

    let (ticks, expected) = write(&client)?;
    let key = ticks.key();

    let start = Instant::now();
    let by_threads = summarise_in_threads(&ticks)?;
    println!("{THREADS} threads  {by_threads}, {:.1?}", start.elapsed());

    let start = Instant::now();
    let mut process = store.second_process()?;
    process.arg("--summarise").arg(key.to_string());
    let output = process.stderr(Stdio::inherit()).output()?;
    let answer: Key<Summary> = String::from_utf8(output.stdout)?.trim().parse()?;
    let by_process = client.get(answer)?.ok_or("the summary is gone")?;
    println!("a process  {by_process}, {:.1?}", start.elapsed());

    if by_threads != expected || *by_process != expected {
        return Err(format!("what was written is another series: {expected}").into());
    }

    // The window is a part of the object, so the object stays, whoever else drops or deletes it.
    let window = last_second(ticks)?;
    client.delete(key)?;
    client.delete(answer)?;
    println!("the window {}", Summary::of(&window));
    Ok(())
}

/// A series, and what readers should find in it.
type Written = (Sealed<[Tick]>, Summary);

/// Writes a random walk.
fn write(client: &TypedClient) -> Result<Written, Box<dyn Error>> {
    let mut expected = Summary::NOTHING;
    let mut random: u64 = 42;
    let mut price_cents: u32 = 1_000_000;

    let start = Instant::now();
    // As every record is written, the memory need not be cleared before.
    let ticks = client.create_uninit_with_len::<[Tick]>(ObjectId::rand(), TICKS)?;
    let ticks = ticks.fill_with(|index| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // Up or down, but never below 1.
        price_cents = (price_cents + (random % 3) as u32).max(2) - 1;
        let tick = Tick {
            ts_ns: index as u64 * TICK_NS,
            price_cents,
            size: 1 + (random >> 32) as u32 % 100,
        };
        expected.add(&tick);
        tick
    });
    let ticks = ticks.seal()?;
    println!("written    {expected}, {:.1?}", start.elapsed());
    Ok((ticks, expected))
}

/// A part for each thread: a [`SealedRef`], which borrows nothing and is sent like any value.
fn summarise_in_threads(ticks: &Sealed<[Tick]>) -> Result<Summary, Box<dyn Error>> {
    let mut threads = Vec::new();
    for number in 0..THREADS {
        let part = number * TICKS / THREADS..(number + 1) * TICKS / THREADS;
        let part: SealedRef<[Tick]> = ticks.map(|ticks| &ticks[part]);
        threads.push(thread::spawn(move || Summary::of(&part)));
    }
    let mut all = Summary::NOTHING;
    for thread in threads {
        all.merge(&thread.join().map_err(|_| "a thread panicked")?);
    }
    Ok(all)
}

/// The last second of a series, which keeps the object when the series itself is dropped.
fn last_second(ticks: Sealed<[Tick]>) -> Result<SealedRef<[Tick]>, Box<dyn Error>> {
    let end_ns = ticks.last().ok_or("there are no ticks")?.ts_ns;
    Ok(ticks.map(|ticks| {
        let start = ticks.partition_point(|tick| tick.ts_ns + 1_000_000_000 <= end_ns);
        &ticks[start..]
    }))
}

impl Summary {
    const NOTHING: Self = Self {
        ticks: 0,
        volume: 0,
        turnover_cents: 0,
        low_cents: u32::MAX,
        high_cents: 0,
    };

    fn of(ticks: &[Tick]) -> Self {
        let mut summary = Self::NOTHING;
        for tick in ticks {
            summary.add(tick);
        }
        summary
    }

    fn add(&mut self, tick: &Tick) {
        self.merge(&Self {
            ticks: 1,
            volume: tick.size.into(),
            turnover_cents: u64::from(tick.size) * u64::from(tick.price_cents),
            low_cents: tick.price_cents,
            high_cents: tick.price_cents,
        });
    }

    fn merge(&mut self, other: &Self) {
        self.ticks += other.ticks;
        self.volume += other.volume;
        self.turnover_cents += other.turnover_cents;
        self.low_cents = self.low_cents.min(other.low_cents);
        self.high_cents = self.high_cents.max(other.high_cents);
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dollars = |cents: f64| cents / 100.0;
        write!(
            f,
            "{:>7} ticks from {:.2} to {:.2}, {:.2} on average",
            self.ticks,
            dollars(self.low_cents.into()),
            dollars(self.high_cents.into()),
            dollars(self.turnover_cents as f64 / self.volume as f64),
        )
    }
}
