//! How much a bad client costs the others: figures, for release builds on a quiet machine.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use plasma_core::protocol::message::Request;
use plasma_core::{ObjectId, PlasmaClient};
use tests::raw::message;
use tests::{StoreProcess, within};

use super::{CAPACITY, ID, LIMIT, connect};

/// How long gets are timed in one phase, and phases of each kind; they take turns.
const PHASE: Duration = Duration::from_millis(100);
const PHASES: usize = 20;

fn ask_without_end(mut socket: &UnixStream) {
    let lot = message(&Request::Contains(ID)).repeat(1000);
    while socket.write_all(&lot).is_ok() {}
}

/// Reads, and looks at nothing, which costs the least; counts the bytes.
fn read_without_end(mut socket: &UnixStream, sum: &AtomicUsize) {
    let mut bytes = vec![0; 256 << 10];
    while let Ok(count @ 1..) = socket.read(&mut bytes) {
        sum.fetch_add(count, Ordering::Relaxed);
    }
}

/// What gets take, in nanoseconds, and with what is let go.
fn time_gets(client: &PlasmaClient, id: ObjectId, times: &mut Vec<u32>) {
    let end = Instant::now() + PHASE;
    loop {
        let start = Instant::now();
        let object = client.get(id, 0).expect("the store answers");
        drop(object.expect("it is there"));
        let now = Instant::now();
        let time = now - start;
        times.push(time.as_nanos().try_into().unwrap_or(u32::MAX));
        if now > end {
            return;
        }
    }
}

/// Writes the same requests as fast as they are read, and they are read, while gets are timed.
fn beside_a_flood(asked: &UnixStream, read: &UnixStream, sum: &AtomicUsize, each: impl FnOnce()) {
    let before = sum.load(Ordering::Relaxed);
    thread::scope(|scope| {
        scope.spawn(|| ask_without_end(asked));
        scope.spawn(|| read_without_end(read, sum));
        while sum.load(Ordering::Relaxed) == before {
            thread::yield_now();
        }
        each();
        let end = asked.shutdown(Shutdown::Both);
        end.expect("it is connected");
    });
}

/// One client asks as fast as the kernel takes it, and reads what it is told; another has asked for
/// long lists and reads none of them. A third gets an object and lets go of it, again and again.
///
/// The flood takes processors as well as the store's time. What that costs by itself is told apart: in
/// some phases the same is written and read without a store.
#[test]
#[ignore = "measures: for release builds on a quiet machine"]
fn what_a_flood_and_a_stall_cost_a_get() {
    within(2 * LIMIT, || {
        for shared_memory in [false, true] {
            let way = if shared_memory {
                "in shared memory"
            } else {
                "by the socket"
            };
            println!("gets {way}:");
            measure(shared_memory);
        }
    });
}

fn measure(shared_memory: bool) {
    let store = StoreProcess::start(CAPACITY, &["--stall-timeout", "3600"]);
    let builder = PlasmaClient::builder().shared_memory(shared_memory);
    let client = builder.connect(store.socket()).expect("it listens");
    let id = ObjectId::rand();
    client
        .create_and_seal(id, b"wanted", b"")
        .expect("there is room");
    let batch: Vec<_> = (0..1000_u32)
        .map(|n| (ObjectId::from_name(&n.to_string()), &b""[..], &b""[..]))
        .collect();
    client.create_and_seal_batch(&batch).expect("there is room");

    let [mut quiet, mut busy, mut noisy] = [const { Vec::new() }; 3];
    let [flood, elsewhere] = [const { AtomicUsize::new(0) }; 2];
    for _ in 0..PHASES {
        time_gets(&client, id, &mut quiet);

        let (asked, read) = UnixStream::pair().expect("there are sockets");
        beside_a_flood(&asked, &read, &elsewhere, || {
            time_gets(&client, id, &mut busy);
        });

        let (flooder, staller) = (connect(&store), connect(&store));
        let mut staller = staller.socket();
        staller.set_nonblocking(true).expect("it can be set");
        // Whatever of it is taken.
        let _ = staller.write(&message(&Request::List).repeat(1000));
        beside_a_flood(flooder.socket(), flooder.socket(), &flood, || {
            time_gets(&client, id, &mut noisy);
        });
    }
    let flood = flood.into_inner() >> 20;
    println!("  {flood} MiB of replies to the flood were read meanwhile");
    for times in [&mut quiet, &mut busy, &mut noisy] {
        times.sort_unstable();
    }
    println!(
        "  {} quiet gets, {} beside a flood elsewhere, {} beside flood and stall",
        quiet.len(),
        busy.len(),
        noisy.len()
    );
    for (name, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)] {
        let at = |times: &[u32]| f64::from(times[(times.len() as f64 * share) as usize]) / 1000.0;
        let [quiet, busy, noisy] = [&quiet, &busy, &noisy].map(|times| at(times));
        println!(
            "  {name}: quiet {quiet:.2} µs, flood elsewhere {busy:.2} µs ({:.2} times), flood and \
             stall {noisy:.2} µs ({:.2} times)",
            busy / quiet,
            noisy / quiet,
        );
    }
}
