//! What can go wrong with typed objects.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use plasma_core::{ObjectId, PlasmaError};

use crate::schema::{Schema, Stored};

/// How many differences between two schemas a message names.
const MAX_DIFFERENCES: usize = 4;

/// Longest part of a message that somebody else wrote, in characters.
const MAX_PART: usize = 300;

/// Why an object could not be created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// An object with this id is there already, sealed or still being written.
    #[error(
        "object {id} exists already, sealed or still being written: delete it, or choose \
         another id"
    )]
    AlreadyExists {
        /// The id that was to be created.
        id: ObjectId,
    },
    /// No memory can hold a value of this length.
    #[error(
        "object {id} would have {len} elements of {element_bytes} bytes: no memory is so large"
    )]
    TooLong {
        /// The id that was to be created.
        id: ObjectId,
        /// Elements asked for.
        len: usize,
        /// Bytes of one element.
        element_bytes: usize,
    },
    /// User metadata has at most 4 GiB.
    #[error("object {id} would have {len} bytes of user metadata, which has 4 GiB at most")]
    UserMetaTooLong {
        /// The id that was to be created.
        id: ObjectId,
        /// Bytes of user metadata.
        len: usize,
    },
    /// The store refused, or the connection failed.
    #[error("object {id} was not created: {source}")]
    Store {
        /// The id that was to be created.
        id: ObjectId,
        /// What the store or the connection said.
        source: PlasmaError,
    },
}

impl CreateError {
    pub(crate) fn store(id: ObjectId, source: PlasmaError) -> Self {
        match source {
            PlasmaError::AlreadyExists => Self::AlreadyExists { id },
            source => Self::Store { id, source },
        }
    }
}

/// Why an object could not be had as a value of the type asked for.
///
/// Nothing that is in an object or in its metadata can cause a panic: it is one of these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GetError {
    /// It was not sealed in time.
    #[error("{}", timed_out(id, *missing, *timeout))]
    TimedOut {
        /// The first id that was waited for in vain.
        id: ObjectId,
        /// How many were waited for in vain.
        missing: usize,
        /// How long.
        timeout: Duration,
    },
    /// It is not a typed object: an untyped client made it.
    #[error(
        "object {id} has no type, as it was not made by a typed client: read its bytes with \
         `untyped().get`"
    )]
    Untyped {
        /// The object.
        id: ObjectId,
    },
    /// It is of another type than the one asked for, or of another version of it.
    #[error("object {id} {mismatch}")]
    SchemaMismatch {
        /// The object.
        id: ObjectId,
        /// What it holds, and how that differs from what was expected.
        mismatch: Box<SchemaMismatch>,
    },
    /// Its metadata or its size are not what a typed client writes.
    #[error("object {id} is corrupt: {corruption}")]
    Corrupt {
        /// The object.
        id: ObjectId,
        /// What is wrong with it.
        corruption: Corruption,
    },
    /// Some of its bytes are no value of their type: a `bool` that is neither 0 nor 1, a number
    /// that stands for no variant, text that is no UTF-8.
    #[error("object {id} holds no valid {type_name}: {invalid}")]
    InvalidValue {
        /// The object.
        id: ObjectId,
        /// The type that was asked for.
        type_name: String,
        /// Which of its bytes.
        invalid: InvalidBytes,
    },
    /// The connection failed.
    #[error(transparent)]
    Store(#[from] PlasmaError),
}

fn timed_out(id: &ObjectId, missing: usize, timeout: Duration) -> String {
    match missing {
        0 | 1 => format!("object {id} was not sealed within {timeout:?}"),
        _ => format!(
            "object {id} and {} more were not sealed within {timeout:?}",
            missing - 1
        ),
    }
}

/// An object that is of another type than the one asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaMismatch {
    found: Option<Stored>,
    expected: Schema,
}

impl SchemaMismatch {
    pub(crate) fn new(found: &[u8], expected: &Schema) -> Self {
        Self {
            found: Stored::parse(found),
            expected: *expected,
        }
    }

    /// The type that was asked for.
    pub fn expected(&self) -> &Schema {
        &self.expected
    }

    /// What the object holds, with all its fields, for a person to read; `None` if its schema is
    /// not one that this version understands.
    pub fn found(&self) -> Option<String> {
        self.found.as_ref().map(Stored::to_string)
    }

    /// In what they differ, one entry for each difference. Empty if their names differ, or nothing
    /// but their versions.
    pub fn differences(&self) -> Vec<String> {
        let expected = Stored::from(&self.expected);
        let found = self.found.as_ref();
        found.map_or_else(Vec::new, |found| found.differences(&expected))
    }
}

impl fmt::Display for SchemaMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expected = Stored::from(&self.expected);
        let Some(found) = &self.found else {
            return write!(
                f,
                "is not {}: its schema is not one that this version understands",
                expected.title()
            );
        };
        write!(f, "holds {}", cut(&found.title()))?;
        if found.title() != expected.title() {
            write!(f, ", expected {}", expected.title())?;
        }
        let differences = found.differences(&expected);
        for (index, difference) in differences.iter().take(MAX_DIFFERENCES).enumerate() {
            let separator = if index == 0 { ": " } else { "; " };
            write!(f, "{separator}{}", cut(difference))?;
        }
        match differences.len() {
            0 if *found == expected => {
                f.write_str(", but its fingerprint is another than that schema's")
            }
            more if more > MAX_DIFFERENCES => {
                write!(f, "; and {} more", more - MAX_DIFFERENCES)
            }
            _ => Ok(()),
        }
    }
}

/// As much of a text as belongs in a message; an object can hold names of any length.
fn cut(text: &str) -> Cow<'_, str> {
    if text.chars().nth(MAX_PART).is_none() {
        return text.into();
    }
    let start: String = text.chars().take(MAX_PART).collect();
    format!("{start}…").into()
}

/// What is wrong with an object that claims to be typed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Corruption {
    /// The metadata ends before the header does.
    #[error("its header takes {expected_bytes} bytes, and its metadata has {found_bytes}")]
    ShortHeader {
        /// Bytes of a header.
        expected_bytes: usize,
        /// Bytes of metadata that are there.
        found_bytes: usize,
    },
    /// It was written by a later version of this library, or by something else.
    #[error(
        "its header has format {format} and flags {flags:#x}, this version reads format 1 \
         without flags"
    )]
    UnknownFormat {
        /// The header's format.
        format: u16,
        /// The header's flags.
        flags: u16,
    },
    /// Schema and user metadata are not as long as the header says.
    #[error(
        "its header announces {schema_len} bytes of schema and {user_meta_len} of user metadata, \
         and {found_bytes} follow it"
    )]
    WrongLengths {
        /// Bytes of schema, by the header.
        schema_len: u32,
        /// Bytes of user metadata, by the header.
        user_meta_len: u32,
        /// Bytes that follow the header.
        found_bytes: usize,
    },
    /// The header gives a length to a type that has none.
    #[error("its header announces {tail_len} elements, and its type has no tail")]
    UnexpectedTail {
        /// Elements of the tail, by the header.
        tail_len: u64,
    },
    /// The data is longer or shorter than the header says.
    #[error("{}", wrong_size(*expected_bytes, *found_bytes, *tail_len))]
    WrongSize {
        /// Bytes that the type takes; `None` if there is no so large number.
        expected_bytes: Option<usize>,
        /// Bytes of data that are there.
        found_bytes: usize,
        /// Elements of the tail, by the header.
        tail_len: u64,
    },
    /// The data does not start where such values may.
    #[error("its data is at address {address:#x}, and has to be at a multiple of {align}")]
    Misaligned {
        /// Where the data is.
        address: usize,
        /// Of what that has to be a multiple.
        align: usize,
    },
}

fn wrong_size(expected_bytes: Option<usize>, found_bytes: usize, tail_len: u64) -> String {
    let tail = match tail_len {
        0 => String::new(),
        _ => format!(" with a tail of {tail_len} elements"),
    };
    match expected_bytes {
        Some(expected) => {
            format!("its data has {found_bytes} bytes, and a value{tail} takes {expected}")
        }
        None => format!("its data has {found_bytes} bytes, and no memory holds a value{tail}"),
    }
}

/// Bytes that are no value of their type, and where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidBytes {
    field: String,
    byte: usize,
    problem: Cow<'static, str>,
}

impl InvalidBytes {
    /// Bytes at the start of a value; the problem continues "there is …".
    #[doc(hidden)]
    pub fn new(problem: impl Into<Cow<'static, str>>) -> Self {
        Self {
            field: String::new(),
            byte: 0,
            problem: problem.into(),
        }
    }

    /// The same `bytes` further on.
    pub(crate) fn at(mut self, bytes: usize) -> Self {
        self.byte += bytes;
        self
    }

    /// The same, seen from the struct that has it in a field.
    pub(crate) fn in_field(mut self, name: &str, offset: usize) -> Self {
        self.put_in_front(name);
        self.at(offset)
    }

    /// The same, seen from the array or slice that has it as an element.
    pub(crate) fn in_element(mut self, index: usize, size: usize) -> Self {
        self.put_in_front(&format!("[{index}]"));
        self.at(index * size)
    }

    fn put_in_front(&mut self, outer: &str) {
        if !self.field.is_empty() && !self.field.starts_with('[') {
            self.field.insert(0, '.');
        }
        self.field.insert_str(0, outer);
    }

    /// The field: `side`, `header.flags[3]`, `[17].side`; empty if the value itself is meant.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The first of the bytes, counted from the object's first.
    pub fn byte(&self) -> usize {
        self.byte
    }

    /// What is wrong: `2 is no bool (0 or 1)`.
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

impl fmt::Display for InvalidBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "field `{}`, ", self.field)?;
        }
        write!(f, "byte {}: {}", self.byte, self.problem)
    }
}
