//! The socket that clients find the store at.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, listen, socket,
};
use nix::unistd::{Group, chown, geteuid};
use tempfile::TempDir;

use crate::StoreError;

/// Longest path of a Unix socket, in bytes: `sun_path` less its final zero.
const MAX_PATH_LEN: usize = 107;

/// Names of the directories that sockets nobody named go into.
const DIRECTORY_PREFIX: &str = "plasma-store-";
const SOCKET_NAME: &str = "plasma.sock";

/// How long another store may take to start in the same folder.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_INTERVAL: Duration = Duration::from_millis(10);

/// A listening socket; its name goes with it.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: OwnedFd,
    path: PathBuf,
    /// Device and inode of the name, so that only this store's own is ever removed.
    inode: (u64, u64),
    /// Where nobody named a socket: its private directory, and the lock that says it is in use.
    _private: Option<(Flock<File>, TempDir)>,
}

impl Listener {
    /// Listens at `path`, or in a fresh private directory.
    pub(crate) fn bind(
        path: Option<&Path>,
        mode: u32,
        group: Option<&str>,
    ) -> Result<Self, StoreError> {
        match path {
            Some(path) => Self::bind_at(path.to_owned(), mode, group, None),
            None => {
                let cannot = |source| StoreError::Kernel {
                    action: "make a directory for the socket",
                    source,
                };
                remove_stale_directories();
                let mut builder = tempfile::Builder::new();
                builder.prefix(DIRECTORY_PREFIX);
                builder.permissions(fs::Permissions::from_mode(0o700));
                let directory = builder.tempdir().map_err(cannot)?;
                let lock = lock_directory(directory.path(), FlockArg::LockExclusive);
                let lock = lock.map_err(cannot)?;
                let path = directory.path().join(SOCKET_NAME);
                Self::bind_at(path, mode, group, Some((lock, directory)))
            }
        }
    }

    fn bind_at(
        path: PathBuf,
        mode: u32,
        group: Option<&str>,
        private: Option<(Flock<File>, TempDir)>,
    ) -> Result<Self, StoreError> {
        let len = path.as_os_str().as_bytes().len();
        if len > MAX_PATH_LEN {
            return Err(StoreError::SocketPathTooLong {
                path,
                len,
                max_len: MAX_PATH_LEN,
            });
        }
        let cannot = |source| StoreError::Socket {
            path: path.clone(),
            source,
        };
        let _lock = match &private {
            Some(_) => None,
            None => lock_folder_of(&path)?,
        };
        clear_the_way(&path)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let bound = || -> io::Result<_> {
            let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
            bind(socket.as_raw_fd(), &UnixAddr::new(&path)?)?;
            Ok(socket)
        };
        let socket = bound().map_err(cannot)?;
        let opened = || -> io::Result<_> {
            // Nobody can connect before it listens, so nobody can before it has its permissions.
            if let Some(group) = group {
                let unknown = || io::Error::other(format!("no group is called {group:?}"));
                let gid = match group.parse::<u32>() {
                    Ok(number) => nix::unistd::Gid::from_raw(number),
                    Err(_) => Group::from_name(group)?.ok_or_else(unknown)?.gid,
                };
                chown(&path, None, Some(gid))?;
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            listen(&socket, Backlog::MAXCONN)?;
            let metadata = fs::symlink_metadata(&path)?;
            Ok((metadata.dev(), metadata.ino()))
        };
        match opened() {
            Ok(inode) => Ok(Self {
                socket,
                path,
                inode,
                _private: private,
            }),
            Err(source) => {
                let _ = fs::remove_file(&path);
                Err(cannot(source))
            }
        }
    }

    /// The next connection that waits, if one does.
    pub(crate) fn accept(&self) -> nix::Result<OwnedFd> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let raw = accept4(self.socket.as_raw_fd(), flags)?;
        // SAFETY: the kernel has just made this descriptor for us; nothing else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(raw) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.inode);
        if ours {
            // If it cannot be removed, the next store to start there removes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the socket of a store that was killed; leaves anything else, and says so.
fn clear_the_way(path: &Path) -> Result<(), StoreError> {
    let cannot = |source| StoreError::Socket {
        path: path.to_owned(),
        source,
    };
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(cannot(error)),
        Ok(metadata) => metadata,
    };
    if !metadata.file_type().is_socket() {
        return Err(StoreError::NotASocket {
            path: path.to_owned(),
        });
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(cannot)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Whatever else it says, somebody may be there.
        _ => Err(StoreError::SocketInUse {
            path: path.to_owned(),
        }),
    }
}

/// Locks a directory; the lock ends with the process, however that ends.
fn lock_directory(directory: &Path, how: FlockArg) -> io::Result<Flock<File>> {
    Flock::lock(File::open(directory)?, how).map_err(|(_, error)| error.into())
}

/// Locks the folder of a socket, so that of two stores that start at once one looks at the other's
/// work only when it is done. A folder that cannot be locked is used as it is.
fn lock_folder_of(path: &Path) -> Result<Option<Flock<File>>, StoreError> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let start = Instant::now();
    loop {
        match lock_directory(folder, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some(lock)),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Ok(None),
            Err(_) if start.elapsed() < LOCK_PATIENCE => thread::sleep(LOCK_INTERVAL),
            Err(source) => {
                return Err(StoreError::FolderLocked {
                    folder: folder.to_owned(),
                    source,
                });
            }
        }
    }
}

/// Removes the private directories of stores that were killed: nobody holds their lock, and nobody
/// listens.
fn remove_stale_directories() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        let named = entry.file_name();
        let ours = named.as_bytes().starts_with(DIRECTORY_PREFIX.as_bytes())
            && fs::symlink_metadata(entry.path())
                .is_ok_and(|found| found.is_dir() && found.uid() == geteuid().as_raw());
        let socket = entry.path().join(SOCKET_NAME);
        // Without a socket it may be one that is just being made.
        if !ours || !fs::symlink_metadata(&socket).is_ok_and(|found| found.file_type().is_socket())
        {
            continue;
        }
        // Held until all is removed, so that nobody begins to listen meanwhile.
        let Ok(_lock) = lock_directory(&entry.path(), FlockArg::LockExclusiveNonblock) else {
            continue;
        };
        let nobody_listens = UnixStream::connect(&socket)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if nobody_listens {
            let _ = fs::remove_file(&socket);
            let _ = fs::remove_dir(entry.path());
        }
    }
}
