//! What users write: create, fill, seal, get.

use std::collections::HashMap;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use plasma_typed::{
    Create, CreateError, GetError, Key, ObjectId, PlasmaClient, PlasmaError, PlasmaObject, Sealed,
    SealedRef, TypedClient, Uninit, copy_str,
};
use tests::{StoreProcess, in_another_process, role, within};

use super::{Image, Side, TICK, Tick, connect, start};

#[test]
fn a_struct_is_created_zeroed_written_sealed_and_got() {
    let (store, client) = start(1 << 20);
    let id = ObjectId::rand();
    let mut tick: Create<Tick> = client.create::<Tick>(id).unwrap();
    assert_eq!((tick.id(), tick.key()), (id, Key::new(id)));
    assert_eq!((tick.ts_ns, tick.price, tick.side), (0, 0.0, Side::Buy));
    assert_eq!(client.get::<Tick>(id).unwrap(), None, "it is not sealed");
    assert!(!client.contains(id).unwrap());

    *tick = TICK;
    tick.price += 0.25;
    let sealed: Sealed<Tick> = tick.seal().unwrap();
    assert_eq!(sealed.price, 101.75);
    assert!(client.contains(sealed.key()).unwrap());

    let other = connect(&store);
    let same = other.get::<Tick>(id).unwrap().unwrap();
    assert_eq!(same, sealed);
    assert_eq!(same.size_bytes(), size_of::<Tick>());
    assert_eq!(same.user_meta(), b"");
}

#[test]
fn another_process_reads_what_this_one_wrote() {
    const NAME: &str = "handles::another_process_reads_what_this_one_wrote";
    if let Some((id, socket)) = role() {
        let client = TypedClient::connect(socket).unwrap();
        let key: Key<[Tick]> = id.parse().unwrap();
        let ticks = client.get(key).unwrap().unwrap();
        assert_eq!(ticks.len(), 1000);
        assert!(
            ticks
                .iter()
                .enumerate()
                .all(|(i, tick)| tick.size as usize == i)
        );
        return;
    }
    let store = StoreProcess::start(1 << 20, &[]);
    let client = TypedClient::connect(store.socket()).unwrap();
    let ticks = client
        .create_uninit_with_len::<[Tick]>(ObjectId::rand(), 1000)
        .unwrap();
    let ticks = ticks.fill_with(|i| Tick {
        size: i as u32,
        ..TICK
    });
    let key = ticks.seal().unwrap().key();
    let mut reader = in_another_process(NAME, &key.to_string(), store.socket());
    assert!(reader.wait().unwrap().success());
}

#[test]
fn memory_that_was_used_before_is_zeroed() {
    let (_store, client) = start(1 << 20);
    let size = 600_000;
    for len in [size, size / 8] {
        // There is no room for two, so the second lies where the first was.
        let id = ObjectId::rand();
        let old = client.create_uninit_with_len::<[u8]>(id, size).unwrap();
        drop(old.copy_from_slice(&vec![0xff; size]).seal().unwrap());
        client.delete(id).unwrap();
        let zeros = client.create_with_len::<[u64]>(id, len / 8).unwrap();
        assert!(zeros.iter().all(|number| *number == 0));
        let sealed = zeros.seal().unwrap();
        assert!(sealed.iter().all(|number| *number == 0));
        drop(sealed);
        client.delete(id).unwrap();
    }
    // What rounds an object's size up cannot be written by anybody, so it is cleared as well.
    let id = ObjectId::rand();
    client.put_at(id, &[0xff_u8; 64][..]).unwrap();
    client.delete(id).unwrap();
    let image = client.create_uninit_with_len::<Image>(id, 1).unwrap();
    let source = client
        .create_with_len::<Image>(ObjectId::rand(), 1)
        .unwrap();
    drop(image.copy_from(&source).seal().unwrap());
    let buffer = client.untyped().get(id, 0).unwrap().unwrap();
    assert_eq!(buffer.data(), [0; 12]);
}

#[test]
fn slices_strings_and_tails() {
    let (store, client) = start(1 << 20);
    let reader = connect(&store);
    let prices = [1.5, -2.5, f64::MAX];

    let key = client.put(&prices[..]).unwrap();
    assert_eq!(*reader.get(key).unwrap().unwrap(), prices);
    // An array is another type than a slice.
    let key = client.put(&prices).unwrap();
    assert_eq!(*reader.get(key).unwrap().unwrap(), prices);
    let as_slice = reader.get::<[f64]>(key.id());
    assert!(matches!(as_slice, Err(GetError::SchemaMismatch { .. })));

    let key = client.put("grüße").unwrap();
    assert_eq!(&*reader.get(key).unwrap().unwrap(), "grüße");
    let empty: Key<str> = client.put("").unwrap();
    assert_eq!(&*reader.get(empty).unwrap().unwrap(), "");

    for len in [0, 1, 2, 3, 4, 5, 640 * 480] {
        let id = ObjectId::rand();
        let mut image: Create<Image> = client.create_with_len(id, len).unwrap();
        assert_eq!(image.pixels.len(), len);
        image.width = 640;
        image.height = len as u32;
        image.pixels.fill(7);
        let image = image.seal().unwrap();
        let same = reader.get::<Image>(id).unwrap().unwrap();
        assert_eq!(same, image);
        assert_eq!(same.size_bytes(), (8 + len).next_multiple_of(4));

        let copy = client.put(&*same).unwrap();
        assert_eq!(*reader.get(copy).unwrap().unwrap(), *image);
    }
}

#[test]
fn what_is_not_initialised_is_written_in_every_way() {
    let (_store, client) = start(1 << 20);
    let id = || ObjectId::rand();

    let tick: Create<Tick, Uninit> = client.create_uninit(id()).unwrap();
    assert_eq!(*tick.write(TICK).seal().unwrap(), TICK);

    let tick = client.create_uninit::<Tick>(id()).unwrap();
    assert_eq!(*tick.copy_from(&TICK).seal().unwrap(), TICK);

    let squares = client.create_uninit_with_len::<[u32]>(id(), 100).unwrap();
    let squares = squares.fill_with(|i| (i * i) as u32).seal().unwrap();
    assert_eq!((squares.len(), squares[99]), (100, 9801));

    let copy = client.create_uninit_with_len::<[u32]>(id(), 100).unwrap();
    assert_eq!(copy.copy_from_slice(&squares).seal().unwrap(), squares);

    let text = client.create_uninit_with_len::<str>(id(), 5).unwrap();
    assert_eq!(&*text.copy_from("hello").seal().unwrap(), "hello");

    // What was written in place is still the object's after it becomes a value.
    let mut raw = client.create_uninit::<[u64; 4]>(id()).unwrap();
    raw.as_uninit_mut().write([1, 2, 3, 4]);
    drop(raw);
    let mut raw = client.create_uninit_with_len::<[u64]>(id(), 4).unwrap();
    assert_eq!(raw.as_uninit_mut().len(), 4);
    assert_eq!(raw.as_uninit_bytes_mut().len(), 32);
}

#[test]
fn texts_are_written_in_place() {
    #[derive(PlasmaObject, Debug)]
    #[repr(C)]
    struct Note {
        written_ns: u64,
        text: str,
    }

    let (_store, client) = start(1 << 20);
    let mut note = client.create_with_len::<Note>(ObjectId::rand(), 7).unwrap();
    note.written_ns = 5;
    copy_str(&mut note.text, "größe");
    let note = client.get(note.seal().unwrap().key()).unwrap().unwrap();
    assert_eq!((note.written_ns, &note.text), (5, "größe"));
    let mut text = client.create_with_len::<str>(ObjectId::rand(), 5).unwrap();
    let longer = std::panic::AssertUnwindSafe(|| copy_str(&mut text, "longer"));
    assert!(std::panic::catch_unwind(longer).is_err());
}

#[test]
fn objects_refer_to_others() {
    #[derive(PlasmaObject, Clone, Copy)]
    #[repr(C)]
    struct Day {
        ticks: Key<[Tick]>,
        before: ObjectId,
    }

    let (_store, client) = start(1 << 20);
    let ticks = client.put(&[TICK; 3][..]).unwrap();
    let first = client
        .put(&Day {
            ticks,
            before: ObjectId::new([0; 20]),
        })
        .unwrap();
    let day = client
        .put(&Day {
            ticks,
            before: first.id(),
        })
        .unwrap();
    let day = client.get(day).unwrap().unwrap();
    assert_eq!(client.get(day.ticks).unwrap().unwrap().len(), 3);
    let before = client.get::<Day>(day.before).unwrap().unwrap();
    assert_eq!(before.ticks, ticks);
}

#[test]
#[should_panic(expected = "another length")]
fn a_copy_of_another_length_is_a_mistake() {
    let (_store, client) = start(1 << 20);
    let prices = client
        .create_uninit_with_len::<[f64]>(ObjectId::rand(), 3)
        .unwrap();
    drop(prices.copy_from_slice(&[1.0; 4]));
}

#[test]
fn without_a_decision_an_object_is_aborted() {
    let (_store, client) = start(1 << 20);
    let id = ObjectId::rand();
    drop(client.create::<Tick>(id).unwrap());
    drop(client.create_uninit::<Tick>(id).unwrap());
    client.create::<Tick>(id).unwrap().abort().unwrap();
    client.create_uninit::<Tick>(id).unwrap().abort().unwrap();
    // A panic in what fills it is no decision either.
    let raw = client.create_uninit_with_len::<[u8]>(id, 10).unwrap();
    let filling = std::panic::AssertUnwindSafe(|| drop(raw.fill_with(|i| 9 / (5 - i as u8))));
    assert!(std::panic::catch_unwind(filling).is_err());
    assert_eq!(client.untyped().list().unwrap(), []);
    client.put_at(id, &TICK).unwrap();
}

#[test]
fn an_id_is_created_once() {
    let (_store, client) = start(1 << 20);
    let held = client.create::<Tick>(ObjectId::rand()).unwrap();
    let again = client.create::<[u8; 3]>(held.id()).unwrap_err();
    assert!(matches!(again, CreateError::AlreadyExists { id } if id == held.id()));
    let again = client.put_at(held.id(), "text").unwrap_err();
    assert!(matches!(again, CreateError::AlreadyExists { id } if id == held.id()));
}

#[test]
fn lengths_that_no_memory_has_are_refused() {
    let (_store, client) = start(1 << 20);
    let id = ObjectId::rand();
    for len in [usize::MAX, usize::MAX / 8, isize::MAX as usize / 8 + 1] {
        let refused = client.create_with_len::<[f64]>(id, len).unwrap_err();
        assert!(matches!(refused, CreateError::TooLong { len: asked, .. } if asked == len));
        let refused = client.create_uninit_with_len::<[f64]>(id, len).unwrap_err();
        assert!(matches!(refused, CreateError::TooLong { .. }));
    }
    let refused = client
        .create_with_len::<Image>(id, isize::MAX as usize - 4)
        .unwrap_err();
    assert!(matches!(refused, CreateError::TooLong { .. }));
    let refused = client.create_with_len::<[u8]>(id, 2 << 20).unwrap_err();
    assert!(matches!(
        refused,
        CreateError::Store {
            source: PlasmaError::OutOfMemory { .. },
            ..
        }
    ));
}

#[test]
fn user_metadata_comes_back() {
    let (store, client) = start(1 << 22);
    let reader = connect(&store);
    let long = vec![9; 100_000];
    for user_meta in [&b""[..], b"x", b"PLT1 of its own", &long] {
        let creator = client.creator().user_meta(user_meta);
        let keys = [
            creator.put(&TICK).unwrap(),
            creator
                .create_uninit(ObjectId::rand())
                .unwrap()
                .write(TICK)
                .seal()
                .unwrap()
                .key(),
            creator
                .create::<Tick>(ObjectId::rand())
                .unwrap()
                .seal()
                .unwrap()
                .key(),
        ];
        for key in keys {
            assert_eq!(reader.get(key).unwrap().unwrap().user_meta(), user_meta);
        }
        let text = creator.put("a tail as well").unwrap();
        let text = reader.get(text).unwrap().unwrap();
        assert_eq!((text.user_meta(), &*text), (user_meta, "a tail as well"));
        let sealed = creator
            .create_with_len::<Image>(ObjectId::rand(), 7)
            .unwrap()
            .seal()
            .unwrap();
        assert_eq!(sealed.user_meta(), user_meta);
    }
}

#[test]
fn what_must_not_evict_does_not() {
    let (_store, client) = start(1 << 20);
    let old = client.put(&vec![1_u8; 600_000][..]).unwrap();
    client.put(&vec![1_u8; 400_000][..]).unwrap();
    let gentle = client.creator().without_eviction();
    let (id, value) = (ObjectId::rand(), vec![2_u8; 100_000]);
    for refused in [
        gentle
            .create_with_len::<[u8]>(id, value.len())
            .map(drop)
            .unwrap_err(),
        gentle.put_at(id, &value[..]).map(drop).unwrap_err(),
    ] {
        assert!(matches!(
            refused,
            CreateError::Store {
                source: PlasmaError::OutOfMemory { .. },
                ..
            }
        ));
    }
    let gentle = client.untyped().without_eviction();
    let batch = gentle.create_and_seal_batch(&[(id, &value, b"")]);
    assert!(matches!(batch, Err(PlasmaError::OutOfMemory { .. })));
    assert!(client.contains(old).unwrap());
    client.put_at(id, &value[..]).unwrap();
    assert!(!client.contains(old).unwrap());
}

#[test]
fn many_are_got_and_waited_for_in_their_order() {
    let (store, client) = start(1 << 20);
    let keys: Vec<Key<u64>> = (0..10_u64).map(|i| client.put(&(i * i)).unwrap()).collect();
    let missing = ObjectId::rand();
    let reader = connect(&store);

    let found = reader.get_many(&keys).unwrap();
    assert!(
        found
            .iter()
            .flatten()
            .map(|number| **number)
            .eq((0..10).map(|i| i * i))
    );
    let ids = [keys[3].id(), missing, keys[3].id()];
    let found: Vec<Option<Sealed<u64>>> = reader.get_many(ids).unwrap();
    assert_eq!(found[0].as_deref(), Some(&9));
    assert_eq!((found[1].is_none(), found[2].as_deref()), (true, Some(&9)));

    let found = reader.wait_many(keys.clone(), Duration::ZERO).unwrap();
    assert!(
        found
            .iter()
            .map(|number| **number)
            .eq((0..10).map(|i| i * i))
    );
    let ids = [keys[0].id(), missing, keys[1].id(), ObjectId::rand()];
    let late = reader
        .wait_many::<u64>(ids, Duration::from_millis(20))
        .unwrap_err();
    assert!(matches!(late, GetError::TimedOut { id, missing: 2, .. } if id == missing_id(&ids)));

    // One that is of another type is enough for none to be returned.
    let ids = [keys[0].id(), client.put("text").unwrap().id()];
    let mixed = reader.get_many::<u64>(ids).unwrap_err();
    assert!(matches!(mixed, GetError::SchemaMismatch { id, .. } if id == ids[1]));
    let mixed = reader.wait_many::<u64>(ids, Duration::ZERO).unwrap_err();
    assert!(matches!(mixed, GetError::SchemaMismatch { id, .. } if id == ids[1]));

    assert!(
        reader
            .get_many::<u64>(Vec::<ObjectId>::new())
            .unwrap()
            .is_empty()
    );
}

fn missing_id(ids: &[ObjectId]) -> ObjectId {
    ids[1]
}

#[test]
fn waiting_ends_with_the_object_or_with_the_time() {
    within(Duration::from_secs(20), || {
        let (store, client) = start(1 << 20);
        let id = ObjectId::rand();
        for timeout in [
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::from_millis(30),
        ] {
            let late = client.wait::<Tick>(id, timeout).unwrap_err();
            assert!(
                matches!(late, GetError::TimedOut { missing: 1, .. }),
                "{late}"
            );
        }
        for timeout in [Duration::from_secs(10), Duration::MAX] {
            let waiting = client.clone();
            let waiter = thread::spawn(move || waiting.wait::<Tick>(id, timeout).unwrap());
            let other = connect(&store);
            other.put_at(id, &TICK).unwrap();
            assert_eq!(*waiter.join().unwrap(), TICK);
            client.delete(id).unwrap();
        }
    });
}

#[test]
fn keys_carry_the_type_over_a_channel() {
    let (store, client) = start(1 << 20);
    let (sender, receiver) = mpsc::channel::<Key<[f64]>>();
    let reader = connect(&store);
    let summing = thread::spawn(move || {
        let sums = receiver
            .iter()
            .map(|key| reader.get(key).unwrap().unwrap().iter().sum::<f64>());
        sums.collect::<Vec<_>>()
    });
    for i in 0..3 {
        sender
            .send(client.put(&vec![f64::from(i); 10][..]).unwrap())
            .unwrap();
    }
    drop(sender);
    assert_eq!(summing.join().unwrap(), [0.0, 10.0, 20.0]);

    let key: Key<Tick> = ObjectId::from_name("a").into();
    assert_eq!(key.to_string(), ObjectId::from_name("a").to_hex());
    assert_eq!(key.to_string().parse(), Ok(key));
    assert!(format!("{key:?}").contains("Tick"));
    assert!("nonsense".parse::<Key<Tick>>().is_err());
    let by_key = HashMap::from([(key, 1)]);
    assert_eq!(by_key[&Key::from(&ObjectId::from(&key))], 1);
    assert!(key < Key::new(ObjectId::new([0xff; 20])));
}

#[test]
fn clones_and_parts_hold_the_object() {
    let (_store, client) = start(1 << 20);
    let image = {
        let mut image = client
            .create_with_len::<Image>(ObjectId::rand(), 600_000)
            .unwrap();
        image.pixels.fill(3);
        image.seal().unwrap()
    };
    let key = image.key();
    let clone = image.clone();
    let row: SealedRef<[u8]> = clone.map(|image| &image.pixels[1000..2000]);
    let pixel = row.map(|row| &row[500]);
    assert_eq!((row.id(), pixel.id()), (key.id(), key.id()));
    drop((image, clone));

    // There is no room beside it, and it cannot go.
    for held in [row.clone().map(|row| row), row] {
        assert!(
            client
                .create_with_len::<[u8]>(ObjectId::rand(), 600_000)
                .is_err()
        );
        assert!(held.iter().all(|pixel| *pixel == 3));
    }
    let moved = thread::spawn(move || (*pixel, pixel)).join().unwrap();
    assert_eq!(moved.0, 3);
    assert!(
        client
            .create_with_len::<[u8]>(ObjectId::rand(), 600_000)
            .is_err()
    );
    drop(moved);
    client
        .create_with_len::<[u8]>(ObjectId::rand(), 600_000)
        .unwrap()
        .abort()
        .unwrap();
}

#[test]
fn handles_show_what_they_hold() {
    let (_store, client) = start(1 << 20);
    let creating = client.create::<Tick>(ObjectId::rand()).unwrap();
    assert!(format!("{creating:?}").contains(&creating.id().to_hex()));
    let text = client.put("text").unwrap();
    let text = client.get(text).unwrap().unwrap();
    assert_eq!(format!("{text} {text:?}"), "text \"text\"");
    assert_eq!(text.as_ref(), "text");
    let part = text.map(|text| &text[1..3]);
    assert_eq!(format!("{part} {part:?} {}", part.as_ref()), "ex \"ex\" ex");
    assert_eq!(part, text.map(|text| &text[1..3]));
}

#[test]
fn untyped_clients_read_the_same_bytes() {
    let (store, client) = start(1 << 20);
    let key = client.put(&TICK).unwrap();
    let untyped = PlasmaClient::builder().connect(store.socket()).unwrap();
    let buffer = untyped.get(key.id(), 0).unwrap().unwrap();
    assert_eq!(buffer.data(), bytemuck::bytes_of(&TICK));
    assert!(buffer.meta().starts_with(b"PLT1"));

    let plain = ObjectId::rand();
    client
        .untyped()
        .create_and_seal(plain, b"bytes", b"of no type")
        .unwrap();
    let error = client.get::<[u8]>(plain).unwrap_err();
    assert!(matches!(error, GetError::Untyped { id } if id == plain));
}

#[test]
fn types_that_differ_in_name_or_version_are_different() {
    #[derive(PlasmaObject, Clone, Copy)]
    #[plasma(version = 2, name = "market.Tick")]
    #[repr(C)]
    struct Tick2(Tick);

    #[derive(PlasmaObject, Clone, Copy, Debug)]
    #[repr(transparent)]
    struct Meters(f64);

    let (_store, client) = start(1 << 20);
    let id = client.put(&TICK).unwrap().id();
    assert!(matches!(
        client.get::<Tick2>(id).map(drop),
        Err(GetError::SchemaMismatch { .. })
    ));
    let id = client.put(&1.0_f64).unwrap().id();
    assert!(matches!(
        client.get::<Meters>(id),
        Err(GetError::SchemaMismatch { .. })
    ));
    assert_ne!(Tick::SCHEMA.fingerprint(), Tick2::SCHEMA.fingerprint());
}

/// What the compiler refuses of it is in `ui/typestate`.
#[test]
fn handles_go_to_other_threads() {
    fn sent<T: Send + 'static>() {}
    fn shared<T: Send + Sync + 'static>() {}
    shared::<TypedClient>();
    shared::<Sealed<Tick>>();
    shared::<Sealed<[f64]>>();
    shared::<SealedRef<str>>();
    sent::<Create<Image>>();
    sent::<Create<[Tick], Uninit>>();
    // A key holds nothing of the type.
    shared::<Key<std::cell::Cell<u8>>>();
    shared::<GetError>();
    shared::<CreateError>();
    sent::<plasma_typed::SealError<Tick>>();
}
