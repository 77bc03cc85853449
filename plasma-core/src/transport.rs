//! Bytes and descriptors over a Unix stream socket, for both ends.
//!
//! Descriptors arrive attached to single bytes of the stream, in order. So everything is read with
//! `recvmsg`, into a buffer of bytes beside a queue of descriptors ([`Inbox`]), and written from a
//! queue that knows behind which byte each descriptor goes ([`Outbox`]). Neither ever blocks; they
//! keep what the kernel did not take or has not brought yet.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{SCM_RIGHTS, SOL_SOCKET, cmsghdr};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, recvmsg, send, sendmsg};

use crate::protocol::frame::{FrameError, HEADER_LEN, Header, MessageType};
use crate::protocol::message::Frame;

/// Bytes an inbox holds room for at first. Most peers never send more at once, and there may be
/// thousands of them.
const FIRST_CAPACITY: usize = 4 << 10;

/// Bytes an inbox holds room for where that has not been enough, while nothing larger is under way.
const USUAL_CAPACITY: usize = 64 << 10;

/// The most descriptors the kernel lets one message carry (`SCM_MAX_FD`). With room for all of
/// them none can be lost to truncation.
const MAX_DESCRIPTORS_A_MESSAGE: usize = 253;

/// Bodies above this are written from where they are; smaller ones are first gathered.
const GATHER_LIMIT: usize = 16 << 10;

/// The alignment that flatbuffers with 64-bit fields ask of the memory they are read in.
const BODY_ALIGNMENT: usize = 8;

/// What one attempt to read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// This many bytes (at least one).
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// The peer has closed its end.
    End,
}

/// What came from a socket and was not consumed yet.
#[derive(Debug, Default)]
pub struct Inbox {
    /// INVARIANT: `start <= end <=` the words' length in bytes; the bytes between are unread.
    words: Vec<u64>,
    start: usize,
    end: usize,
    /// A copy of the current body, used where it is not aligned in `words`.
    aligned: Vec<u64>,
    /// Descriptors that arrived and were not taken; closed on drop.
    descriptors: VecDeque<OwnedFd>,
    control: Vec<u8>,
}

impl Inbox {
    /// An empty inbox.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes that are here and not consumed.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether no byte is here.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Descriptors that are here and not taken.
    pub fn descriptors(&self) -> usize {
        self.descriptors.len()
    }

    /// Takes the descriptors that are here, whatever they were sent for.
    pub fn take_descriptors(&mut self) -> impl Iterator<Item = OwnedFd> + use<> {
        std::mem::take(&mut self.descriptors).into_iter()
    }

    /// Reads once, without waiting.
    ///
    /// # Errors
    /// What the kernel says. [`Received::Nothing`] is not an error.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<Received> {
        self.make_room();
        if self.control.is_empty() {
            self.control = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS_A_MESSAGE]);
            self.control.resize(self.control.capacity(), 0);
        }
        if let Some(header) = self.control.first_chunk_mut::<CONTROL_HEADER_LEN>() {
            header.fill(0);
        }
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.words);
        let room = bytes.get_mut(self.end..).unwrap_or_default();
        let mut space = [IoSliceMut::new(room)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = loop {
            match recvmsg::<()>(
                socket.as_raw_fd(),
                &mut space,
                Some(&mut self.control),
                flags,
            ) {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(Received::Nothing),
                Err(error) => return Err(error.into()),
                Ok(message) => break message,
            }
        };
        let count = message.bytes;
        let truncated = message.flags.contains(MsgFlags::MSG_CTRUNC);
        for raw in descriptors_in(&self.control) {
            // SAFETY: the kernel has just installed this descriptor in this process for this
            // message; nothing else knows it, so it is open and ours alone.
            let descriptor = unsafe { OwnedFd::from_raw_fd(raw) };
            self.descriptors.push_back(descriptor);
        }
        if truncated {
            return Err(Errno::EMFILE.into());
        }
        if count == 0 {
            return Ok(Received::End);
        }
        self.end += count;
        Ok(Received::Bytes(count))
    }

    /// Makes sure that at least one byte can be read, and more where it helps: room grows with
    /// what has really come, never with what a header announces.
    fn make_room(&mut self) {
        let capacity = self.words.len() * size_of::<u64>();
        if self.is_empty() {
            self.start = 0;
            self.end = 0;
            if capacity == 0 || capacity > USUAL_CAPACITY {
                self.words = vec![0; FIRST_CAPACITY / size_of::<u64>()];
            }
        } else if self.start >= capacity / 2 {
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.words);
            bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        } else if self.end == capacity {
            let doubled = self.words.len() * 2;
            let len = doubled.max(USUAL_CAPACITY / size_of::<u64>());
            self.words.resize(len, 0);
        }
    }

    /// Lets go of the room that large messages took; nothing may be here.
    fn shrink(&mut self) {
        for room in [&mut self.words, &mut self.aligned] {
            if room.capacity() > USUAL_CAPACITY / size_of::<u64>() {
                *room = Vec::new();
            }
        }
        self.start = 0;
        self.end = 0;
    }

    /// Takes the next message, where all of it is here.
    ///
    /// # Errors
    /// The bytes are no message of at most `max_body_len` bytes; nothing behind them can be read.
    pub fn next_message(
        &mut self,
        max_body_len: usize,
    ) -> Result<Option<(MessageType, &[u8])>, FrameError> {
        if self.is_empty() {
            self.shrink();
            return Ok(None);
        }
        let bytes: &[u8] = bytemuck::cast_slice(&self.words);
        let unread = bytes.get(self.start..self.end).unwrap_or_default();
        let Some(header) = Header::parse(unread, max_body_len)? else {
            return Ok(None);
        };
        let behind = unread.get(HEADER_LEN..).unwrap_or_default();
        let Some(body) = behind.get(..header.body_len) else {
            return Ok(None);
        };
        self.start += HEADER_LEN + header.body_len;
        if body.as_ptr().addr() % BODY_ALIGNMENT == 0 {
            return Ok(Some((header.kind, body)));
        }
        let body = copy_aligned(body, &mut self.aligned);
        Ok(Some((header.kind, body)))
    }

    /// Takes the next descriptor and the byte it came on; `None` where the byte is not here yet.
    ///
    /// # Errors
    /// The byte came without a descriptor.
    pub fn next_descriptor(&mut self) -> Option<Result<OwnedFd, MissingDescriptor>> {
        if self.is_empty() {
            return None;
        }
        self.start += 1;
        Some(self.descriptors.pop_front().ok_or(MissingDescriptor))
    }
}

/// Copies bytes to where a flatbuffer can be read from.
pub(crate) fn copy_aligned<'a>(bytes: &[u8], room: &'a mut Vec<u64>) -> &'a [u8] {
    room.clear();
    room.resize(bytes.len().div_ceil(size_of::<u64>()), 0);
    let room: &mut [u8] = bytemuck::cast_slice_mut(room);
    let Some(copy) = room.get_mut(..bytes.len()) else {
        return &[];
    };
    copy.copy_from_slice(bytes);
    copy
}

/// Length of a control message without its content, in bytes.
const CONTROL_HEADER_LEN: usize = size_of::<cmsghdr>();

/// The descriptors of a message: the kernel puts all of them into the first control message.
///
/// `nix` tells of none where only some found a place in this process, and those would be lost.
fn descriptors_in(control: &[u8]) -> impl Iterator<Item = RawFd> {
    let int = |at| {
        control
            .get(at..)?
            .first_chunk()
            .map(|i| i32::from_ne_bytes(*i))
    };
    let len = control
        .first_chunk()
        .map_or(0, |len| usize::from_ne_bytes(*len));
    let level = int(offset_of!(cmsghdr, cmsg_level));
    let kind = int(offset_of!(cmsghdr, cmsg_type));
    let rights = (level, kind) == (Some(SOL_SOCKET), Some(SCM_RIGHTS));
    let content = control.get(CONTROL_HEADER_LEN..len).filter(|_| rights);
    let (descriptors, _) = content.unwrap_or_default().as_chunks();
    descriptors.iter().map(|raw| RawFd::from_ne_bytes(*raw))
}

/// A byte that should carry a descriptor carried none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a descriptor was announced and none came")]
pub struct MissingDescriptor;

/// What is to go to a socket and was not taken by the kernel yet.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// INVARIANT: `sent <= bytes.len()`.
    sent: usize,
    /// Descriptors, each with the index in `bytes` of the byte it goes on, in order.
    /// INVARIANT: the byte is there, and not sent.
    descriptors: VecDeque<(usize, Arc<OwnedFd>)>,
}

impl Outbox {
    /// An empty outbox.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a message behind what waits already.
    pub fn push(&mut self, frame: Frame<'_>) {
        self.push_bytes(&frame.header, frame.body);
    }

    /// Adds a prefix and a body behind what waits already.
    pub fn push_bytes(&mut self, prefix: &[u8], body: &[u8]) {
        self.bytes.reserve(prefix.len() + body.len());
        self.bytes.extend_from_slice(prefix);
        self.bytes.extend_from_slice(body);
    }

    /// Adds a descriptor, on a byte of its own.
    pub fn push_descriptor(&mut self, descriptor: Arc<OwnedFd>) {
        self.descriptors.push_back((self.bytes.len(), descriptor));
        self.bytes.push(0);
    }

    /// Adds a message and writes all the kernel takes; a long one is not copied first.
    ///
    /// # Errors
    /// What the kernel says; the connection is of no more use.
    pub fn send(&mut self, socket: BorrowedFd<'_>, frame: Frame<'_>) -> io::Result<()> {
        if frame.body.len() < GATHER_LIMIT || !self.is_empty() {
            self.push(frame);
            self.flush(socket)?;
            return Ok(());
        }
        let parts = [IoSlice::new(&frame.header), IoSlice::new(frame.body)];
        let taken = write(socket, &parts, &[])?.unwrap_or(0);
        if taken < frame.wire_len() {
            let header_left = frame.header.get(taken..).unwrap_or_default();
            let body_left = frame.body.get(taken.saturating_sub(HEADER_LEN)..);
            let body_left = body_left.unwrap_or_default();
            self.push_bytes(header_left, body_left);
        }
        Ok(())
    }

    /// Writes all the kernel takes without waiting; whether nothing is left.
    ///
    /// # Errors
    /// What the kernel says; the connection is of no more use.
    pub fn flush(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        while self.sent < self.bytes.len() {
            // A descriptor goes on a write of exactly its own byte.
            let (until, descriptor) = match self.descriptors.front() {
                Some((at, descriptor)) if *at == self.sent => (at + 1, Some(descriptor.as_fd())),
                Some((at, _)) => (*at, None),
                None => (self.bytes.len(), None),
            };
            let part = self.bytes.get(self.sent..until).ok_or(Errno::EINVAL)?;
            let Some(taken) = write(socket, &[IoSlice::new(part)], descriptor.as_slice())? else {
                self.forget_sent();
                return Ok(false);
            };
            if descriptor.is_some() {
                self.descriptors.pop_front();
            }
            self.sent += taken;
        }
        self.sent = 0;
        self.bytes.clear();
        self.bytes.shrink_to(USUAL_CAPACITY);
        Ok(true)
    }

    /// Writes no more than `most` bytes of what waits, in one go; how many the kernel took, or `None`
    /// if it takes nothing now. For what carries no descriptors.
    ///
    /// # Errors
    /// What the kernel says; the connection is of no more use.
    pub fn write_part(&mut self, socket: BorrowedFd<'_>, most: usize) -> io::Result<Option<usize>> {
        let waiting = self.bytes.get(self.sent..).unwrap_or_default();
        let part = waiting.get(..most).unwrap_or(waiting);
        let taken = write(socket, &[IoSlice::new(part)], &[])?;
        self.sent += taken.unwrap_or(0);
        if self.is_empty() {
            self.sent = 0;
            self.bytes.clear();
            self.bytes.shrink_to(USUAL_CAPACITY);
        } else if taken.is_none() {
            self.forget_sent();
        }
        Ok(taken)
    }

    /// Gives back the room of what is sent, if that is most of what is kept: the peer may be one
    /// that never quite catches up.
    fn forget_sent(&mut self) {
        if self.sent >= self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            for (at, _) in &mut self.descriptors {
                *at -= self.sent;
            }
            self.sent = 0;
        }
    }
}

/// One write that does not wait; `None` where the kernel takes nothing now.
fn write(
    socket: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<Option<usize>> {
    let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let attempt = || match (parts, &raw[..]) {
        // The usual case has a shorter way through the kernel.
        ([part], []) => send(socket.as_raw_fd(), part, flags),
        (_, []) => sendmsg::<()>(socket.as_raw_fd(), parts, &[], flags, None),
        _ => sendmsg::<()>(socket.as_raw_fd(), parts, &rights, flags, None),
    };
    loop {
        match attempt() {
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
            Ok(taken) => return Ok(Some(taken)),
        }
    }
}

/// Waits until the socket is ready for one of `events` (or has failed, which the next read or
/// write tells); whether it was ready before the timeout. `None` waits for ever.
///
/// # Errors
/// What the kernel says.
pub fn wait_ready(
    socket: BorrowedFd<'_>,
    events: PollFlags,
    timeout: Option<Duration>,
) -> io::Result<bool> {
    let deadline = timeout.and_then(|timeout| std::time::Instant::now().checked_add(timeout));
    loop {
        let timeout = match deadline {
            None => PollTimeout::NONE,
            Some(deadline) => {
                let left = deadline.saturating_duration_since(std::time::Instant::now());
                // Rounded up, so that a wait never ends before its time.
                let left_ms = left.as_nanos().div_ceil(1_000_000);
                PollTimeout::try_from(left_ms).unwrap_or(PollTimeout::MAX)
            }
        };
        match poll(&mut [PollFd::new(socket, events)], timeout) {
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
            Ok(0) if deadline.is_none_or(|d| std::time::Instant::now() < d) => {}
            Ok(ready) => return Ok(ready > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_peer_that_never_catches_up_costs_what_it_has_not_read() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut outbox, mut inbox) = (Outbox::new(), Inbox::new());
        let message = [7; 100_000];
        for _ in 0..1000 {
            outbox.push_bytes(&[], &message);
            outbox.flush(ours.as_fd()).unwrap();
            // As much as is sent is read, and never all of it.
            while outbox.len() > 3 * message.len() {
                inbox.receive(theirs.as_fd()).unwrap();
                inbox = Inbox::new();
                outbox.flush(ours.as_fd()).unwrap();
            }
            assert!(outbox.bytes.len() < 20 * message.len());
        }
        assert!(!outbox.is_empty());
    }

    #[test]
    fn descriptors_arrive_behind_the_byte_they_were_sent_on() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut outbox, mut inbox) = (Outbox::new(), Inbox::new());
        let file = Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
        let header = |body_len| Header {
            kind: MessageType::GetReply,
            body_len,
        };
        // Far more than the socket takes at once, so that what is sent is forgotten on the way.
        let body = vec![1; 400_001];
        for _ in 0..4 {
            outbox.push_bytes(&header(body.len()).to_bytes(), &body);
            outbox.push_descriptor(Arc::clone(&file));
        }
        for _ in 0..4 {
            while inbox.next_message(body.len()).unwrap().is_none() {
                outbox.flush(ours.as_fd()).unwrap();
                inbox.receive(theirs.as_fd()).unwrap();
            }
            let descriptor = loop {
                match inbox.next_descriptor() {
                    Some(descriptor) => break descriptor,
                    None => {
                        outbox.flush(ours.as_fd()).unwrap();
                        inbox.receive(theirs.as_fd()).unwrap();
                    }
                }
            };
            assert!(descriptor.is_ok());
        }
        assert!(outbox.is_empty() && inbox.is_empty() && inbox.descriptors() == 0);
    }
}
