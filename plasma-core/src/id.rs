//! The name of an object.

use std::fmt;
use std::str::FromStr;

use sha1::{Digest, Sha1};

/// The name of an object: 20 bytes, chosen by whoever creates it.
///
/// Ids are plain values: copy them, send them through a channel, write them to a file.
///
/// ```
/// use plasma_core::ObjectId;
///
/// let id = ObjectId::from_name("prices/2026-11-22");
/// assert_eq!(id, id.to_hex().parse()?);
/// assert_ne!(id, ObjectId::rand());
/// # Ok::<(), plasma_core::ParseObjectIdError>(())
/// ```
#[doc(alias = "ObjectID")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct ObjectId([u8; ObjectId::LEN]);

impl ObjectId {
    /// Bytes in an id.
    pub const LEN: usize = 20;

    /// The id with these bytes.
    #[doc(alias = "from_binary")]
    pub const fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// A fresh random id. Two of them are never the same in practice.
    #[doc(alias = "from_random")]
    pub fn rand() -> Self {
        Self(rand::random())
    }

    /// The id that stands for a name, always and in every language the same: the SHA-1 of the
    /// name's UTF-8 bytes (in Python, `ObjectID(hashlib.sha1(name.encode()).digest())`).
    pub fn from_name(name: &str) -> Self {
        Self(Sha1::digest(name).into())
    }

    /// The id's bytes.
    #[doc(alias = "binary")]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The id in 40 lower-case hexadecimal digits.
    pub fn to_hex(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digit = |value| match value {
            0..=9 => b'0' + value,
            _ => b'a' + (value - 10),
        };
        let mut hex = [0; 2 * Self::LEN];
        let (pairs, _) = hex.as_chunks_mut();
        for (pair, byte) in pairs.iter_mut().zip(self.0) {
            *pair = [digit(byte >> 4), digit(byte & 15)];
        }
        f.pad(str::from_utf8(&hex).unwrap_or_default())
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<[u8; ObjectId::LEN]> for ObjectId {
    fn from(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }
}

impl From<&Self> for ObjectId {
    fn from(id: &Self) -> Self {
        *id
    }
}

/// A text is not an id in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an object id is 40 hexadecimal digits, not {text:?}")]
pub struct ParseObjectIdError {
    text: String,
}

impl FromStr for ObjectId {
    type Err = ParseObjectIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        let parse = || {
            let digits: &[u8; 2 * Self::LEN] = text.as_bytes().try_into().ok()?;
            let mut bytes = [0; Self::LEN];
            let (pairs, _) = digits.as_chunks();
            for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
                *byte = digit(*high)? << 4 | digit(*low)?;
            }
            Some(Self(bytes))
        };
        parse().ok_or_else(|| ParseObjectIdError {
            text: text.chars().take(64).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_read_back() {
        let id = ObjectId::new(std::array::from_fn(|i| i as u8 * 13));
        assert_eq!(id.to_hex(), "000d1a2734414e5b6875828f9ca9b6c3d0ddeaf7");
        assert_eq!(id.to_hex().parse(), Ok(id));
        assert_eq!(id.to_hex().to_uppercase().parse(), Ok(id));
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "",
            "00",
            &"0".repeat(39),
            &"0".repeat(41),
            &"g".repeat(40),
            &"é".repeat(20),
        ] {
            assert!(text.parse::<ObjectId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_is_its_sha1() {
        assert_eq!(
            ObjectId::from_name("abc").to_hex(),
            "a9993e364706816aba3e25717850c26c9cd0d89d"
        );
    }
}
