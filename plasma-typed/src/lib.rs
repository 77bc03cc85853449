//! Typed, immutable, zero-copy objects in a Plasma store, checked by the compiler.
//!
//! A process creates an object in shared memory, writes it as the struct that it is, and seals it;
//! from then on every process on the machine reads it where it lies, as a `&T`, without a copy and
//! without `unsafe`. Writing after the seal, reading before the first write, or storing what cannot
//! be shared does not compile.
//!
//! ```
//! use plasma_store::Store;
//! use plasma_typed::{Create, ObjectId, PlasmaObject, Sealed, TypedClient};
//!
//! #[derive(PlasmaObject, Clone, Copy, Debug, PartialEq)]
//! #[repr(C)]
//! struct Tick {
//!     ts_ns: u64,
//!     price: f64,
//!     size: u32,
//!     side: Side,
//!     _pad: [u8; 3],
//! }
//!
//! #[derive(PlasmaObject, Clone, Copy, Debug, PartialEq)]
//! #[repr(u8)]
//! enum Side {
//!     Buy,
//!     Sell,
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = Store::builder().capacity(1 << 20).spawn()?;
//! let client = TypedClient::connect(store.socket())?;
//! let id = ObjectId::from_name("ticks/latest");
//!
//! let mut tick: Create<Tick> = client.create(id)?; // zeroed, in shared memory
//! tick.price = 101.5;
//! tick.side = Side::Sell;
//! let tick: Sealed<Tick> = tick.seal()?; // tick.price = 102.0 no longer compiles
//!
//! // In this process or in any other:
//! let same = client.get::<Tick>(id)?.ok_or("nobody sealed it")?;
//! assert_eq!(same.price, 101.5);
//! assert_eq!(same, tick);
//! # Ok(())
//! # }
//! ```
//!
//! # The states of an object
//!
//! ```text
//!   create, create_with_len                           create_uninit, create_uninit_with_len
//!             |                                                         |
//!             v                 write, fill_with, copy_from…            v
//!     +---------------+  <-------------------------------------  +-------------------+
//!     |  Create<T>    |                                          | Create<T, Uninit> |
//!     |  &T, &mut T   |                                          | neither           |
//!     +---------------+                                          +-------------------+
//!       |           |                                                     |
//!       | seal      | abort, drop                             abort, drop |
//!       v           v                                                     v
//!  +-----------+   as if it had never been created            as if it had never been created
//!  | Sealed<T> |
//!  | &T        |  <--- get, wait: in any process; put: at once
//!  +-----------+
//!    |       | map
//!    |       v
//!    |   SealedRef<U>: a part, which keeps all of it held
//!    v
//!  dropped, with all clones and parts: the store may evict it
//! ```
//!
//! Each state is a type, and each arrow consumes the handle it starts from. A [`Create`] is one
//! owner's: it cannot be cloned. A [`Sealed`] is anybody's: clones cost a count.
//!
//! # What can be an object
//!
//! See [`PlasmaObject`]. The derive refuses the rest, and says what to do instead. Its attributes:
//!
//! - `#[plasma(name = "market.Tick", version = 2)]`: the identity under which readers know the
//!   type; without it, the name in the source and version 1. Raise the version when the meaning
//!   changes and the layout does not (a change of layout is noticed without).
//! - `#[plasma(crate = "path")]`: where this crate is, if it has another name in yours.
//!
//! Derived types of a fixed size also implement [`bytemuck`]'s `CheckedBitPattern`, `Zeroable` where
//! zeros are a value, and `NoUninit` unless they are generic (a generic one that is transparent does),
//! so they work with its functions; do not derive those a second time.
//!
//! Padding is the first thing that the derive finds in many structs. Fill it with a field (`_pad: [u8;
//! 3]`), or order the fields from the largest to the smallest.
//!
//! [`bytemuck`]: https://docs.rs/bytemuck
//!
//! # Type identity
//!
//! [`PlasmaObject::SCHEMA`] is a type's name, version and layout as a value. Its
//! [`fingerprint`](Schema::fingerprint) is stored with each object, and [`TypedClient::get`]
//! compares it: that is all a get costs where every bit pattern is a value. Where not (`bool`,
//! `char`, `NonZero`, enums, `str`), it also looks at these bytes. On a mismatch the stored schema
//! says what differs: [`GetError::SchemaMismatch`]. The modules in which types are declared do not
//! count, nor does the program, nor what leaves no trace in the layout: the parameter of a
//! `PhantomData`, a const parameter that no array has for its length. Types that differ in nothing
//! else are the same to every reader: give them names that are not.
//!
//! # Trust
//!
//! A `&T` promises that nobody writes what it points to. For memory that processes share, four
//! things make that so:
//!
//! - Until an object is sealed, the store tells nobody but its creator where it is; from then on
//!   its creator has no way to write it, also where it was not told whether the seal went through.
//! - The store reuses an object's memory only when nobody holds the object any more. It goes on
//!   holding for a client that it has cut off, until that hangs up; and this client does not hang up
//!   before the last of its handles is dropped, whatever becomes of the connection.
//! - This client maps sealed objects read-only. A stray write through a reference to one is a fault
//!   in the process that made it.
//! - Everything that came from outside is checked before there is a reference: the header, sizes,
//!   alignment, and every byte that could be an invalid value. No content can cause a panic or
//!   undefined behaviour *by what it is when it is checked*.
//!
//! It has to be this project's store, or one that keeps the second of these rules: Arrow's forgets
//! what a client holds as soon as it ends its connection.
//!
//! What this does not cover is a process that writes to memory *on purpose*, after it has sealed an
//! object, through a mapping of its own. Whoever may connect to a store could do so; such a process
//! is to be trusted, or kept out (the socket's permissions are its owner's alone, unless opened).
//! That is the same contract as for a memory-mapped file or an Arrow buffer in Plasma.
//!
//! # The metadata of typed objects
//!
//! An object's data is the value, in the machine's byte order, as C lays it out. Its metadata says
//! what it is, so that a program in any language can read it without this crate
//! (`examples/python` does). All integers here are little-endian; version 1 is
//!
//! | byte | length | what |
//! |---|---|---|
//! | 0 | 4 | `PLT1` |
//! | 4 | 2 | format: 1 |
//! | 6 | 2 | flags: 0. A reader has to refuse what it does not know |
//! | 8 | 16 | fingerprint: the FNV-1a hash, 128 bits, of the schema's bytes |
//! | 24 | 8 | number of elements in the tail; 0 for a type that has none |
//! | 32 | 4 | length of the schema, *s* |
//! | 36 | 4 | length of the user metadata, *u* |
//! | 40 | *s* | the schema: JSON, UTF-8, without white space |
//! | 40 + *s* | *u* | the user metadata: whatever the creator wanted to add |
//!
//! The schema is `{"endian":E,"size":N,"align":N,"type":T}`. `endian`, `"little"` or `"big"`, is the
//! data's byte order. `size` is the number of bytes before the tail, if there is one, and of all
//! bytes if not; with a tail, the data has `size` + elements × size of an element, rounded up to
//! `align`. A type *T* is one of
//!
//! - `"u8"`, `"u16"`, … `"i128"`, `"f32"`, `"f64"`, `"bool"` (a byte, 0 or 1), `"char"` (its code,
//!   4 bytes), `"NonZeroU8"`, … `"NonZeroI128"`
//! - `{"array":T,"len":N}`
//! - `{"struct":NAME,"version":N,"size":N,"fields":[{"name":NAME,"offset":N,"type":T},…]}`
//! - `{"enum":NAME,"version":N,"repr":"u8","variants":[{"name":NAME,"value":N},…]}`
//! - and as a tail, for the whole type or the last field of the outermost struct, `{"slice":T}` or
//!   `"str"` (elements are bytes of UTF-8)
//!
//! This format is stable: a later one has another number, and this crate will go on reading this
//! one.
//!
//! # Cost
//!
//! Over the untyped call, a get or put of a fixed-size type costs some tens of nanoseconds, whatever
//! its size, where every bit pattern is a value; where not, the bytes that have to be checked are
//! read. [`create`](TypedClient::create) writes zeros, as the memory is not new;
//! [`create_uninit`](TypedClient::create_uninit) does not.
//!
//! Every object carries its schema: some hundred bytes for a struct of a few fields, and as much
//! again for each field that is a struct.

// What a peer sends must never end this process: nothing here panics on what it has not made.
#![deny(
    clippy::expect_used,
    clippy::get_unwrap,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::todo,
    clippy::unimplemented,
    clippy::unreachable,
    clippy::unwrap_used
)]

mod client;
mod create;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
#[allow(
    clippy::expect_used,
    unused_qualifications,
    reason = "the derive says where it is; it panics where something is amiss, which is what it is for"
)]
pub mod fuzzing;
mod header;
mod key;
mod memory;
mod object;
mod scalars;
pub mod schema;
mod sealed;

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;

pub use client::{Creator, TypedClient};
pub use create::{Create, Init, SealError, Uninit, Written};
pub use error::{Corruption, CreateError, GetError, InvalidBytes, SchemaMismatch};
pub use key::Key;
pub use memory::copy_str;
pub use object::{FixedLen, PlasmaObject, VariableLen, ZeroValid};
pub use plasma_core::{self, ObjectId, PlasmaClient, PlasmaError};
pub use plasma_derive::PlasmaObject;
pub use schema::Schema;
pub use sealed::{Sealed, SealedRef};
