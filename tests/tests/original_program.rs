//! The program that the Rust bindings of Arrow's Plasma had in their README still compiles, with
//! nothing changed but the crate's name and where the store is.

use plasma_core::{ObjectId, PlasmaClient};
use tests::StoreProcess;

#[test]
#[expect(clippy::clone_on_copy, reason = "ids were not `Copy` then")]
fn a_program_for_the_first_rust_bindings_runs_unchanged() {
    let store = StoreProcess::start(128 << 20, &[]);
    let socket = store.socket().to_str().unwrap();
    let data_size = 64 << 20;

    let pc = PlasmaClient::new(socket, 0).unwrap();
    let oid = ObjectId::rand();
    let meta = vec![1, 2, 3, 4];
    let mut ob = pc.create(oid.clone(), data_size, &meta).unwrap();
    {
        let data = ob.data_mut();
        // SAFETY: every bit pattern is a u128, and a u128 has no padding.
        let (before, numbers, after) = unsafe { data.align_to_mut::<u128>() };
        assert!(before.is_empty() && after.is_empty());
        for (i, number) in numbers.iter_mut().enumerate() {
            *number = i as u128;
        }
        ob.seal().unwrap();
    }

    let pc2 = PlasmaClient::new(socket, 0).unwrap();
    let ob2 = pc2.get(oid.clone(), 5).unwrap().unwrap();
    // SAFETY: every bit pattern is a u128.
    let (before, numbers, after) = unsafe { ob2.data().align_to::<u128>() };
    assert!(before.is_empty() && after.is_empty());
    let count = (data_size / 16) as u128;
    assert_eq!(numbers.iter().sum::<u128>(), count * (count - 1) / 2);
    assert_eq!(ob2.meta(), [1, 2, 3, 4]);
}
