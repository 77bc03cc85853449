//! Measures whether a store slows down as it fills with objects: what a create, a get and a delete
//! take in a store with few objects and in one with many.
//!
//! ```text
//! scale [--few OBJECTS] [--many OBJECTS] [--size BYTES] [--rounds N]
//! ```

use std::error::Error;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use examples::finish;
use plasma_core::{ObjectId, PlasmaClient, PlasmaError};
use plasma_store::{Store, StoreHandle};

/// How many objects travel in one request while a store is filled.
const BATCH: usize = 1000;

const OPERATIONS: [&str; 4] = [
    "create and seal",
    "create, write, seal",
    "get, release",
    "delete",
];

#[derive(Parser)]
#[command(about = "Measures operations of a Plasma store with few objects in it and with many")]
struct Args {
    /// Objects in one store
    #[arg(long, default_value_t = 10_000, value_parser = at_least_one)]
    few: usize,
    /// Objects in the other
    #[arg(long, default_value_t = 1_000_000, value_parser = at_least_one)]
    many: usize,
    /// Bytes of each object
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// How often each operation is measured
    #[arg(long, default_value_t = 20_000)]
    rounds: usize,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|error| format!("{error}"))?;
    (number > 0).then_some(number).ok_or("at least one".into())
}

/// Operations that are measured on one store before it is the other's turn: whatever else the
/// machine does meanwhile, it does to both.
const TURN: usize = 500;

fn main() -> ExitCode {
    finish(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let (mut few, mut many) = (Bench::new(&args, args.few)?, Bench::new(&args, args.many)?);
    // Once unmeasured: whatever is slow the first time is over then.
    few.turn()?;
    many.turn()?;
    for bench in [&mut few, &mut many] {
        bench.micros.fill_with(Vec::new);
    }
    for _ in 0..args.rounds.div_ceil(TURN) {
        few.turn()?;
        many.turn()?;
    }
    println!("median microseconds, objects of {} bytes", args.size);
    println!(
        "{:20} {:>10} objects {:>10} objects {:>7}",
        "", args.few, args.many, "ratio"
    );
    let medians = few.medians().into_iter().zip(many.medians());
    for (operation, (few, many)) in OPERATIONS.iter().zip(medians) {
        println!("{operation:20} {few:18.2} {many:18.2} {:7.2}", many / few);
    }
    Ok(())
}

/// A store with objects in it, and what operations on it took.
struct Bench {
    client: PlasmaClient,
    /// What is in the store.
    ids: Vec<ObjectId>,
    /// The one to be read next.
    next: usize,
    payload: Vec<u8>,
    micros: [Vec<f64>; 4],
    /// Last: the client goes first.
    _store: StoreHandle,
}

impl Bench {
    fn new(args: &Args, objects: usize) -> Result<Self, Box<dyn Error>> {
        let room = (objects + 2 * TURN) * args.size.max(1);
        let store = Store::builder().capacity(room as u64).spawn()?;
        let client = PlasmaClient::builder().connect(store.socket())?;
        let ids: Vec<_> = (0..objects).map(|_| ObjectId::rand()).collect();
        let payload = vec![b'x'; args.size];
        for batch in ids.chunks(BATCH) {
            let batch: Vec<_> = batch
                .iter()
                .map(|id| (*id, &payload[..], &[][..]))
                .collect();
            client.create_and_seal_batch(&batch)?;
        }
        Ok(Self {
            client,
            ids,
            next: 0,
            payload,
            micros: Default::default(),
            _store: store,
        })
    }

    /// Measures each operation for a while. Afterwards the store holds as much as before.
    fn turn(&mut self) -> Result<(), PlasmaError> {
        let new: Vec<_> = (0..2 * TURN).map(|_| ObjectId::rand()).collect();
        let (inline, written) = new.split_at(TURN);
        let there: Vec<_> = (0..TURN).map(|_| self.pick()).collect();
        let Self {
            client, payload, ..
        } = self;
        let [create, write, get, delete] = &mut self.micros;
        time(create, inline, |id| {
            client.create_and_seal(id, payload, &[])
        })?;
        time(write, written, |id| {
            let mut object = client.create(id, payload.len(), &[])?;
            object.data_mut().copy_from_slice(payload);
            object.seal()
        })?;
        time(get, &there, |id| {
            black_box(client.get(id, -1)?);
            Ok(())
        })?;
        time(delete, &new, |id| client.delete(&id))
    }

    /// One of the objects that are there, far from the last.
    fn pick(&mut self) -> ObjectId {
        self.next = (self.next + self.ids.len() / 3 + 7919) % self.ids.len();
        self.ids[self.next]
    }

    fn medians(mut self) -> [f64; 4] {
        self.micros.each_mut().map(|micros| {
            micros.sort_by(f64::total_cmp);
            micros.get(micros.len() / 2).copied().unwrap_or(f64::NAN)
        })
    }
}

/// Notes what an operation takes on each of these, in microseconds.
fn time(
    micros: &mut Vec<f64>,
    ids: &[ObjectId],
    mut operation: impl FnMut(ObjectId) -> Result<(), PlasmaError>,
) -> Result<(), PlasmaError> {
    for id in ids {
        let start = Instant::now();
        operation(*id)?;
        micros.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(())
}
