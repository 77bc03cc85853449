//! Messages, as both sides read them from a socket.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use plasma_core::protocol::frame::{HEADER_LEN, Header, MessageType};
use plasma_core::protocol::message::{Encoder, Frame, Reply, Request, decode_notification};
use plasma_core::transport::{Inbox, Received};

/// Longest body that is read, in bytes: more than there ever is.
const MAX_BODY_LEN: usize = 1 << 20;

/// Bytes that are written at a time, at most: a socket takes as many before they are read.
const PART: usize = 1 << 14;

/// Has a store read bytes as a client's requests.
pub fn requests(data: &[u8]) {
    each_message(data, |kind, body| {
        let Ok(request) = Request::decode(kind, body) else {
            return;
        };
        // What was understood means the same when it is said again.
        let (kind, body) = said(Encoder::new().request(&request));
        assert_eq!(Request::decode(kind, &body), Ok(request));
    });
}

/// Has a client read bytes as a store's replies, and their bodies as notifications too.
pub fn replies(data: &[u8]) {
    each_message(data, |kind, body| {
        if let Ok(reply) = Reply::decode(kind, body) {
            let (kind, body) = said(Encoder::new().reply(&reply));
            assert_eq!(Reply::decode(kind, &body), Ok(reply));
        }
        if let Ok(notices) = decode_notification(body) {
            let mut encoder = Encoder::new();
            let (length, body) = encoder.notification(&notices);
            assert_eq!(i64::from_le_bytes(length), body.len() as i64);
            assert_eq!(decode_notification(body), Ok(notices));
        }
    });
}

/// The first byte says how the others are meant: as a stream that comes in parts, or as one body,
/// with its type in front, for which the right header is made.
fn each_message(data: &[u8], each: impl FnMut(MessageType, &[u8])) {
    match data {
        [0, kind, body @ ..] => {
            let mut bytes = vec![0; HEADER_LEN];
            bytes[8] = *kind;
            bytes[16..].copy_from_slice(&(body.len() as u64).to_le_bytes());
            bytes.extend_from_slice(body);
            read(&bytes, bytes.len(), each);
        }
        [part, stream @ ..] => read(stream, usize::from(*part), each),
        [] => {}
    }
}

/// A message as it is heard at the other end.
fn said(frame: Frame<'_>) -> (MessageType, Vec<u8>) {
    let bytes = [&frame.header, frame.body].concat();
    let mut heard = Vec::new();
    read(&bytes, bytes.len(), |kind, body| {
        heard.push((kind, body.to_vec()));
    });
    assert_eq!(heard.len(), 1);
    heard.remove(0)
}

/// Sends bytes over a socket in parts of this length, and reads what messages they are.
fn read(bytes: &[u8], part: usize, mut each: impl FnMut(MessageType, &[u8])) {
    let (mut theirs, ours) = UnixStream::pair().expect("a pair of sockets");
    let mut inbox = Inbox::new();
    for part in bytes.chunks(part.clamp(1, PART)) {
        theirs.write_all(part).expect("the socket takes it");
        while let Ok(Received::Bytes(_)) = inbox.receive(ours.as_fd()) {
            loop {
                match inbox.next_message(MAX_BODY_LEN) {
                    Ok(Some((kind, body))) => {
                        assert_eq!(body.as_ptr().addr() % size_of::<u64>(), 0);
                        assert!(body.len() <= bytes.len() - HEADER_LEN);
                        each(kind, body);
                    }
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
        }
    }
    // Less than a message is left.
    let left = inbox.len();
    let rest = &bytes[bytes.len() - left..];
    if let Ok(Some(header)) = Header::parse(rest, MAX_BODY_LEN) {
        assert!(left < HEADER_LEN + header.body_len);
    }
}
