//! What users read when something is wrong: all of it is in `golden/errors.txt`, to be judged.

use std::fmt::Write;
use std::time::Duration;

use plasma_typed::{ObjectId, PlasmaObject, TypedClient};

use super::formats::assert_golden;
use super::{Image, Side, TICK, Tick, start};

/// The tick of somebody who changed it without telling.
mod theirs {
    use plasma_typed::PlasmaObject;

    #[derive(PlasmaObject, Clone, Copy, Debug)]
    #[plasma(name = "market.Tick")]
    #[repr(C)]
    pub(super) struct FloatTick {
        pub(super) ts_ns: u64,
        pub(super) price: f32,
        pub(super) size: u32,
        pub(super) side: super::Side,
        pub(super) last: bool,
        pub(super) _pad: [u8; 6],
    }

    #[derive(PlasmaObject, Clone, Copy, Debug)]
    #[plasma(name = "market.Tick", version = 2)]
    #[repr(C)]
    pub(super) struct Tick2 {
        pub(super) ts_ns: u64,
        pub(super) price: f64,
        pub(super) size: u32,
        pub(super) side: Side,
        pub(super) last: bool,
        pub(super) venue: u16,
    }

    #[derive(PlasmaObject, Clone, Copy, Debug)]
    #[plasma(version = 2)]
    #[repr(u8)]
    pub(super) enum Side {
        Sell,
        Buy,
        Short,
    }

    #[derive(PlasmaObject, Clone, Copy, Debug)]
    #[plasma(name = "Side")]
    #[repr(i8)]
    pub(super) enum OtherSide {
        Buy = 1,
        Sell = -1,
    }

    #[derive(PlasmaObject, Clone, Copy, Debug)]
    #[repr(C)]
    pub(super) struct Quote {
        pub(super) bid: f64,
        pub(super) ask: f64,
        pub(super) venues: [u16; 3],
        pub(super) kind: u16,
    }
}

#[test]
fn every_error_reads_well() {
    let (_store, client) = start(1 << 20);
    let mut text = String::new();
    let mut show = |title: &str, error: &dyn std::error::Error| {
        writeln!(text, "{title}\n    {error}").expect("memory");
        assert!(!error.to_string().contains('\n'));
    };
    let id = ObjectId::from_name("an object");
    let put = |value: Tick| {
        client.delete(id).expect("the store is there");
        client.put_at(id, &value).expect("there is room");
    };
    fn get<T: PlasmaObject>(client: &TypedClient) -> plasma_typed::GetError {
        let id = ObjectId::from_name("an object");
        client.get::<T>(id).map(drop).expect_err("it is no T")
    }

    put(TICK);
    show(
        "a field of another type, as seen by who expects the old one",
        &{
            let float = theirs::FloatTick {
                ts_ns: 0,
                price: 0.0,
                size: 0,
                side: Side::Buy,
                last: false,
                _pad: [0; 6],
            };
            client.delete(id).unwrap();
            client.put_at(id, &float).unwrap();
            get::<Tick>(&client)
        },
    );
    put(TICK);
    show(
        "the same, by who expects the new one",
        &get::<theirs::FloatTick>(&client),
    );
    show("another version", &get::<theirs::Tick2>(&client));
    show("another type", &get::<theirs::Quote>(&client));
    show("a number", &get::<u64>(&client));
    show("a slice", &client.get::<[Tick]>(id).map(drop).unwrap_err());
    show("a text", &client.get::<str>(id).map(drop).unwrap_err());
    client.delete(id).unwrap();
    client.put_at(id, &Side::Buy).unwrap();
    show(
        "an enum with other numbers",
        &get::<theirs::OtherSide>(&client),
    );
    client.delete(id).unwrap();
    client.put_at(id, &[1.5_f32; 3]).unwrap();
    show("an array of another length", &get::<[f32; 4]>(&client));
    show("an array of another type", &get::<[f64; 3]>(&client));
    client.delete(id).unwrap();
    client.put_at(id, &[TICK; 2]).unwrap();
    show(
        "an array of another struct",
        &get::<[theirs::Quote; 2]>(&client),
    );

    client.delete(id).unwrap();
    client.untyped().create_and_seal(id, b"bytes", b"").unwrap();
    show("an object without a type", &get::<Tick>(&client));

    let mut forge = |title: &str, forge: &dyn Fn(&mut Vec<u8>, &mut Vec<u8>)| {
        put(TICK);
        let buffer = client.untyped().get(id, 0).unwrap().unwrap();
        let (mut data, mut meta) = (buffer.data().to_vec(), buffer.meta().to_vec());
        drop(buffer);
        client.delete(id).unwrap();
        forge(&mut data, &mut meta);
        client.untyped().create_and_seal(id, &data, &meta).unwrap();
        show(title, &get::<Tick>(&client));
    };
    forge("a header that ends too early", &|_, meta| meta.truncate(20));
    forge("a header of a later format", &|_, meta| meta[4] = 2);
    forge("a header with other lengths", &|_, meta| meta[36] = 9);
    forge("a tail where there is none", &|_, meta| meta[24] = 9);
    forge("too little data", &|data, _| data.truncate(17));
    forge("no variant", &|data, _| data[20] = 7);
    forge("no bool", &|data, _| data[21] = 7);
    forge("a schema that cannot be read", &|_, meta| {
        meta[8] ^= 1;
        meta[45] = 0xff;
    });
    forge("a fingerprint that is not the schema's", &|_, meta| {
        meta[8] ^= 1;
    });
    client.delete(id).unwrap();
    let meta = {
        let image = client
            .create_with_len::<Image>(ObjectId::rand(), 640 * 480)
            .unwrap();
        let image = image.seal().unwrap();
        let buffer = client.untyped().get(image.id(), 0).unwrap().unwrap();
        buffer.meta().to_vec()
    };
    client
        .untyped()
        .create_and_seal(id, &[0; 3000], &meta)
        .unwrap();
    show(
        "too little data for its tail",
        &client.get::<Image>(id).map(drop).unwrap_err(),
    );

    show("nothing in time", &{
        let timeout = Duration::from_millis(20);
        let id = ObjectId::from_name("nothing");
        client.wait::<Tick>(id, timeout).map(drop).unwrap_err()
    });
    show("several not in time", &{
        let ids = ["nothing", "nothing else", "nothing more"].map(ObjectId::from_name);
        let timeout = Duration::from_millis(20);
        client
            .wait_many::<Tick>(ids, timeout)
            .map(drop)
            .unwrap_err()
    });

    show("an id twice", &client.put_at(id, "twice").unwrap_err());
    let id = ObjectId::from_name("a large object");
    show("an object larger than the store", &{
        client.create_with_len::<[f64]>(id, 1 << 20).unwrap_err()
    });
    show("an object larger than any memory", &{
        client.create_with_len::<[f64]>(id, usize::MAX).unwrap_err()
    });
    let held = client
        .create_with_len::<[u8]>(ObjectId::rand(), 700_000)
        .unwrap();
    show(
        "a full store",
        &client.create_with_len::<[u8]>(id, 700_000).unwrap_err(),
    );
    drop(held);

    let (store, client) = start(1 << 20);
    let tick = client.create::<Tick>(id).unwrap();
    store.shutdown().unwrap();
    show("a seal without a store", &tick.seal().unwrap_err());
    show("a get without a store", &get::<Tick>(&client));
    show(
        "a put without a store",
        &client.put_at(id, &TICK).unwrap_err(),
    );
    assert_golden("errors.txt", &text);
}

/// What is too long for a line is cut, and can be had in full.
#[test]
fn a_mismatch_tells_all_of_it_when_asked() {
    let (_store, client) = start(1 << 20);
    let id = client.put(&TICK).unwrap().id();
    let error = client.get::<theirs::FloatTick>(id).map(drop).unwrap_err();
    let plasma_typed::GetError::SchemaMismatch { mismatch, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(mismatch.expected(), theirs::FloatTick::SCHEMA);
    assert_eq!(mismatch.found(), Some(Tick::SCHEMA.to_string()));
    let differences = mismatch.differences();
    assert_eq!(differences.len(), 5, "{differences:?}");
}
