//! What is stored must never change unnoticed: every byte of it stands in `golden/`.
//!
//! Where a change is meant, `PLASMA_BLESS=1 cargo test -p tests --test typed` writes the files anew.

use std::fmt::Write;
use std::marker::PhantomData;
use std::num::NonZero;
use std::path::Path;

use plasma_typed::{ObjectId, PlasmaObject, Schema};

use super::{Image, Side, TICK, Tick, start};

/// Compares with `golden/NAME`, or writes it.
pub(crate) fn assert_golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(name);
    if std::env::var_os("PLASMA_BLESS").is_some() {
        std::fs::write(&path, text).expect("the golden file can be written");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == text,
        "{} says otherwise; this is now:\n{text}",
        path.display()
    );
}

/// A hexadecimal dump of sixteen bytes a line, with what can be read.
fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (line, bytes) in bytes.chunks(16).enumerate() {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let readable: String = bytes
            .iter()
            .map(|byte| {
                if byte.is_ascii_graphic() {
                    char::from(*byte)
                } else {
                    '.'
                }
            })
            .collect();
        writeln!(text, "{:04x}  {:<47}  {readable}", 16 * line, hex.join(" ")).expect("memory");
    }
    text
}

#[test]
#[cfg(target_endian = "little")]
fn objects_are_stored_byte_for_byte_as_documented() {
    let (_store, client) = start(1 << 20);
    let mut text = String::new();
    let mut show = |title: &str, id: ObjectId| {
        let buffer = client.untyped().get(id, 0).unwrap().unwrap();
        let (data, meta) = (dump(buffer.data()), dump(buffer.meta()));
        writeln!(text, "{title}: data\n{data}{title}: metadata\n{meta}").unwrap();
    };
    show("a struct", client.put(&TICK).unwrap().id());
    show(
        "a slice",
        client.put(&[1.5_f32, -1.5, 0.0][..]).unwrap().id(),
    );
    show("a text with user metadata", {
        let creator = client.creator().user_meta(b"user metadata");
        creator.put("grüße").unwrap().id()
    });
    show("a struct with a tail", {
        let mut image = client
            .create_with_len::<Image>(ObjectId::rand(), 5)
            .unwrap();
        (image.width, image.height) = (5, 1);
        image.pixels.copy_from_slice(b"abcde");
        image.seal().unwrap().id()
    });
    assert_golden("objects.txt", &text);
}

/// One of each.
#[derive(PlasmaObject, Clone, Copy)]
#[plasma(name = "every.kind", version = 7)]
#[repr(C, align(16))]
struct EveryKind {
    u128: u128,
    i128: i128,
    u64: u64,
    i64: i64,
    f64: f64,
    non_zero_u64: NonZero<u64>,
    u32: u32,
    i32: i32,
    f32: f32,
    char: char,
    non_zero_i32: NonZero<i32>,
    u16: u16,
    i16: i16,
    u8: u8,
    i8: i8,
    bool: bool,
    non_zero_u8: NonZero<u8>,
    side: Side,
    r#type: [u8; 3],
    matrix: [[f32; 2]; 4],
    pairs: [Pair<u64>; 2],
    nothing: PhantomData<String>,
}

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Pair<T>(T, T);

#[derive(PlasmaObject, Clone, Copy)]
#[repr(i16)]
#[plasma(name = "größe \"x\"")]
enum Level {
    Low = -300,
    Middle,
    High = 0x7fff,
}

#[derive(PlasmaObject, Clone, Copy)]
#[repr(u64)]
enum Wide {
    Zero,
    Most = u64::MAX,
}

#[derive(PlasmaObject, Clone, Copy)]
#[repr(transparent)]
struct Meters(f64);

#[derive(PlasmaObject, Clone, Copy)]
#[repr(C)]
struct Empty {}

#[derive(PlasmaObject)]
#[repr(C)]
struct Log {
    started_ns: u64,
    text: str,
}

/// Every schema whose fingerprint is pinned.
const SCHEMAS: &[&Schema] = &[
    u8::SCHEMA,
    <[f64]>::SCHEMA,
    <[f64; 3]>::SCHEMA,
    str::SCHEMA,
    Tick::SCHEMA,
    Side::SCHEMA,
    Level::SCHEMA,
    Wide::SCHEMA,
    Meters::SCHEMA,
    Empty::SCHEMA,
    Pair::<Meters>::SCHEMA,
    Image::SCHEMA,
    Log::SCHEMA,
    <[Tick]>::SCHEMA,
    EveryKind::SCHEMA,
];

#[test]
#[cfg(target_endian = "little")]
fn schemas_and_fingerprints_stay() {
    let mut text = String::new();
    for schema in SCHEMAS {
        let (fingerprint, json, dtype) =
            (schema.fingerprint(), schema.to_json(), schema.numpy_dtype());
        writeln!(
            text,
            "{schema}\nfingerprint {fingerprint:032x}\n{json}\n{dtype}\n"
        )
        .unwrap();
    }
    assert_golden("schemas.txt", &text);
}

#[test]
fn fingerprints_tell_all_of_them_apart() {
    let mut fingerprints: Vec<u128> = SCHEMAS.iter().map(|schema| schema.fingerprint()).collect();
    fingerprints.sort_unstable();
    fingerprints.dedup();
    assert_eq!(fingerprints.len(), SCHEMAS.len());
}

#[test]
fn a_fingerprint_is_the_hash_of_the_json_form() {
    for schema in SCHEMAS {
        let hash = schema.to_json().bytes().fold(
            0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128,
            |hash, byte| (hash ^ u128::from(byte)).wrapping_mul((1 << 88) + 0x13b),
        );
        assert_eq!(schema.fingerprint(), hash);
    }
    // Computed by the compiler, too.
    const _: () = assert!(Tick::SCHEMA.fingerprint() != Side::SCHEMA.fingerprint());
}

/// What a type is does not depend on where it is declared.
#[test]
fn a_type_is_the_same_in_another_module() {
    mod elsewhere {
        #[derive(plasma_typed::PlasmaObject, Clone, Copy)]
        #[repr(u8)]
        pub(super) enum Side {
            Buy,
            Sell,
        }
    }
    assert_eq!(elsewhere::Side::SCHEMA, Side::SCHEMA);
    assert_eq!(
        [elsewhere::Side::Buy as u8, elsewhere::Side::Sell as u8],
        [0, 1]
    );
}

#[test]
fn a_schema_longer_than_what_the_compiler_writes_is_stored_as_well() {
    macro_rules! long {
        ($($field:ident)*) => {
            #[derive(PlasmaObject, Clone, Copy, Default)]
            #[repr(C)]
            struct Long { $($field: u64,)* }
        };
    }
    long! {
        field_with_a_name_that_is_so_long_that_a_few_of_them_fill_a_header_of_some_kilobytes_01
        field_with_a_name_that_is_so_long_that_a_few_of_them_fill_a_header_of_some_kilobytes_02
        field_with_a_name_that_is_so_long_that_a_few_of_them_fill_a_header_of_some_kilobytes_03
    }

    #[derive(PlasmaObject, Clone, Copy, Default)]
    #[repr(C)]
    struct Longer {
        a: Long,
        b: Long,
        c: Long,
        d: Long,
        e: Long,
        f: Long,
        g: Long,
        h: Long,
        i: Long,
        j: Long,
    }

    /// With everything in it written out, its schema takes some hundred thousand bytes.
    #[derive(PlasmaObject, Clone, Copy, Default)]
    #[repr(C)]
    struct Longest(
        [[Longer; 4]; 2],
        Longer,
        Longer,
        Longer,
        Longer,
        Longer,
        Longest2,
        Longest2,
    );

    #[derive(PlasmaObject, Clone, Copy, Default)]
    #[repr(C)]
    struct Longest2(
        Longer,
        Longer,
        Longer,
        Longer,
        Longer,
        Longer,
        Longer,
        Longer,
        Longer,
        Longer,
    );

    let (_store, client) = start(1 << 20);
    assert!(Longest::SCHEMA.to_json().len() > 100_000);
    let key = client.put(&Longest::default()).unwrap();
    assert!(client.get(key).unwrap().is_some());
    assert!(client.get::<Longer>(key.id()).is_err());
    assert!(Long::SCHEMA.to_json().len() < 512 && Longer::SCHEMA.to_json().len() > 4096);
    for user_meta in [&b""[..], b"more"] {
        let key = client
            .creator()
            .user_meta(user_meta)
            .put(&Longer::default())
            .unwrap();
        assert_eq!(client.get(key).unwrap().unwrap().user_meta(), user_meta);
        let buffer = client.untyped().get(key.id(), 0).unwrap().unwrap();
        let json = Longer::SCHEMA.to_json();
        assert_eq!(&buffer.meta()[40..][..json.len()], json.as_bytes());
    }
}
