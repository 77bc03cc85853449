//! What the types cost over bytes. How long things take is printed, and judged only by orders of
//! magnitude:
//!
//! ```sh
//! cargo test --release -p tests --test typed -- --ignored --nocapture
//! ```

use std::hint::black_box;
use std::time::{Duration, Instant};

use plasma_typed::{Key, ObjectId, TypedClient};
use tests::{StoreProcess, in_another_process, role};

/// Bytes of shared memory that this process has touched.
fn touched_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the status of this process");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssShmem:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
    1024 * kib
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .expect("a number of kB")
}

/// Where every bit pattern is a value, a get looks at none: not one page of the object is touched.
#[test]
#[ignore = "takes 1 GiB of memory"]
fn a_get_of_a_gibibyte_touches_no_page_of_it() {
    const NAME: &str = "costs::a_get_of_a_gibibyte_touches_no_page_of_it";
    const NUMBERS: usize = 1 << 27;
    if let Some((id, socket)) = role() {
        let client = TypedClient::connect(socket).unwrap();
        let id: ObjectId = id.parse().unwrap();
        let before = touched_bytes();
        let start = Instant::now();
        let numbers = client.get::<[f64]>(id).unwrap().unwrap();
        let time = start.elapsed();
        assert_eq!(numbers.len(), NUMBERS);
        let touched = touched_bytes() - before;
        // Its metadata is one page, which the kernel maps with what lies beside it; so are a few
        // that the store shares with its clients.
        assert!(touched <= 2 * 65536, "{touched} bytes");
        let middle = numbers[NUMBERS / 2];
        assert_eq!(middle, (NUMBERS / 2) as f64);
        println!("a get of 1 GiB took {time:.1?} and touched {touched} bytes");
        assert!(
            touched_bytes() > before + touched,
            "a read is seen where there is one"
        );
        return;
    }
    let store = StoreProcess::start((8 * NUMBERS + (1 << 20)) as u64, &[]);
    let client = TypedClient::connect(store.socket()).unwrap();
    let numbers = client
        .create_uninit_with_len::<[f64]>(ObjectId::rand(), NUMBERS)
        .unwrap();
    let sealed = numbers.fill_with(|i| i as f64).seal().unwrap();
    let mut reader = in_another_process(NAME, &sealed.id().to_hex(), store.socket());
    let mut output = reader.stdout.take().unwrap();
    std::io::copy(&mut output, &mut std::io::stdout()).unwrap();
    assert!(reader.wait().unwrap().success());
}

/// Typed and untyped calls in turns, so that both see the same machine.
#[test]
#[ignore = "measures: for release builds on a quiet machine; takes 3 GiB of memory"]
fn what_types_cost_over_bytes() {
    const ROUNDS: usize = 50_000;
    type Small = [u64; 8];
    type Gibibyte = [u64; 1 << 27];
    let store = StoreProcess::start(3 << 30, &[]);
    let client = TypedClient::connect(store.socket()).unwrap();
    let untyped = client.untyped().clone();
    let value: Small = [7; 8];
    let small = client.put(&value).unwrap();
    let large = client.create::<Gibibyte>(ObjectId::rand()).unwrap();
    let large = large.seal().unwrap().key();
    let [small_meta, large_meta] = [small.id(), large.id()].map(|id| {
        let object = untyped.get(id, 0).unwrap().unwrap();
        object.meta().to_vec()
    });

    // A request takes some microseconds, give or take more than types cost; a thousand objects in
    // one show that best.
    let keys: Vec<_> = (0..1000).map(|_| client.put(&value).unwrap()).collect();
    let ids: Vec<_> = keys.iter().map(Key::id).collect();
    let in_many = compare(
        "get_many of 1000, 64 bytes each: per object",
        1000,
        ROUNDS / 50,
        || then_drop(untyped.get_many(&ids, 0).unwrap()),
        || then_drop(client.get_many(&keys).unwrap()),
    );
    let get = compare(
        "get, 64 bytes",
        1,
        ROUNDS,
        || then_drop(untyped.get(small.id(), 0).unwrap()),
        || then_drop(client.get(small).unwrap()),
    );
    let get_large = compare(
        "get, 1 GiB",
        1,
        ROUNDS,
        || then_drop(untyped.get(large.id(), 0).unwrap()),
        || then_drop(client.get(large).unwrap()),
    );
    let create = compare(
        "create, 64 bytes, zeroed",
        1,
        ROUNDS / 5,
        || {
            let mut object = untyped.create(ObjectId::rand(), 64, &small_meta).unwrap();
            object.data_mut().fill(0);
            move || object.abort().unwrap()
        },
        || {
            let object = client.create::<Small>(ObjectId::rand()).unwrap();
            move || object.abort().unwrap()
        },
    );
    let create_large = compare(
        "create_uninit, 1 GiB",
        1,
        ROUNDS / 5,
        || {
            let object = untyped
                .create(ObjectId::rand(), 1 << 30, &large_meta)
                .unwrap();
            move || object.abort().unwrap()
        },
        || {
            let object = client.create_uninit::<Gibibyte>(ObjectId::rand()).unwrap();
            move || object.abort().unwrap()
        },
    );
    let put = compare(
        "put, 64 bytes",
        1,
        ROUNDS / 5,
        || {
            let id = ObjectId::rand();
            let bytes = bytemuck::bytes_of(&value);
            untyped.create_and_seal(id, bytes, &small_meta).unwrap();
            let untyped = &untyped;
            move || untyped.delete(&id).unwrap()
        },
        || {
            let key = client.put(&value).unwrap();
            let client = &client;
            move || client.delete(key).unwrap()
        },
    );
    // Far more than noise, and far less than a look at the data would take.
    for more_ns in [in_many, get, get_large, create, create_large, put] {
        assert!(more_ns < 20_000, "{more_ns} ns");
    }
}

/// What is left to do after a call that is timed, where that is no more than dropping what it made.
fn then_drop<M>(made: M) -> impl FnOnce() {
    move || drop(made)
}

/// Times both calls `rounds` times, either one first in turn, without what they leave to be done
/// after them; prints what each takes, over `count`: the mean of the half of times that are nearest
/// to the median, which is finer than the clock, and forgets what else the machine did. How much
/// more the second takes, in ns.
fn compare<B: FnOnce(), T: FnOnce()>(
    what: &str,
    count: u32,
    rounds: usize,
    mut bytes: impl FnMut() -> B,
    mut typed: impl FnMut() -> T,
) -> i64 {
    fn time<R: FnOnce()>(times: &mut Vec<Duration>, call: &mut impl FnMut() -> R) {
        let start = Instant::now();
        let rest = black_box(call());
        times.push(start.elapsed());
        rest();
    }
    let (mut bytes_times, mut typed_times) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        if round % 2 == 0 {
            time(&mut bytes_times, &mut bytes);
            time(&mut typed_times, &mut typed);
        } else {
            time(&mut typed_times, &mut typed);
            time(&mut bytes_times, &mut bytes);
        }
    }
    let [bytes, typed] = [bytes_times, typed_times].map(|mut times| {
        times.sort_unstable();
        let middle = &times[rounds / 4..rounds - rounds / 4];
        let mean = middle.iter().sum::<Duration>().as_nanos() / middle.len() as u128;
        (mean / u128::from(count)) as i64
    });
    let more = typed - bytes;
    println!("{what:<45} {bytes:>7} ns as bytes, {typed:>7} ns typed: {more:+} ns");
    more
}
