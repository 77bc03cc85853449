//! Long random histories.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::state::world::{IDS, Op, Outside, SEATS, STEP, World};

fn op() -> impl Strategy<Value = Op> {
    let seat = || 0..SEATS;
    let object = || 0..IDS;
    let objects = || vec(0..IDS, 0..5);
    let size = select(vec![
        0_u64, 1, 40, 64, 65, 100, 200, 250, 333, 500, 900, 1000, 1001,
    ]);
    let sizes = prop_oneof![
        20 => (size.clone(), select(vec![0_u64, 0, 0, 1, 30])),
        1 => (select(vec![u64::MAX, u64::MAX - 5]), select(vec![0_u64, 5, 6])),
    ];
    let timeout = prop_oneof![
        Just(None),
        Just(Some(Duration::ZERO)),
        // In steps, so that what is to end at the same time does so.
        (1..6_u32).prop_map(|steps| Some(STEP * steps)),
        Just(Some(Duration::MAX)),
    ];
    let quota = prop_oneof![
        1 => select(vec![0, -1, i64::MIN, 1, 701, i64::MAX]),
        2 => select(vec![100, 300, 500, 700]),
    ];
    let outside = prop_oneof![
        6 => Just(Outside::Works),
        2 => Just(Outside::Fails),
        1 => Just(Outside::Loses),
    ];
    prop_oneof![
        10 => (seat(), object(), sizes, prop::bool::weighted(0.8))
            .prop_map(|(seat, id, (data, metadata), evict)| Op::Create(seat, id, data, metadata, evict)),
        12 => (seat(), object(), size).prop_map(|(seat, id, size)| Op::Put(seat, id, size)),
        10 => (seat(), object()).prop_map(|(seat, id)| Op::Seal(seat, id)),
        3 => (seat(), objects()).prop_map(|(seat, ids)| Op::SealBatch(seat, ids)),
        3 => (seat(), object()).prop_map(|(seat, id)| Op::Abort(seat, id)),
        14 => (seat(), objects(), timeout).prop_map(|(seat, ids, timeout)| Op::Get(seat, ids, timeout)),
        16 => (seat(), object()).prop_map(|(seat, id)| Op::Release(seat, id)),
        6 => object().prop_map(Op::Delete),
        2 => select(vec![0, 1, 100, 400, u64::MAX]).prop_map(Op::Evict),
        3 => objects().prop_map(Op::Refresh),
        5 => (seat(), select(vec!["", "ann", "ben"]), quota)
            .prop_map(|(seat, name, quota)| Op::SetOptions(seat, name, quota)),
        2 => seat().prop_map(Op::Disconnect),
        5 => (0..5_u32).prop_map(Op::Pass),
        10 => (any::<usize>(), outside).prop_map(|(which, how)| Op::Return(which, how)),
        1 => any::<bool>().prop_map(Op::Break),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_state_does_what_the_model_does(
        external in any::<bool>(),
        max_objects in select(vec![5, 100]),
        evict in any::<bool>(),
        ops in vec(op(), 1..400),
    ) {
        let mut world = World::new(external, max_objects);
        for op in &ops {
            world.apply(op);
            world.check();
        }
        world.end(evict);
    }
}
