//! The metadata of a typed object: what it is, so that readers can tell.
//!
//! The crate's documentation describes the format byte by byte.

use std::any::TypeId;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::{PoisonError, RwLock};

use crate::error::Corruption;
use crate::object::PlasmaObject;
use crate::schema::{Schema, Writer};

const MAGIC: [u8; 4] = *b"PLT1";
const FORMAT: u16 = 1;

/// Where each part starts, in bytes.
const FORMAT_AT: usize = 4;
const FLAGS_AT: usize = 6;
const FINGERPRINT_AT: usize = 8;
const TAIL_LEN_AT: usize = 24;
const SCHEMA_LEN_AT: usize = 32;
const USER_META_LEN_AT: usize = 36;
const LEN: usize = 40;

/// Metadata that was read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header<'a> {
    pub(crate) fingerprint: u128,
    pub(crate) tail_len: u64,
    /// The schema as JSON.
    pub(crate) schema: &'a [u8],
    pub(crate) user_meta: &'a [u8],
}

/// Why metadata could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// It is not this format's at all.
    Untyped,
    Corrupt(Corruption),
}

impl<'a> Header<'a> {
    pub(crate) fn parse(meta: &'a [u8]) -> Result<Self, Unreadable> {
        if !meta.starts_with(&MAGIC) {
            return Err(Unreadable::Untyped);
        }
        let Some((header, rest)) = meta.split_first_chunk::<LEN>() else {
            return Err(Unreadable::Corrupt(Corruption::ShortHeader {
                expected_bytes: LEN,
                found_bytes: meta.len(),
            }));
        };
        let format = u16::from_le_bytes(part(header, FORMAT_AT));
        let flags = u16::from_le_bytes(part(header, FLAGS_AT));
        if (format, flags) != (FORMAT, 0) {
            return Err(Unreadable::Corrupt(Corruption::UnknownFormat {
                format,
                flags,
            }));
        }
        let schema_len = u32::from_le_bytes(part(header, SCHEMA_LEN_AT));
        let user_meta_len = u32::from_le_bytes(part(header, USER_META_LEN_AT));
        let schema_len_here = schema_len as usize;
        if u64::from(schema_len) + u64::from(user_meta_len) != rest.len() as u64 {
            return Err(Unreadable::Corrupt(Corruption::WrongLengths {
                schema_len,
                user_meta_len,
                found_bytes: rest.len(),
            }));
        }
        let (schema, user_meta) = rest.split_at_checked(schema_len_here).unwrap_or_default();
        Ok(Self {
            fingerprint: u128::from_le_bytes(part(header, FINGERPRINT_AT)),
            tail_len: u64::from_le_bytes(part(header, TAIL_LEN_AT)),
            schema,
            user_meta,
        })
    }
}

/// The `N` bytes of a header that start at `at`.
fn part<const N: usize>(header: &[u8; LEN], at: usize) -> [u8; N] {
    let part = header.get(at..).and_then(<[u8]>::first_chunk);
    part.copied().unwrap_or([0; N])
}

/// Metadata for an object of type `T`; `None` if there is more of the user's than the format holds.
#[inline]
pub(crate) fn encode<T: ?Sized + PlasmaObject>(
    tail_len: u64,
    user_meta: &[u8],
) -> Option<Cow<'static, [u8]>> {
    let user_meta_len = u32::try_from(user_meta.len()).ok()?;
    let prefix = Prefix::of::<T>().bytes;
    if tail_len == 0 && user_meta.is_empty() {
        return Some(prefix.into());
    }
    let mut meta = Vec::with_capacity(prefix.len() + user_meta.len());
    meta.extend_from_slice(prefix);
    put(&mut meta, TAIL_LEN_AT, &tail_len.to_le_bytes());
    put(&mut meta, USER_META_LEN_AT, &user_meta_len.to_le_bytes());
    meta.extend_from_slice(user_meta);
    Some(meta.into())
}

/// What all objects of a type have in front: header and schema, with a tail and user metadata of
/// length 0.
#[derive(Clone, Copy)]
pub(crate) struct Prefix {
    fingerprint: u128,
    bytes: &'static [u8],
}

impl Prefix {
    /// Longest prefix that the compiler writes, in bytes. It would take too long over those of
    /// types that are made of many others, and not like it.
    const MAX_COMPILED_LEN: usize = 4096;

    /// That of a type: there from the start, or made when it is first needed.
    #[inline]
    pub(crate) fn of<T: ?Sized + PlasmaObject>() -> Self {
        match Compiled::<T>::PREFIX {
            Some(prefix) => prefix,
            None => Self::made::<T>(),
        }
    }

    /// Whether an object is of this type: by the fingerprint, and as that may have been copied from
    /// elsewhere, by all of the schema.
    #[inline]
    pub(crate) fn is_that_of(&self, header: &Header<'_>) -> bool {
        let schema = self.bytes.get(LEN..);
        header.fingerprint == self.fingerprint && schema == Some(header.schema)
    }

    fn made<T: ?Sized + PlasmaObject>() -> Self {
        // There are as many as types, and they are needed until the program ends.
        static MADE: RwLock<BTreeMap<TypeId, Prefix>> = RwLock::new(BTreeMap::new());
        let id = TypeId::of::<T>();
        let made = MADE.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(prefix) = made.get(&id) {
            return *prefix;
        }
        drop(made);
        let mut counted = Writer::new(&mut []);
        counted.schema(T::SCHEMA);
        let mut bytes = vec![0; LEN + counted.len()];
        let fingerprint = write_prefix(&mut bytes, T::SCHEMA);
        let bytes = Vec::leak(bytes);
        let mut made = MADE.write().unwrap_or_else(PoisonError::into_inner);
        // Where two threads were at it, both did the same.
        *made.entry(id).or_insert(Self { fingerprint, bytes })
    }
}

/// What the compiler computes of a type.
struct Compiled<T: ?Sized>(PhantomData<T>);

impl<T: ?Sized + PlasmaObject> Compiled<T> {
    /// Bytes of the prefix; more than the longest, and no more is said, if it is longer.
    const LEN: usize = {
        let mut counted = Writer::up_to(Prefix::MAX_COMPILED_LEN);
        counted.schema(T::SCHEMA);
        LEN + counted.len()
    };

    const PREFIX: Option<Prefix> = if Self::LEN <= 512 {
        Some(CompiledIn::<T, 512>::prefix())
    } else if Self::LEN <= Prefix::MAX_COMPILED_LEN {
        Some(CompiledIn::<T, { Prefix::MAX_COMPILED_LEN }>::prefix())
    } else {
        None
    };
}

/// A prefix in an array, as the compiler cannot choose the length of one by the type.
struct CompiledIn<T: ?Sized, const N: usize>(PhantomData<T>);

impl<T: ?Sized + PlasmaObject, const N: usize> CompiledIn<T, N> {
    /// The fingerprint, and the bytes if there is room for them.
    const WRITTEN: &'static (u128, [u8; N]) = &{
        let mut bytes = [0; N];
        let mut fingerprint = 0;
        if Compiled::<T>::LEN <= N {
            let prefix = bytes.split_at_mut(Compiled::<T>::LEN).0;
            fingerprint = write_prefix(prefix, T::SCHEMA);
        }
        (fingerprint, bytes)
    };

    const fn prefix() -> Prefix {
        let (fingerprint, bytes) = Self::WRITTEN;
        Prefix {
            fingerprint: *fingerprint,
            bytes: bytes.split_at(Compiled::<T>::LEN).0,
        }
    }
}

/// Writes a prefix to a place of its length; the schema's fingerprint.
const fn write_prefix(prefix: &mut [u8], schema: &Schema) -> u128 {
    let (header, json) = prefix.split_at_mut(LEN);
    assert!(json.len() <= u32::MAX as usize);
    let schema_len = json.len() as u32;
    let mut writer = Writer::new(json);
    writer.schema(schema);
    let fingerprint = writer.hash();
    put(header, 0, &MAGIC);
    put(header, FORMAT_AT, &FORMAT.to_le_bytes());
    put(header, FINGERPRINT_AT, &fingerprint.to_le_bytes());
    put(header, SCHEMA_LEN_AT, &schema_len.to_le_bytes());
    fingerprint
}

const fn put(header: &mut [u8], at: usize, part: &[u8]) {
    let (_, place) = header.split_at_mut(at);
    let (place, _) = place.split_at_mut(part.len());
    place.copy_from_slice(part);
}
