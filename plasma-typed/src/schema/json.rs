//! The JSON form of a schema.
//!
//! Only what a `const fn` can do is used here: the compiler writes the headers of objects, so that
//! storing one costs no more than copying it.

use super::{Field, Schema, Shape, Variant};

/// FNV-1a, 128 bits: where it starts, and what it multiplies with.
const FNV_BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const FNV_PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

pub(super) const ENDIAN: &str = if cfg!(target_endian = "little") {
    "little"
} else {
    "big"
};

/// Writes JSON: as much as there is room for, while it counts and hashes all of it.
pub(crate) struct Writer<'a> {
    room: &'a mut [u8],
    /// Once it is longer, no more types are written.
    limit: usize,
    len: usize,
    hash: u128,
}

impl<'a> Writer<'a> {
    pub(crate) const fn new(room: &'a mut [u8]) -> Self {
        Self {
            room,
            limit: usize::MAX,
            len: 0,
            hash: FNV_BASIS,
        }
    }

    /// Counts to somewhere beyond `limit`, and leaves it at that: for schemas that may be longer
    /// than anybody wants to know.
    pub(crate) const fn up_to(limit: usize) -> Self {
        Self {
            limit,
            ..Self::new(&mut [])
        }
    }

    /// How long all of it is, in bytes.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The hash of all of it.
    pub(crate) const fn hash(&self) -> u128 {
        self.hash
    }

    pub(crate) const fn schema(&mut self, schema: &Schema) {
        self.text("{\"endian\":\"");
        self.text(ENDIAN);
        self.text("\",\"size\":");
        self.number(schema.size as i128);
        self.text(",\"align\":");
        self.number(schema.align as i128);
        self.text(",\"type\":");
        self.shape(schema);
        self.text("}");
    }

    const fn shape(&mut self, schema: &Schema) {
        if self.len > self.limit {
            return;
        }
        match schema.shape {
            Shape::Scalar(scalar) => self.string(scalar.name()),
            Shape::Str => self.string("str"),
            Shape::Slice { element } => {
                self.text("{\"slice\":");
                self.shape(element);
                self.text("}");
            }
            Shape::Array { element, len } => {
                self.text("{\"array\":");
                self.shape(element);
                self.text(",\"len\":");
                self.number(len as i128);
                self.text("}");
            }
            Shape::Struct {
                name,
                version,
                fields,
            } => {
                self.text("{\"struct\":");
                self.name(name, version);
                self.text(",\"size\":");
                self.number(schema.size as i128);
                self.text(",\"fields\":[");
                self.fields(fields);
                self.text("]}");
            }
            Shape::Enum {
                name,
                version,
                repr,
                variants,
            } => {
                self.text("{\"enum\":");
                self.name(name, version);
                self.text(",\"repr\":");
                self.string(repr.name());
                self.text(",\"variants\":[");
                self.variants(variants);
                self.text("]}");
            }
        }
    }

    const fn name(&mut self, name: &str, version: u32) {
        self.string(name);
        self.text(",\"version\":");
        self.number(version as i128);
    }

    const fn fields(&mut self, mut fields: &[Field]) {
        while let [field, rest @ ..] = fields {
            self.text("{\"name\":");
            self.string(field.name);
            self.text(",\"offset\":");
            self.number(field.offset as i128);
            self.text(",\"type\":");
            self.shape(field.schema);
            self.text(if rest.is_empty() { "}" } else { "}," });
            fields = rest;
        }
    }

    const fn variants(&mut self, mut variants: &[Variant]) {
        while let [variant, rest @ ..] = variants {
            self.text("{\"name\":");
            self.string(variant.name);
            self.text(",\"value\":");
            self.number(variant.value);
            self.text(if rest.is_empty() { "}" } else { "}," });
            variants = rest;
        }
    }

    /// A string with its quotes.
    const fn string(&mut self, string: &str) {
        self.byte(b'"');
        let mut bytes = string.as_bytes();
        while let [byte, rest @ ..] = bytes {
            match *byte {
                b'"' | b'\\' => {
                    self.byte(b'\\');
                    self.byte(*byte);
                }
                control @ 0..=0x1f => {
                    self.text("\\u00");
                    self.byte(hex_digit(control >> 4));
                    self.byte(hex_digit(control & 15));
                }
                byte => self.byte(byte),
            }
            bytes = rest;
        }
        self.byte(b'"');
    }

    const fn number(&mut self, number: i128) {
        if number < 0 {
            self.byte(b'-');
        }
        let number = number.unsigned_abs();
        let mut power = 1;
        while number / power >= 10 {
            power *= 10;
        }
        while power > 0 {
            self.byte(b'0' + (number / power % 10) as u8);
            power /= 10;
        }
    }

    const fn text(&mut self, text: &str) {
        let mut bytes = text.as_bytes();
        while let [byte, rest @ ..] = bytes {
            self.byte(*byte);
            bytes = rest;
        }
    }

    const fn byte(&mut self, byte: u8) {
        if let Some((_, [place, ..])) = self.room.split_at_mut_checked(self.len) {
            *place = byte;
        }
        self.len += 1;
        self.hash = (self.hash ^ byte as u128).wrapping_mul(FNV_PRIME);
    }
}

const fn hex_digit(value: u8) -> u8 {
    match value {
        0..=9 => b'0' + value,
        _ => b'a' + (value - 10),
    }
}
