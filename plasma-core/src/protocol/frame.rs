//! Pure framing: a 24-byte header in front of every flatbuffer, and nothing about sockets.

use std::fmt;

/// Bytes in front of every message: version, type and body length, each an `i64`, little endian.
pub const HEADER_LEN: usize = 24;

/// The only protocol version that was ever spoken.
const PROTOCOL_VERSION: i64 = 0;

macro_rules! message_types {
    ($($name:ident = $number:literal),+ $(,)?) => {
        /// What a message is, as the header says it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i64)]
        #[allow(missing_docs, reason = "the names are the protocol's own")]
        #[non_exhaustive]
        pub enum MessageType {
            $($name = $number),+
        }

        impl MessageType {
            fn from_wire(number: i64) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)+
                    _ => None,
                }
            }
        }
    };
}

message_types! {
    DisconnectClient = 0,
    CreateRequest = 1,
    CreateReply = 2,
    CreateAndSealRequest = 3,
    CreateAndSealReply = 4,
    AbortRequest = 5,
    AbortReply = 6,
    SealRequest = 7,
    SealReply = 8,
    GetRequest = 9,
    GetReply = 10,
    ReleaseRequest = 11,
    ReleaseReply = 12,
    DeleteRequest = 13,
    DeleteReply = 14,
    ContainsRequest = 15,
    ContainsReply = 16,
    ListRequest = 17,
    ListReply = 18,
    ConnectRequest = 19,
    ConnectReply = 20,
    EvictRequest = 21,
    EvictReply = 22,
    SubscribeRequest = 23,
    UnsubscribeRequest = 24,
    DataRequest = 25,
    DataReply = 26,
    Notification = 27,
    SetOptionsRequest = 28,
    SetOptionsReply = 29,
    GetDebugStringRequest = 30,
    GetDebugStringReply = 31,
    CreateAndSealBatchRequest = 32,
    CreateAndSealBatchReply = 33,
    RefreshLruRequest = 34,
    RefreshLruReply = 35,
}

/// A parsed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the body is.
    pub kind: MessageType,
    /// Length of the body that follows, in bytes.
    pub body_len: usize,
}

/// Why bytes cannot be a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// The version is not 0.
    Version(i64),
    /// The type is none of the protocol's.
    Type(i64),
    /// The announced body length is negative or above the reader's limit.
    Length {
        /// What the header announced, in bytes.
        announced: i64,
        /// What this reader accepts, in bytes.
        limit: usize,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(found) => {
                write!(f, "protocol version {found}, expected {PROTOCOL_VERSION}")
            }
            Self::Type(found) => write!(f, "unknown message type {found}"),
            Self::Length { announced, limit } => {
                write!(f, "message of {announced} bytes, the limit is {limit}")
            }
        }
    }
}

impl std::error::Error for FrameError {}

impl Header {
    /// The header's bytes on the wire.
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let (words, _) = bytes.as_chunks_mut();
        let values = [PROTOCOL_VERSION, self.kind as i64, self.body_len as i64];
        for (word, value) in words.iter_mut().zip(values) {
            *word = value.to_le_bytes();
        }
        bytes
    }

    /// Reads the header at the start of `bytes`; `None` where too few bytes are there yet.
    ///
    /// # Errors
    /// The header is complete and no body may follow it: see [`FrameError`].
    pub fn parse(bytes: &[u8], max_body_len: usize) -> Result<Option<Self>, FrameError> {
        let Some(header) = bytes.first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let (&[version, kind, announced], _) = header.as_chunks() else {
            return Ok(None);
        };
        let version = i64::from_le_bytes(version);
        if version != PROTOCOL_VERSION {
            return Err(FrameError::Version(version));
        }
        let kind = i64::from_le_bytes(kind);
        let kind = MessageType::from_wire(kind).ok_or(FrameError::Type(kind))?;
        let announced = i64::from_le_bytes(announced);
        match usize::try_from(announced) {
            Ok(body_len) if body_len <= max_body_len => Ok(Some(Self { kind, body_len })),
            _ => Err(FrameError::Length {
                announced,
                limit: max_body_len,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_wire() {
        let header = Header {
            kind: MessageType::RefreshLruReply,
            body_len: 1234,
        };
        assert_eq!(Header::parse(&header.to_bytes(), 1234), Ok(Some(header)));
    }

    #[test]
    fn a_header_in_parts_is_not_an_error() {
        let bytes = Header {
            kind: MessageType::GetRequest,
            body_len: 0,
        }
        .to_bytes();
        for len in 0..HEADER_LEN {
            assert_eq!(Header::parse(&bytes[..len], 0), Ok(None));
        }
    }

    #[test]
    fn what_no_peer_may_send_is_named() {
        let mut bytes = Header {
            kind: MessageType::GetRequest,
            body_len: 10,
        }
        .to_bytes();
        assert_eq!(
            Header::parse(&bytes, 9),
            Err(FrameError::Length {
                announced: 10,
                limit: 9
            })
        );
        bytes[23] = 0x80;
        assert!(matches!(
            Header::parse(&bytes, usize::MAX),
            Err(FrameError::Length { announced, .. }) if announced < 0
        ));
        bytes[8] = 36;
        assert_eq!(Header::parse(&bytes, 9), Err(FrameError::Type(36)));
        bytes[0] = 1;
        assert_eq!(Header::parse(&bytes, 9), Err(FrameError::Version(1)));
    }
}
