//! Waiting for an object that nobody has made yet: two processes that agree on a key need no other
//! signal between them.
//!
//! ```text
//! waiting [--store SOCKET]
//! ```
//!
//! The consumer, this program started again, asks for the object before the producer makes it.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use examples::{OpenStore, StoreArgs, finish};
use plasma_typed::{GetError, Key, ObjectId, PlasmaObject, TypedClient};

#[derive(PlasmaObject, Clone, Copy, Debug)]
#[repr(C)]
struct Answer {
    made_ns: u64,
    value: u64,
}

#[derive(Parser)]
#[command(about = "A consumer waits for an object that the producer has not made yet")]
struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Be the consumer of this object, as the process that another `waiting` started
    #[arg(long, hide = true)]
    consume: Option<Key<Answer>>,
}

fn main() -> ExitCode {
    finish(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let store = args.store.open(1 << 20)?;
    let client = store.connect()?;
    match args.consume {
        Some(key) => consume(&client, key),
        None => produce(&client, &store),
    }
}

fn produce(client: &TypedClient, store: &OpenStore) -> Result<(), Box<dyn Error>> {
    let key = Key::<Answer>::new(ObjectId::rand());
    // It does not wait for ever, so it ends by itself whatever becomes of this process.
    let mut consumer = store
        .second_process()?
        .args(["--consume", &key.to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let output = consumer.stdout.take().ok_or("the consumer has no output")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("consumer: {line}");
        if line == WAITING {
            println!("producer: working on it, for 200 ms");
            thread::sleep(Duration::from_millis(200));
            let answer = Answer {
                made_ns: now_ns()?,
                value: 42,
            };
            client.put_at(key, &answer)?;
            println!("producer: sealed it");
        }
    }
    let ended = consumer.wait()?;
    client.delete(key)?;
    match ended.success() {
        true => Ok(()),
        false => Err(format!("the consumer failed: {ended}").into()),
    }
}

/// What the consumer says when it goes to wait.
const WAITING: &str = "waiting for up to 10 s";

fn consume(client: &TypedClient, key: Key<Answer>) -> Result<(), Box<dyn Error>> {
    // `get` does not wait at all, and that there is nothing is no error of it.
    let found = client.get(key)?;
    println!("there already? {}", found.is_some());

    // `wait` does, for as long as it is told; that nothing came is an error of its own.
    match client.wait(key, Duration::from_millis(100)) {
        Err(error @ GetError::TimedOut { .. }) => println!("{error}"),
        Err(error) => return Err(error.into()),
        Ok(_) => return Err("it is there before anybody made it".into()),
    }

    // While one thread waits, others may use the same client.
    println!("{WAITING}");
    let start = Instant::now();
    let answer = client.wait(key, Duration::from_secs(10))?;
    let waited = start.elapsed().as_millis();
    let late = now_ns()?.saturating_sub(answer.made_ns) / 1000;
    println!("it came after {waited} ms, {late} µs after the producer began to put it there");
    println!("it says {}", answer.value);
    Ok(())
}

fn now_ns() -> Result<u64, Box<dyn Error>> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(now.as_nanos().try_into()?)
}
