//! One object, being written or being read.

use std::fmt;

use crate::protocol::message::{Digest, Reply, Request};
use crate::session::Session;
use crate::shm::pins::Pin;
use crate::shm::ring::Created;
use crate::span::Span;
use crate::{ObjectId, PlasmaError, digest};

/// One object in the store's memory: being written by the client that created it, or sealed and
/// read in place.
///
/// - It has no lifetime: it keeps the connection and the mapping it needs alive.
/// - Dropped sealed, the object is released: the store may evict it once nobody holds it.
/// - Dropped before it is sealed, the object is aborted: as if it had never been created.
/// - Data starts at a multiple of 64 bytes.
/// - What is held stays readable whatever happens to the store.
///
/// ```no_run
/// # let client = plasma_core::PlasmaClient::new("/tmp/plasma", 0)?;
/// let id = plasma_core::ObjectId::rand();
/// let mut object = client.create(id, 3, b"how many primes")?;
/// object.data_mut().copy_from_slice(&[2, 3, 5]);
/// object.seal()?;
/// assert_eq!((object.data(), object.meta()), (&[2, 3, 5][..], &b"how many primes"[..]));
/// # Ok::<(), plasma_core::PlasmaError>(())
/// ```
#[must_use = "dropped, an object is released, or aborted if it is not sealed"]
pub struct ObjectBuffer {
    id: ObjectId,
    span: Span,
    state: State,
    hold: Hold,
}

/// What keeps the object there for this buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hold {
    /// The store counts this client, and the connection this buffer.
    Counted,
    /// A pin, which the store sees.
    Pinned(Pin),
    /// The store knows this client to be its creator.
    Created(Created),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Writing,
    Sealed,
    /// It was to be sealed, and whether it was is not known. This is a copy that nobody else sees, or
    /// can only be read.
    Disowned,
    /// Aborted: nothing is left to give back.
    Aborted,
}

impl ObjectBuffer {
    pub(crate) fn writing(id: ObjectId, span: Span, hold: Hold) -> Self {
        Self {
            id,
            span,
            state: State::Writing,
            hold,
        }
    }

    #[inline(always)]
    pub(crate) fn sealed(id: ObjectId, span: Span, hold: Hold) -> Self {
        Self {
            id,
            span,
            state: State::Sealed,
            hold,
        }
    }

    /// What is given back goes to the store that it came from, or to nobody.
    fn session(&self) -> &Session {
        self.span.session()
    }

    /// Writes the metadata that a new object was created with.
    pub(crate) fn with_meta(mut self, meta: &[u8]) -> Self {
        if let Some(space) = self.span.meta_mut() {
            space.copy_from_slice(meta);
        }
        self
    }

    /// The object's name.
    pub fn id(&self) -> &ObjectId {
        &self.id
    }

    /// The object's data. Before it is sealed, what was written so far; bytes that were not
    /// written are whatever the memory held before.
    pub fn data(&self) -> &[u8] {
        self.span.data()
    }

    /// The object's data, to be written.
    ///
    /// # Panics
    /// If the object is not [mutable](Self::is_mutable): sealed objects never change.
    #[expect(clippy::expect_used, reason = "as documented, if its user is mistaken")]
    pub fn data_mut(&mut self) -> &mut [u8] {
        let data = self.span.data_mut();
        data.expect("the object is sealed, or was to be, so it cannot be written")
    }

    /// The object's metadata, given when it was created.
    #[doc(alias = "metadata")]
    pub fn meta(&self) -> &[u8] {
        self.span.meta()
    }

    /// Bytes of data and metadata together.
    pub fn size(&self) -> usize {
        self.span.len()
    }

    /// Whether the object can still be written.
    pub fn is_mutable(&self) -> bool {
        self.span.is_writable()
    }

    /// The digest of the object's content as Arrow's clients compute it, computed now.
    #[doc(alias = "hash")]
    pub fn digest(&self) -> Digest {
        digest::digest(self.data(), self.meta())
    }

    /// Another handle on the same object, without a request to the store: it is released when the
    /// last handle is dropped.
    ///
    /// # Panics
    /// If the object is not sealed: it has one writer. Or if it has 2³¹ handles.
    #[expect(clippy::expect_used, reason = "as documented, if its user is mistaken")]
    pub fn share(&self) -> Self {
        let sealed = self.state == State::Sealed;
        let span = sealed.then(|| self.span.share()).flatten();
        let span = span.expect("only a sealed object can be shared");
        self.session().retain(self.id, &self.hold);
        Self::sealed(self.id, span, self.hold)
    }

    /// Makes the object immutable, and visible to every client.
    ///
    /// # Errors
    /// [`PlasmaError::AlreadySealed`] if it is sealed. [`PlasmaError::NotFound`] if the store has no
    /// such object for this client to seal; or the connection failed, and the store may have sealed
    /// it or not. After either of these this buffer is a copy that nobody else sees: it can be read
    /// and written, and not be sealed any more. (Where this process is given no memory for a copy, the
    /// buffer can be read, and is not [mutable](Self::is_mutable).)
    pub fn seal(&mut self) -> Result<(), PlasmaError> {
        match self.state {
            State::Writing => {}
            State::Disowned => return Err(PlasmaError::Disconnected),
            State::Sealed | State::Aborted => return Err(PlasmaError::AlreadySealed),
        }
        if let Err(error) = self.ask_to_seal() {
            // Whoever has it by now must not see it change.
            if self.span.make_private().is_err() {
                self.span.make_read_only();
            }
            self.state = State::Disowned;
            return Err(error);
        }
        self.span.make_read_only();
        self.state = State::Sealed;
        Ok(())
    }

    fn ask_to_seal(&mut self) -> Result<(), PlasmaError> {
        let digest = self.session().digest.apply(self.data(), self.meta());
        if let Hold::Created(created) = &self.hold {
            if let Some(pin) = self.session().seal_shortly(self.id, created, digest)? {
                self.hold = Hold::Pinned(pin);
                return Ok(());
            }
            // From here on as if it had been created through the socket.
            self.session().connection.adopt(self.id);
            self.hold = Hold::Counted;
        }
        let request = Request::Seal {
            id: self.id,
            digest,
        };
        match self.session().connection.call(&request)? {
            Reply::Seal { id, result } if id == self.id => {
                result.map_err(|code| self.session().refusal(code, self.size() as u64))
            }
            _ => {
                let error = PlasmaError::protocol("another reply than this seal's");
                Err(self.session().connection.give_up(error))
            }
        }
    }

    /// Drops the object before it is sealed, as if it had never been created.
    ///
    /// # Errors
    /// [`PlasmaError::NotMutable`] if it is sealed; otherwise the connection failed.
    pub fn abort(mut self) -> Result<(), PlasmaError> {
        match self.state {
            State::Writing | State::Aborted => {
                self.state = State::Aborted;
                self.session().connection.abort(self.id)
            }
            // The store cannot be told.
            State::Disowned => Err(PlasmaError::Disconnected),
            State::Sealed => Err(PlasmaError::NotMutable),
        }
    }
}

impl Drop for ObjectBuffer {
    fn drop(&mut self) {
        match self.state {
            State::Writing => self.session().connection.abandon(self.id),
            State::Sealed => self.session().let_go(self.id, &self.hold),
            State::Disowned => self.session().connection.disown(self.id),
            State::Aborted => {}
        }
    }
}

impl AsRef<[u8]> for ObjectBuffer {
    fn as_ref(&self) -> &[u8] {
        self.data()
    }
}

impl fmt::Debug for ObjectBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectBuffer")
            .field("id", &self.id)
            .field("data_size", &self.data().len())
            .field("meta_size", &self.meta().len())
            .field("state", &self.state)
            .finish()
    }
}
