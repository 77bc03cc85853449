//! Measures a store through this project's client: one JSON line a case, with the cases, sizes
//! and meaning of the programs that drive its rivals.
//!
//! ```text
//! bench [--store SOCKET | --embedded] [CASE-PREFIX] [SECONDS-PER-CASE]
//! ```
//!
//! The store runs as a process of its own; `--embedded` (the default) starts one, of 4 GB: as much
//! memory has to be free.

use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use examples::finish;
use plasma_core::{ObjectId, PlasmaClient, PlasmaError};
use plasma_store::Store;
use plasma_typed::TypedClient;

/// What the store that `--embedded` starts can hold, in bytes.
const CAPACITY: u64 = 4_000_000_000;

const WARM_UP: usize = 20;

#[derive(Parser)]
#[command(about = "Measures a Plasma store: one JSON line for each case")]
struct Args {
    /// The socket of a running store, this project's or Arrow's
    #[arg(long, value_name = "SOCKET", conflicts_with = "embedded")]
    store: Option<PathBuf>,
    /// Start a store for this run (the default without --store); it takes 4 GB of free memory
    #[arg(long)]
    embedded: bool,
    /// Be the store that another `bench --embedded` started
    #[arg(long, hide = true)]
    serve: bool,
    /// Only cases whose name begins with this
    #[arg(default_value = "")]
    prefix: String,
    /// How long to repeat each case, in seconds
    #[arg(default_value_t = 1.0)]
    seconds: f64,
}

fn main() -> ExitCode {
    finish(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    if args.serve {
        return serve();
    }
    let embedded;
    let socket = match args.store {
        Some(socket) => socket,
        None => {
            embedded = StoreProcess::start()?;
            embedded.socket.clone()
        }
    };
    let bench = Bench {
        writer: PlasmaClient::builder().connect(&socket)?,
        reader: PlasmaClient::builder().connect(&socket)?,
        prefix: args.prefix,
        time: Duration::try_from_secs_f64(args.seconds)?,
    };
    bench.run()?;
    Ok(())
}

/// Runs a store until standard input ends, which it does with the process at its other end.
fn serve() -> Result<(), Box<dyn Error>> {
    let store = Store::builder().capacity(CAPACITY).spawn()?;
    println!("{}", store.socket().display());
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    store.shutdown()?;
    Ok(())
}

/// A store in a process of its own, which ends with this one.
struct StoreProcess {
    child: Child,
    socket: PathBuf,
}

impl StoreProcess {
    fn start() -> Result<Self, Box<dyn Error>> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("the store has no output")?;
        let mut socket = String::new();
        if BufReader::new(stdout).read_line(&mut socket)? == 0 {
            child.wait()?;
            // It has said why.
            return Err("the store did not start".into());
        }
        Ok(Self {
            child,
            socket: socket.trim_end().into(),
        })
    }
}

impl Drop for StoreProcess {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // Its own messages say what went wrong, if anything did.
        let _ = self.child.wait();
    }
}

struct Bench {
    writer: PlasmaClient,
    reader: PlasmaClient,
    prefix: String,
    time: Duration,
}

type Outcome = Result<(), Box<dyn Error>>;

impl Bench {
    /// Repeats `operation` (timed) and `after` (not timed) until time is up or it was done `most`
    /// times, and prints what was measured.
    fn case<T, E: Into<Box<dyn Error>>>(
        &self,
        name: &str,
        bytes: usize,
        most: usize,
        mut operation: impl FnMut(usize) -> Result<T, E>,
        mut after: impl FnMut(T) -> Result<(), PlasmaError>,
    ) -> Outcome {
        if !name.starts_with(&self.prefix) {
            return Ok(());
        }
        for i in 0..WARM_UP.min(most / 10) {
            after(operation(i).map_err(Into::into)?)?;
        }
        let mut micros = Vec::new();
        let end = Instant::now() + self.time;
        // At least once, however long that takes.
        while micros.is_empty() || (micros.len() < most && Instant::now() < end) {
            let start = Instant::now();
            let made = operation(micros.len()).map_err(Into::into)?;
            micros.push(start.elapsed().as_secs_f64() * 1e6);
            after(made)?;
        }
        let total: f64 = micros.iter().sum();
        micros.sort_by(f64::total_cmp);
        let count = micros.len();
        let at = |share: usize| micros[(count * share / 100).min(count - 1)];
        println!(
            "{{\"impl\":\"plasma-rs\",\"case\":\"{name}\",\"bytes\":{bytes},\"n\":{count},\
             \"ops_per_s\":{:.0},\"p50_us\":{:.3},\"p99_us\":{:.3},\"gb_per_s\":{:.3}}}",
            count as f64 / (total / 1e6),
            at(50),
            at(99),
            (bytes * count) as f64 / (total * 1e3),
        );
        Ok(())
    }

    fn run(&self) -> Outcome {
        self.fresh_memory()?;
        for size in [64, 4 << 10, 64 << 10, 1 << 20] {
            self.small(size)?;
        }
        self.typed()?;
        self.contains()?;
        self.batches()?;
        for size in [64 << 20, 256 << 20] {
            self.large(size)?;
        }
        Ok(())
    }

    /// The first use of memory that the store has not touched yet; first of all, so that it is.
    fn fresh_memory(&self) -> Outcome {
        let size = 64 << 20;
        // What is made stays there until the end, so that its memory is not used again.
        let mut made = Vec::new();
        self.case(
            "put_cold",
            size,
            20,
            |i| self.fill(size, i),
            |id| {
                made.push(id);
                Ok(())
            },
        )?;
        self.writer.delete_many(&made)?;
        Ok(())
    }

    fn small(&self, size: usize) -> Outcome {
        let payload = vec![b'x'; size];
        self.case(
            "put_copy",
            size,
            200_000,
            |_| {
                let id = ObjectId::rand();
                let mut object = self.writer.create(id, size, &[])?;
                object.data_mut().copy_from_slice(&payload);
                object.seal()?;
                Ok::<_, PlasmaError>(id)
            },
            |id| self.writer.delete(&id),
        )?;
        if size <= 64 << 10 {
            self.case(
                "create_and_seal",
                size,
                200_000,
                |_| {
                    let id = ObjectId::rand();
                    self.writer.create_and_seal(id, &payload, &[])?;
                    Ok::<_, PlasmaError>(id)
                },
                |id| self.writer.delete(&id),
            )?;
        }
        let held = ObjectId::rand();
        self.writer.create_and_seal(held, &payload, &[])?;
        self.get_release(held, size)?;
        self.writer.delete(&held)?;
        Ok(())
    }

    fn get_release(&self, id: ObjectId, size: usize) -> Outcome {
        self.case(
            "get_release",
            size,
            200_000,
            |_| {
                black_box(self.reader.get(id, -1)?);
                Ok::<_, PlasmaError>(())
            },
            Ok,
        )
    }

    /// As `create_and_seal` and `get_release`, of a type that takes 64 bytes.
    fn typed(&self) -> Outcome {
        type Value = [u64; 8];
        let writer = TypedClient::from(self.writer.clone());
        let reader = TypedClient::from(self.reader.clone());
        let value: Value = [7; 8];
        let delete = |key| writer.delete(key);
        self.case(
            "typed_put",
            size_of::<Value>(),
            200_000,
            |_| writer.put(&value),
            delete,
        )?;
        let held = writer.put(&value)?;
        self.case(
            "typed_get",
            size_of::<Value>(),
            200_000,
            |_| reader.get(held).map(|value| drop(black_box(value))),
            Ok,
        )?;
        writer.delete(held)?;
        Ok(())
    }

    fn contains(&self) -> Outcome {
        let present = ObjectId::rand();
        self.writer.create_and_seal(present, b"x", &[])?;
        for (name, id) in [
            ("contains_hit", present),
            ("contains_miss", ObjectId::rand()),
        ] {
            let ask = |_| self.reader.contains(&id).map(|found| _ = black_box(found));
            self.case(name, 0, 200_000, ask, Ok)?;
        }
        self.writer.delete(&present)?;
        Ok(())
    }

    fn batches(&self) -> Outcome {
        let ids: Vec<_> = (0..1000).map(|_| ObjectId::rand()).collect();
        for id in &ids {
            self.writer.create_and_seal(*id, b"0123456789abcdef", &[])?;
        }
        self.case(
            "get_batch_1000",
            0,
            2000,
            |_| {
                black_box(self.reader.get_many(&ids, -1)?);
                Ok::<_, PlasmaError>(())
            },
            Ok,
        )?;
        self.writer.delete_many(&ids)?;
        let payload = [b'x'; 64];
        self.case(
            "create_and_seal_batch",
            payload.len(),
            2000,
            |_| {
                let objects: Vec<_> = (0..1000)
                    .map(|_| (ObjectId::rand(), &payload[..], &[][..]))
                    .collect();
                self.writer.create_and_seal_batch(&objects)?;
                Ok::<_, PlasmaError>(objects)
            },
            |objects| {
                let ids: Vec<_> = objects.into_iter().map(|(id, ..)| id).collect();
                self.writer.delete_many(&ids)
            },
        )
    }

    fn large(&self, size: usize) -> Outcome {
        self.case(
            "put_fill",
            size,
            40,
            |i| self.fill(size, i),
            |id| self.writer.delete(&id),
        )?;
        let id = self.fill(size, 1)?;
        self.get_release(id, size)?;
        self.writer.delete(&id)?;
        Ok(())
    }

    fn fill(&self, size: usize, i: usize) -> Result<ObjectId, PlasmaError> {
        let id = ObjectId::rand();
        let mut object = self.writer.create(id, size, &[])?;
        object.data_mut().fill(i as u8);
        object.seal()?;
        Ok(id)
    }
}
