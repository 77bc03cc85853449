//! Who may connect.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::socket::sockopt::{OobInline, PeerCredentials};
use nix::sys::socket::{getsockopt, setsockopt};
use tracing::{info, warn};

use super::connection::Connection;
use super::{ACCEPTS_A_TURN, DESCRIPTOR_PAUSE, Server, Token, set_interest};
use crate::metrics::Refused;
use crate::state::ClientId;

/// Which users are let in, beyond what the socket's permissions say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Whoever the permissions let through.
    Everyone,
    /// The store's own user. Root passes as well: no permission keeps it out.
    Owner,
    /// The store's own user and these, and not even root otherwise.
    Listed(Vec<u32>),
}

impl Admission {
    /// Whether a user may connect to a store of user `own`.
    fn permits(&self, uid: u32, own: u32) -> bool {
        uid == own
            || match self {
                Self::Everyone => true,
                Self::Owner => uid == 0,
                Self::Listed(uids) => uids.contains(&uid),
            }
    }
}

/// Who is at the other end of a connection, as the kernel says: the process that made it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    /// 0 for one in another namespace of processes.
    pub(super) pid: i32,
    pub(super) uid: u32,
    gid: u32,
}

/// Why a connection is refused.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("user {uid} may not connect: --allow-uid {uid} lets it, or --group, or --mode")]
    NotTheOwner { uid: u32 },
    #[error("user {uid} may not connect: --allow-uid {uid} lets it")]
    NotListed { uid: u32 },
    #[error("{limit} clients are connected, the most there may be (--max-clients)")]
    TooManyClients { limit: usize },
    #[error("the kernel does not say who it is: {0}")]
    Unknown(Errno),
    #[error("it cannot be listened to: {0}")]
    Unheard(Errno),
}

impl Refusal {
    fn label(&self) -> Refused {
        match self {
            Self::NotTheOwner { .. } | Self::NotListed { .. } => Refused::NotAllowed,
            Self::TooManyClients { .. } => Refused::TooManyClients,
            Self::Unknown(_) | Self::Unheard(_) => Refused::Failed,
        }
    }
}

impl Server {
    /// Lets in those who wait to be.
    pub(super) fn accept(&mut self) {
        for _ in 0..ACCEPTS_A_TURN {
            let socket = match self.listener.accept() {
                Ok(socket) => socket,
                Err(Errno::EAGAIN) => return,
                Err(Errno::EINTR | Errno::ECONNABORTED) => continue,
                Err(error) => {
                    warn!(%error, "cannot accept a connection now");
                    self.accept_at = Some(self.now().elapsed + DESCRIPTOR_PAUSE);
                    let (listener, none) = (self.listener.socket.as_fd(), EpollFlags::empty());
                    set_interest(&self.epoll, listener, Token::Listener, none);
                    return;
                }
            };
            // What is sent out of band comes in its turn, with the descriptors that are sent with it:
            // otherwise the kernel throws them away as it comes upon them, and may have to wait.
            let _ = setsockopt(&socket, OobInline, &true);
            let peer = match getsockopt(&socket, PeerCredentials) {
                Ok(peer) => Peer {
                    pid: peer.pid(),
                    uid: peer.uid(),
                    gid: peer.gid(),
                },
                Err(error) => {
                    let reason = Refusal::Unknown(error);
                    self.stats.refused(reason.label());
                    warn!(%reason, "refused a client");
                    self.hang_up(socket);
                    continue;
                }
            };
            let Peer { pid, uid, gid } = peer;
            match self.admit(&socket, uid) {
                Ok(client) => {
                    self.state.connect(client);
                    let connection = Connection::new(socket, peer);
                    self.connections.insert(client, connection);
                    self.stats.accepted.add_one();
                    info!(client = client.0, pid, uid, gid, "connected");
                }
                Err(reason) => {
                    self.stats.refused(reason.label());
                    warn!(pid, uid, %reason, "refused a client");
                    self.hang_up(socket);
                }
            }
        }
    }

    /// Listens to a connection, if its user may have one.
    fn admit(&mut self, socket: &OwnedFd, uid: u32) -> Result<ClientId, Refusal> {
        let own = nix::unistd::geteuid().as_raw();
        if !self.options.admission.permits(uid, own) {
            return Err(match self.options.admission {
                Admission::Listed(_) => Refusal::NotListed { uid },
                Admission::Everyone | Admission::Owner => Refusal::NotTheOwner { uid },
            });
        }
        let limit = self.options.clients.max_clients;
        if self.connections.len() + self.cut_off.len() >= limit {
            return Err(Refusal::TooManyClients { limit });
        }
        let client = ClientId(self.next_client);
        self.next_client += 1;
        let token = Token::Connection(client).number();
        let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
        self.epoll.add(socket, event).map_err(Refusal::Unheard)?;
        Ok(client)
    }
}

#[cfg(test)]
mod tests {
    use super::Admission;

    #[test]
    fn a_list_is_all_who_may_beside_the_owner() {
        let listed = Admission::Listed(vec![7, 8]);
        let permitted = |admission: &Admission| {
            let uids = [0, 5, 7, 8, 9];
            uids.map(|uid| admission.permits(uid, 5))
        };
        assert_eq!(permitted(&listed), [false, true, true, true, false]);
        let owner = permitted(&Admission::Owner);
        assert_eq!(owner, [true, true, false, false, false]);
        assert_eq!(permitted(&Admission::Everyone), [true; 5]);
    }
}
