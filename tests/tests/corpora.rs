//! What fuzzing found, once more. The targets that run in processes of their own, and how to fuzz,
//! are in `fuzz/`.

use std::fs;
use std::time::Duration;

use tests::{fuzzed, within};

const LIMIT: Duration = Duration::from_secs(60);

fn replay(target: &str, driver: fn(&[u8])) {
    let corpus = format!("{}/../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    within(LIMIT, move || {
        let mut inputs = 0;
        for file in fs::read_dir(corpus).expect("the corpus is in the repository") {
            let path = file.expect("a file").path();
            println!("{}", path.display());
            driver(&fs::read(path).expect("a file"));
            inputs += 1;
        }
        assert!(inputs > 0);
    });
}

#[test]
fn requests_that_fuzzing_found() {
    replay("requests", fuzzed::requests);
}

#[test]
fn replies_that_fuzzing_found() {
    replay("replies", fuzzed::replies);
}

#[test]
fn stores_that_fuzzing_found() {
    replay("client", fuzzed::client);
}

#[test]
fn clients_that_fuzzing_found() {
    replay("store", fuzzed::store);
}
