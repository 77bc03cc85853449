//! Objects and headers that no typed client wrote: an error, never a panic, never an invalid value.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use plasma_store::StoreHandle;
use plasma_typed::{Corruption, GetError, ObjectId, PlasmaObject, Sealed, TypedClient};
use proptest::prelude::*;
use tests::{in_another_process, role, within};

use super::{Image, Side, TICK, Tick, start};

/// Bytes of a header before the schema.
const HEADER_LEN: usize = 40;

/// Stores these bytes as an object, and gets it as a `T`.
fn get_forged<T: ?Sized + PlasmaObject>(
    client: &TypedClient,
    data: &[u8],
    meta: &[u8],
) -> Result<Sealed<T>, GetError> {
    let id = ObjectId::rand();
    client
        .untyped()
        .create_and_seal(id, data, meta)
        .expect("there is room");
    let got = catch_unwind(AssertUnwindSafe(|| client.get::<T>(id)));
    client.delete(id).expect("the store is there");
    let got = got.expect("no object can cause a panic");
    // Whatever is wrong with it, there are words for it.
    got.inspect_err(|error| assert!(!error.to_string().is_empty()))
        .map(|found| found.expect("it is there"))
}

/// Data and metadata of an object as a typed client writes it.
fn genuine<T: ?Sized + PlasmaObject>(client: &TypedClient, value: &T) -> (Vec<u8>, Vec<u8>) {
    let key = client
        .creator()
        .user_meta(b"mine")
        .put(value)
        .expect("there is room");
    let buffer = client.untyped().get(key.id(), 0);
    let buffer = buffer.expect("the store is there").expect("it was put");
    let (data, meta) = (buffer.data().to_vec(), buffer.meta().to_vec());
    drop(buffer);
    client.delete(key).expect("the store is there");
    (data, meta)
}

#[test]
fn every_bit_of_a_header_counts() {
    let (_store, client) = start(1 << 20);
    fn check<T: ?Sized + PlasmaObject>(client: &TypedClient, value: &T) {
        let (data, meta) = genuine(client, value);
        assert_eq!(
            get_forged::<T>(client, &data, &meta).unwrap().user_meta(),
            b"mine"
        );
        let mut forged = meta.clone();
        let schema_end = meta.len() - b"mine".len();
        for byte in 0..meta.len() {
            for flip in (0..8).map(|bit| 1 << bit).chain([0xff]) {
                forged[byte] ^= flip;
                let got = get_forged::<T>(client, &data, &forged);
                forged[byte] ^= flip;
                match byte {
                    0..4 => assert!(matches!(got, Err(GetError::Untyped { .. })), "byte {byte}"),
                    4..8 | 24..HEADER_LEN => {
                        assert!(matches!(got, Err(GetError::Corrupt { .. })), "byte {byte}");
                    }
                    8..24 => {
                        assert!(
                            matches!(got, Err(GetError::SchemaMismatch { .. })),
                            "byte {byte}"
                        );
                    }
                    _ if byte < schema_end => {
                        assert!(
                            matches!(got, Err(GetError::SchemaMismatch { .. })),
                            "byte {byte}"
                        );
                    }
                    // User metadata is the user's.
                    _ => assert!(got.is_ok(), "byte {byte}"),
                }
            }
        }
        for len in 0..meta.len() {
            let got = get_forged::<T>(client, &data, &meta[..len]);
            match len {
                0..4 => assert!(matches!(got, Err(GetError::Untyped { .. })), "{len} bytes"),
                _ => assert!(matches!(got, Err(GetError::Corrupt { .. })), "{len} bytes"),
            }
        }
        forged.push(0);
        assert!(matches!(
            get_forged::<T>(client, &data, &forged),
            Err(GetError::Corrupt {
                corruption: Corruption::WrongLengths { .. },
                ..
            })
        ));
    }
    check(&client, &TICK);
    check(&client, "text");
    check(&client, &[1.0, 2.0][..]);
    // Of a length that no other one is rounded up to.
    let image = client
        .create_with_len::<Image>(ObjectId::rand(), 8)
        .unwrap();
    check(&client, &*image);
}

#[test]
fn every_number_in_a_header_is_checked() {
    let (_store, client) = start(1 << 20);
    let (data, meta) = genuine(&client, &[7_u64; 9][..]);
    let with = |at: usize, bytes: &[u8]| {
        let mut forged = meta.clone();
        forged[at..at + bytes.len()].copy_from_slice(bytes);
        get_forged::<[u64]>(&client, &data, &forged)
    };
    for tail_len in [
        0,
        8,
        10,
        u64::MAX,
        u64::MAX / 8,
        u64::MAX / 8 + 1,
        1 << 61,
        1 << 63,
    ] {
        let got = with(24, &tail_len.to_le_bytes());
        let Err(GetError::Corrupt { corruption, .. }) = got else {
            panic!("{tail_len}: {got:?}");
        };
        assert!(matches!(
            corruption,
            Corruption::WrongSize { found_bytes: 72, tail_len: said, .. } if said == tail_len
        ));
    }
    for at in [32, 36] {
        for len in [0, 1, u32::MAX, u32::MAX - 1, i32::MAX as u32] {
            let got = with(at, &len.to_le_bytes());
            assert!(matches!(
                got,
                Err(GetError::Corrupt {
                    corruption: Corruption::WrongLengths { .. },
                    ..
                })
            ));
        }
    }
    // Both at once, so that their sum is right where 32 bits do not hold it.
    let both = [
        (u32::MAX).to_le_bytes(),
        (meta.len() as u32 - 39).to_le_bytes(),
    ]
    .concat();
    assert!(matches!(with(32, &both), Err(GetError::Corrupt { .. })));

    let (data, mut meta) = genuine(&client, &TICK);
    meta[24] = 1;
    let got = get_forged::<Tick>(&client, &data, &meta);
    assert!(matches!(
        got,
        Err(GetError::Corrupt {
            corruption: Corruption::UnexpectedTail { tail_len: 1 },
            ..
        })
    ));
}

#[test]
fn data_of_every_other_length_is_refused() {
    let (_store, client) = start(1 << 20);
    let (data, meta) = genuine(&client, &TICK);
    let long = [&data[..], &[0; 64]].concat();
    for len in (0..long.len()).filter(|len| *len != data.len()) {
        let got = get_forged::<Tick>(&client, &long[..len], &meta);
        assert!(matches!(
            got,
            Err(GetError::Corrupt {
                corruption: Corruption::WrongSize { expected_bytes: Some(24), found_bytes, .. },
                ..
            }) if found_bytes == len
        ));
    }
}

/// What a tick's bytes are, if they are one, by a reading of its own.
fn is_a_tick(bytes: &[u8]) -> bool {
    bytes.len() == 24 && bytes[20] <= 1 && bytes[21] <= 1
}

#[test]
fn every_bit_of_a_value_that_is_checked_counts() {
    let (_store, client) = start(1 << 20);
    let (mut data, meta) = genuine(&client, &TICK);
    for byte in 0..data.len() {
        for value in 0..=255 {
            let before = std::mem::replace(&mut data[byte], value);
            let got = get_forged::<Tick>(&client, &data, &meta);
            match got {
                Ok(tick) => assert!(is_a_tick(&data) && format!("{:?}", *tick).contains("Tick")),
                Err(GetError::InvalidValue { invalid, .. }) => {
                    assert!(!is_a_tick(&data));
                    assert_eq!(invalid.byte(), byte);
                    assert_eq!(invalid.field(), ["side", "last"][byte - 20]);
                }
                Err(other) => panic!("{other}"),
            }
            data[byte] = before;
        }
    }
}

#[test]
fn invalid_values_are_found_wherever_they_are() {
    #[derive(PlasmaObject, Clone, Copy, Debug)]
    #[repr(C)]
    struct Deep {
        header: [u32; 2],
        rows: [[Cell; 3]; 2],
    }

    #[derive(PlasmaObject, Clone, Copy, Debug)]
    #[repr(C)]
    struct Cell {
        letter: char,
        count: std::num::NonZero<u16>,
        side: Side,
        set: bool,
    }

    #[derive(PlasmaObject, Debug)]
    #[repr(C)]
    struct Text {
        len: u64,
        text: str,
    }

    let (_store, client) = start(1 << 20);
    let cell = Cell {
        letter: 'ß',
        count: std::num::NonZero::<u16>::MIN,
        side: Side::Buy,
        set: true,
    };
    let deep = Deep {
        header: [0; 2],
        rows: [[cell; 3]; 2],
    };
    let (data, meta) = genuine(&client, &[deep, deep][..]);
    // Element 1 starts at 56; in it, rows at 8, row 1 at 24 more, cell 2 at 16 more.
    let start = 56 + 8 + 24 + 16;
    for (at, bytes, field, problem) in [
        (
            0,
            &0xd800_u32.to_ne_bytes()[..],
            "letter",
            "0xd800 is no char",
        ),
        (
            0,
            &0x11_0000_u32.to_ne_bytes(),
            "letter",
            "0x110000 is no char",
        ),
        (4, &[0, 0], "count", "0 where no 0 may be"),
        (6, &[2], "side", "2 is no Side (Buy = 0, Sell = 1)"),
        (7, &[255], "set", "255 is no bool (0 or 1)"),
    ] {
        let mut forged = data.clone();
        forged[start + at..][..bytes.len()].copy_from_slice(bytes);
        let got = get_forged::<[Deep]>(&client, &forged, &meta);
        let Err(GetError::InvalidValue { invalid, .. }) = got else {
            panic!("{field}: {got:?}");
        };
        assert_eq!(invalid.field(), format!("[1].rows[1][2].{field}"));
        assert_eq!((invalid.byte(), invalid.problem()), (start + at, problem));
    }

    let (mut data, meta) = genuine(&client, "grüße");
    data[3] = b'x';
    let got = get_forged::<str>(&client, &data, &meta);
    assert!(matches!(
        got,
        Err(GetError::InvalidValue { invalid, .. }) if (invalid.field(), invalid.byte()) == ("", 2)
    ));

    let text = client.create_with_len::<Text>(ObjectId::rand(), 3).unwrap();
    let (mut data, meta) = genuine(&client, &*text);
    assert_eq!(data.len(), 16);
    data[9] = 0xff;
    let got = get_forged::<Text>(&client, &data, &meta);
    assert!(matches!(
        got,
        Err(GetError::InvalidValue { invalid, .. }) if (invalid.field(), invalid.byte()) == ("text", 9)
    ));
    data[9] = 0;
    // The bytes that round the size up are nobody's.
    data[11..].fill(0xff);
    get_forged::<Text>(&client, &data, &meta).unwrap();
}

#[test]
fn a_forged_schema_is_only_read_for_the_message() {
    let (_store, client) = start(1 << 24);
    let forged = |schema: &[u8]| {
        let meta = with_schema(schema);
        let error = get_forged::<Tick>(&client, &[0; 24], &meta).expect_err("it is forged");
        assert!(matches!(error, GetError::SchemaMismatch { .. }));
        error.to_string()
    };
    let deep = |open: &str, close: &str, depth: usize| {
        format!(
            r#"{{"endian":"little","size":24,"align":8,"type":{}"u8"{}}}"#,
            open.repeat(depth),
            close.repeat(depth)
        )
    };
    for schema in [
        &b""[..],
        b"{}",
        b"null",
        b"\xff\xfe",
        br#"{"endian":"little"}"#,
        br#"{"endian":"little","size":-1,"align":8,"type":"u8"}"#,
        br#"{"endian":"little","size":1e99,"align":8,"type":"u8"}"#,
        deep(r#"{"array":"#, r#","len":2}"#, 100_000).as_bytes(),
        deep(r#"{"slice":"#, "}", 60_000).as_bytes(),
        &vec![b'['; 2_000_000],
        &vec![b' '; 8_000_000],
    ] {
        let message = forged(schema);
        assert!(message.contains("its schema is not one"), "{message}");
    }
    let message = forged(deep(r#"{"slice":"#, "}", 30).as_bytes());
    assert!(message.contains("[[[[u8"), "{message}");
    // A schema that is right, under a fingerprint that is not its own.
    let message = forged(Tick::SCHEMA.to_json().as_bytes());
    assert!(message.contains("fingerprint"), "{message}");
    // Names are shown as they are, but for what a terminal would take for a command.
    let odd = r#"{"endian":"big","size":18446744073709551615,"align":0,"type":{"struct":"\u0000\u001b[31m`","version":4294967295,"size":0,"fields":[{"name":"","offset":18446744073709551615,"type":{"enum":"","version":0,"repr":"","variants":[{"name":"x","value":18446744073709551615},{"name":"x","value":-1.5e300}]}}]}}"#;
    let message = forged(odd.as_bytes());
    assert!(
        message.contains("big-endian") && message.contains("[31m"),
        "{message}"
    );
    assert!(!message.contains(char::is_control), "{message}");
    let turned = r#"{"endian":"little","size":24,"align":8,"type":{"enum":"a\u202e\u2066\u2028b","version":1,"repr":"u8","variants":[]}}"#;
    let message = forged(turned.as_bytes());
    assert!(
        message.contains("`a\u{fffd}\u{fffd}\u{fffd}b`"),
        "{message:?}"
    );
}

/// Metadata of no type that this program has, with such a schema.
fn with_schema(schema: &[u8]) -> Vec<u8> {
    let mut meta = b"PLT1\x01\0\0\0".to_vec();
    meta.extend([0xee; 16]);
    meta.extend(0_u64.to_le_bytes());
    meta.extend((schema.len() as u32).to_le_bytes());
    meta.extend(0_u32.to_le_bytes());
    meta.extend(schema);
    meta
}

#[test]
fn a_forged_schema_takes_little_memory_and_a_short_message() {
    const NAME: &str = "forged::a_forged_schema_takes_little_memory_and_a_short_message";
    let Some((_, socket)) = role() else {
        let (store, _client) = start(1 << 26);
        let mut reader = in_another_process(NAME, "reader", store.socket());
        within(Duration::from_secs(60), move || {
            assert!(reader.wait().unwrap().success());
        });
        return;
    };
    // All of what is nested holds the same long list, as somebody would have it who wants each
    // level to be copied.
    let client = TypedClient::connect(socket).unwrap();
    let list = ["0"; 400_000].join(",");
    let nested = format!(
        r#"{{"endian":"little","size":24,"align":8,"type":{}[{list}]{}}}"#,
        r#"{"slice":"#.repeat(100),
        "}".repeat(100),
    );
    let long = "x".repeat(900_000);
    let name = format!(
        r#"{{"endian":"little","size":24,"align":8,"type":{{"struct":"{long}","version":1,"size":24,"fields":[]}}}}"#
    );
    let fields = format!(
        r#"{{"endian":"little","size":24,"align":8,"type":{{"struct":"market.Tick","version":1,"size":24,"fields":[{{"name":"{long}","offset":0,"type":"u8"}}]}}}}"#
    );
    // Memory of its own, the store's apart: a program that runs out of it ends.
    let has = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = has.split_whitespace().nth(5).unwrap().parse().unwrap();
    let limit = 4096 * pages + (200 << 20);
    setrlimit(Resource::RLIMIT_DATA, limit, limit).unwrap();
    for schema in [nested, name, fields] {
        let got = get_forged::<Tick>(&client, &[0; 24], &with_schema(schema.as_bytes()));
        let message = got.unwrap_err().to_string();
        assert!(message.len() < 5_000, "{} bytes", message.len());
    }
}

/// One store for all cases.
static STORE: LazyLock<(StoreHandle, TypedClient)> = LazyLock::new(|| start(1 << 24));

fn client() -> &'static TypedClient {
    &STORE.1
}

/// Metadata: a genuine one with a few bytes changed, or anything at all.
fn metadata(genuine: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let len = genuine.len();
    let changed = prop::collection::vec((0..len, any::<u8>()), 0..4).prop_map(move |changes| {
        let mut meta = genuine.clone();
        for (at, byte) in changes {
            meta[at] = byte;
        }
        meta
    });
    prop_oneof![
        3 => changed,
        1 => prop::collection::vec(any::<u8>(), 0..400),
    ]
}

/// A genuine object whose data and metadata both may have been changed.
fn forged<T: ?Sized + PlasmaObject>(value: &T) -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let (data, meta) = genuine(client(), value);
    let len = data.len();
    let changed = prop::collection::vec((0..len.max(1), any::<u8>()), 0..6);
    let data = (changed, 0..3 * len + 2, prop::bool::weighted(0.2)).prop_map(
        move |(changes, new_len, resize)| {
            let mut data = data.clone();
            for (at, byte) in changes {
                if let Some(place) = data.get_mut(at) {
                    *place = byte;
                }
            }
            if resize {
                data.resize(new_len, 0xa5);
            }
            data
        },
    );
    (data, metadata(meta))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_forged_tick_is_valid_or_an_error((data, meta) in forged(&TICK)) {
        if let Ok(tick) = get_forged::<Tick>(client(), &data, &meta) {
            prop_assert!(is_a_tick(&data));
            prop_assert_eq!(bytemuck::bytes_of(&*tick), &data[..]);
        }
    }

    #[test]
    fn forged_ticks_are_valid_or_an_error((data, meta) in forged(&[TICK; 3][..])) {
        if let Ok(ticks) = get_forged::<[Tick]>(client(), &data, &meta) {
            prop_assert!(data.chunks(24).all(is_a_tick));
            prop_assert_eq!(ticks.len() * 24, data.len());
        }
    }

    #[test]
    fn a_forged_text_is_utf_8_or_an_error((data, meta) in forged("grüße, 世界")) {
        match get_forged::<str>(client(), &data, &meta) {
            Ok(text) => prop_assert_eq!(Ok(&*text), str::from_utf8(&data)),
            Err(GetError::InvalidValue { .. }) => prop_assert!(str::from_utf8(&data).is_err()),
            Err(_) => {}
        }
    }

    #[test]
    fn a_forged_image_is_as_long_as_its_data((data, meta) in forged(&*image(5))) {
        if let Ok(image) = get_forged::<Image>(client(), &data, &meta) {
            prop_assert_eq!((8 + image.pixels.len()).next_multiple_of(4), data.len());
            prop_assert_eq!(&image.pixels, &data[8..8 + image.pixels.len()]);
        }
    }
}

fn image(len: usize) -> Sealed<Image> {
    let image = client().create_with_len::<Image>(ObjectId::rand(), len);
    image
        .expect("there is room")
        .seal()
        .expect("the store is there")
}
