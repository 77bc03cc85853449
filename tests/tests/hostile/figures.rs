//! How much a bad client costs the others: figures, for release builds on a quiet machine.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use plasma_core::ObjectId;
use plasma_core::protocol::message::Request;
use tests::raw::message;
use tests::{StoreProcess, within};

use super::{CAPACITY, ID, LIMIT, connect};

/// Gets in one phase, and phases of each kind; they take turns.
const GETS: usize = 5000;
const PHASES: usize = 10;

/// How long each of some gets took, shortest first.
fn sorted(mut times: Vec<Duration>) -> Vec<Duration> {
    times.sort_unstable();
    times
}

fn at(times: &[Duration], share: f64) -> Duration {
    times[(times.len() as f64 * share) as usize]
}

fn ask_without_end(mut socket: &UnixStream) {
    let lot = message(&Request::Contains(ID)).repeat(1000);
    while socket.write_all(&lot).is_ok() {}
}

/// Reads, and looks at nothing, which costs the least; how many bytes came.
fn read_to_end(mut socket: &UnixStream) -> usize {
    let (mut bytes, mut sum) = (vec![0; 256 << 10], 0);
    while let Ok(count @ 1..) = socket.read(&mut bytes) {
        sum += count;
    }
    sum
}

/// One client asks as fast as the kernel takes it, and reads what it is told; another has asked for
/// long lists and reads none of them. A third gets an object and lets go of it, again and again.
#[test]
#[ignore = "measures: for release builds on a quiet machine"]
fn what_a_flood_and_a_stall_cost_a_get() {
    within(2 * LIMIT, || {
        let store = StoreProcess::start(CAPACITY, &["--stall-timeout", "3600"]);
        let client = store.client();
        let id = ObjectId::rand();
        client
            .create_and_seal(id, b"wanted", b"")
            .expect("there is room");
        let batch: Vec<_> = (0..1000_u32)
            .map(|n| (ObjectId::from_name(&n.to_string()), &b""[..], &b""[..]))
            .collect();
        client.create_and_seal_batch(&batch).expect("there is room");

        let mut phases = [Vec::new(), Vec::new()];
        let flood = AtomicUsize::new(0);
        for _ in 0..PHASES {
            for (noisy, times) in [false, true].into_iter().zip(&mut phases) {
                let bad = noisy.then(|| (connect(&store), connect(&store)));
                thread::scope(|scope| {
                    if let Some((flooder, staller)) = &bad {
                        let flooder = flooder.socket();
                        scope.spawn(|| ask_without_end(flooder));
                        scope.spawn(|| flood.fetch_add(read_to_end(flooder), Ordering::Relaxed));
                        let mut staller = staller.socket();
                        staller.set_nonblocking(true).expect("it can be set");
                        // Whatever of it is taken.
                        let _ = staller.write(&message(&Request::List).repeat(1000));
                    }
                    for _ in 0..GETS / 10 {
                        client.get(id, 0).expect("the store answers");
                    }
                    for _ in 0..GETS {
                        let start = Instant::now();
                        let object = client.get(id, 0).expect("the store answers");
                        times.push(start.elapsed());
                        drop(object.expect("it is there"));
                    }
                    if let Some((flooder, _)) = &bad {
                        let end = flooder.socket().shutdown(Shutdown::Both);
                        end.expect("it is connected");
                    }
                });
            }
        }
        let flood = flood.into_inner() >> 20;
        println!("{flood} MiB of replies to the flood were read meanwhile");
        let [quiet, noisy] = phases.map(sorted);
        for (name, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)] {
            let (quiet, noisy) = (at(&quiet, share), at(&noisy, share));
            let ratio = noisy.as_secs_f64() / quiet.as_secs_f64();
            println!("{name}: quiet {quiet:?}, beside them {noisy:?}, {ratio:.2} times");
        }
    });
}
