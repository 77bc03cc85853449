//! Requests that are not for this client to make, or that nobody can make.

use plasma_core::ObjectId;
use plasma_core::protocol::message::{ErrorCode, Reply, Request};

use tests::debug_number;

use super::{
    CAPACITY, ID, OTHER_ID, connect, create, let_the_store_catch_up, new_object, under_attack,
};

#[test]
fn what_a_client_does_not_hold_it_cannot_change() {
    under_attack(&[], |store| {
        let mut attacker = connect(store);
        let victim = store.client();
        let mut writing = victim.create(ID, 100, b"").expect("there is room");
        victim
            .create_and_seal(OTHER_ID, b"sealed", b"")
            .expect("there is room");
        let held = victim.get(OTHER_ID, 0).expect("the store answers");
        for id in [ID, OTHER_ID, ObjectId::new([1; 20])] {
            let seal = Request::Seal { id, digest: [0; 8] };
            let result = Err(ErrorCode::ObjectNotFound);
            for _ in 0..2 {
                assert_eq!(attacker.call(&seal), Reply::Seal { id, result });
                assert_eq!(attacker.call(&Request::Abort(id)), Reply::Abort(id));
                attacker.send(&Request::Release(id));
            }
        }
        let infos = victim.list().expect("the store answers");
        for id in [ID, OTHER_ID] {
            let info = infos
                .iter()
                .find(|info| info.id == id)
                .expect("it is there");
            assert_eq!(info.ref_count, 1, "{id}");
        }
        // Nor can it have what is not sealed.
        let get = Request::Get {
            ids: vec![ID].into(),
            timeout_ms: 0,
        };
        let Reply::Get { objects, segments } = attacker.call(&get) else {
            panic!("another reply than a get's")
        };
        assert_eq!((&objects[..], segments), (&[(ID, None)][..], vec![]));
        writing.seal().expect("it is still the creator's");
        drop((writing, held));
        victim
            .delete_many(&[ID, OTHER_ID])
            .expect("the store answers");
        assert!(!victim.contains(&OTHER_ID).expect("the store answers"));
    });
}

/// Sizes at which sums overflow, signs change, or memory ends.
const SIZES: [u64; 12] = [
    0,
    1,
    CAPACITY + 1,
    1 << 40,
    i32::MAX as u64,
    u32::MAX as u64,
    (1 << 62) + 1,
    i64::MAX as u64 - 63,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 63,
    u64::MAX,
];

#[test]
fn sizes_that_cannot_be_are_out_of_memory() {
    under_attack(&[], |store| {
        let mut client = connect(store);
        let mut refused = 0;
        for evict_if_full in [true, false] {
            for data_size in SIZES {
                for metadata_size in SIZES {
                    if data_size.saturating_add(metadata_size) <= CAPACITY {
                        continue;
                    }
                    let reply = client.call(&Request::Create {
                        id: ID,
                        evict_if_full,
                        data_size,
                        metadata_size,
                        device_num: 0,
                    });
                    let result = Err(ErrorCode::OutOfMemory);
                    assert_eq!(reply, Reply::Create { id: ID, result });
                    refused += 1;
                }
            }
        }
        println!("{refused} impossible sizes");
        // Nothing has been taken for them, and the id is free.
        let reply = client.call(&create(ID, 1000));
        let Reply::Create { result: Ok(_), .. } = reply else {
            panic!("there is room: {reply:?}")
        };
    });
}

#[test]
fn numbers_of_any_size_are_survived() {
    under_attack(&[], |store| {
        let mut client = connect(store);
        for num_bytes in SIZES {
            let Reply::Evict { num_bytes: evicted } = client.call(&Request::Evict { num_bytes })
            else {
                panic!("another reply than an evict's")
            };
            assert!(evicted <= CAPACITY, "{evicted}");
        }
        for timeout_ms in [i64::MIN, -2, -1, 1, i64::MAX - 1, i64::MAX] {
            // All but one of them wait for longer than this test lasts.
            let client = connect(store);
            client.send(&Request::Get {
                ids: vec![ObjectId::rand()].into(),
                timeout_ms,
            });
        }
        let_the_store_catch_up(store);
    });
}

#[test]
fn there_is_no_memory_on_other_devices() {
    under_attack(&[], |store| {
        let mut client = connect(store);
        for device_num in [1, 2, -1, i32::MIN, i32::MAX] {
            let reply = client.call(&Request::Create {
                id: ID,
                evict_if_full: true,
                data_size: 100,
                metadata_size: 0,
                device_num,
            });
            let result = Err(ErrorCode::OutOfMemory);
            assert_eq!(reply, Reply::Create { id: ID, result });
        }
        assert!(!store.client().contains(&ID).expect("the store answers"));
    });
}

#[test]
fn quotas_that_cannot_be_are_refused() {
    under_attack(&[], |store| {
        let quota = |quota_bytes| Request::SetOptions {
            client_name: "greedy".into(),
            quota_bytes,
        };
        let refused = Reply::SetOptions(Err(ErrorCode::OutOfMemory));
        let mut client = connect(store);
        for quota_bytes in [
            i64::MIN,
            i64::MIN + 1,
            -1,
            CAPACITY as i64 * 7 / 10 + 1,
            CAPACITY as i64,
            CAPACITY as i64 + 1,
            i64::MAX - 1,
            i64::MAX,
        ] {
            assert_eq!(client.call(&quota(quota_bytes)), refused, "{quota_bytes}");
        }
        let others = store.client();
        assert_eq!(debug_number(&others, "(global lru) capacity"), CAPACITY);
        // It has one, and not another.
        let accepted = Reply::SetOptions(Ok(()));
        assert_eq!(client.call(&quota(1000)), accepted);
        for quota_bytes in [1, 1000, i64::MAX] {
            assert_eq!(client.call(&quota(quota_bytes)), refused, "{quota_bytes}");
        }
        // More than all of it, and as much, again and again.
        let result = Err(ErrorCode::OutOfMemory);
        let reply = client.call(&create(ID, 1000));
        assert_eq!(reply, Reply::Create { id: ID, result });
        for _ in 0..100 {
            let object = new_object(ID, &[1; 996]);
            let evict_if_full = true;
            let reply = client.call(&Request::CreateAndSeal {
                object,
                evict_if_full,
            });
            assert_eq!(reply, Reply::CreateAndSeal(Ok(())));
            client.call(&Request::Delete(vec![ID].into()));
        }
        drop(client);
        // Everybody together cannot take more than there is to be had.
        let many: Vec<_> = (0..100)
            .map(|_| {
                let mut client = connect(store);
                let reply = client.call(&quota(CAPACITY as i64 / 10));
                (client, reply == accepted)
            })
            .collect();
        let granted = many.iter().filter(|(_, granted)| *granted).count();
        assert!((6..=7).contains(&granted), "{granted} times a tenth");
    });
}

/// Who is cut off while waiting for an object does not come to hold it, though it may still be reading
/// what it was given before.
#[test]
fn who_is_cut_off_is_given_nothing_more() {
    under_attack(&[], |store| {
        let mut attacker = connect(store);
        let created = attacker.call(&create(ID, 100));
        assert!(
            matches!(created, Reply::Create { result: Ok(_), .. }),
            "{created:?}"
        );
        attacker.send(&Request::Get {
            ids: vec![OTHER_ID].into(),
            timeout_ms: -1,
        });
        attacker.send_bytes(&[0xff; 24]).expect("the store reads");
        let socket = attacker.socket().try_clone().expect("a descriptor");
        attacker.wait_until_cut_off();
        let victim = store.client();
        victim
            .create_and_seal(OTHER_ID, b"sealed", b"")
            .expect("there is room");
        let infos = victim.list().expect("the store answers");
        let other = infos.iter().find(|info| info.id == OTHER_ID);
        assert_eq!(other.expect("it is there").ref_count, 0);
        victim.delete(&OTHER_ID).expect("the store answers");
        assert!(!victim.contains(&OTHER_ID).expect("the store answers"));
        drop(socket);
    });
}
